// How long the page takes: from a pointer's event to the frame after its pixels were drawn; from a click on a case to its cuts;
// from a change of the planned surgery to its numbers; from letting go to the exact ones.

class Timing {
  constructor() {
    this.strokes_ms = [];
    this.open_ms = [];
    this.changes_ms = [];
    this.settled_ms = [];
  }

  opening() {
    this.begun = performance.now();
  }

  opened() {
    requestAnimationFrame(() => requestAnimationFrame(() => this.open_ms.push(performance.now() - this.begun)));
  }

  touched(at) {
    this.at ??= at;
  }

  // A frame that is drawn is on the screen when the next one begins.
  drawn() {
    if (this.at === undefined) return;
    const at = this.at;
    this.at = undefined;
    requestAnimationFrame(() => this.strokes_ms.push(performance.now() - at));
  }
}

export const timing = new Timing();
