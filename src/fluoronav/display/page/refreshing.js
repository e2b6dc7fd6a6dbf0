// When the page is drawn: at the screen's refresh after something has come, and a few times a second while nothing comes.

import { HIDDEN_EVERY_MS, IDLE_EVERY_MS } from "./constants.js";

export class Refreshing {
  // `draw(hidden)`: the page is behind another, and only what is heard counts.
  constructor(draw) {
    this.draw = draw;
    this.asked = null; // when a refresh was asked for that has not come yet
    this.hiddenAt = -Infinity;
    this.channel = new MessageChannel();
    this.channel.port1.onmessage = () => this.painted();
    document.addEventListener("visibilitychange", () => this.again());
  }

  ask() {
    const now = performance.now();
    if (document.hidden) {
      // A hidden page gets no refreshes, and its timers may wait for a minute: it goes by what comes from the server.
      if (now - this.hiddenAt < HIDDEN_EVERY_MS) return;
      this.hiddenAt = now;
      this.draw(true);
    } else if (this.asked === null) {
      this.asked = now;
      this.frame = requestAnimationFrame(() => this.refresh());
    }
  }

  again() {
    cancelAnimationFrame(this.frame);
    this.asked = null;
    this.ask();
  }

  refresh() {
    const asked = this.asked;
    this.asked = null;
    clearTimeout(this.idle);
    this.idle = setTimeout(() => this.ask(), IDLE_EVERY_MS);
    this.draw(false, asked);
  }

  // Calls `done` with the time from asking for this refresh to the end of its painting, ms.
  whenPainted(asked, done) {
    this.done = () => done(performance.now() - asked);
    this.channel.port2.postMessage(null);
  }

  painted() {
    this.done?.();
    this.done = null;
  }
}
