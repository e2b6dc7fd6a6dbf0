// Where the picture lies on the screen: the sizes of its canvases, the magnifier, and what a pointer does on it.

import { LOUPE_ZOOM } from "./constants.js";

const find = (id) => document.getElementById(id);

export class View {
  constructor(picture) {
    this.picture = picture;
  }

  // The canvases have the screen's own pixels; the picture at most as many as it can draw. Returns the picture's longer side.
  fit(rows, cols) {
    const box = find("view").getBoundingClientRect();
    const scale = Math.min(box.width / cols, box.height / rows);
    const drr = find("drr");
    [drr.style.width, drr.style.height] = [`${cols * scale}px`, `${rows * scale}px`];
    for (const canvas of [find("picture"), find("layers")]) {
      const perPx = Math.min(scale * devicePixelRatio, canvas.id === "picture" ? this.picture.mostPerPx : Infinity);
      const [width, height] = [Math.round(cols * perPx), Math.round(rows * perPx)];
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      canvas.style.width = `${cols * scale}px`;
      canvas.style.height = `${rows * scale}px`;
    }
    return Math.max(find("picture").width, find("picture").height);
  }

  // A pointer's place in pixels of a frame of rows x cols.
  at(event, rows, cols) {
    const box = find("layers").getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * cols - 0.5, ((event.clientY - box.top) / box.height) * rows - 0.5];
  }

  // The picture about the first instrument's tip, enlarged; hidden without one.
  loupe(overlay, rows, cols) {
    const canvas = find("loupe");
    const tip = overlay?.instruments.find((i) => i.tip_px)?.tip_px;
    canvas.hidden = !tip;
    if (!tip) return;
    const c = canvas.getContext("2d");
    const side = (canvas.width / LOUPE_ZOOM) * (cols / find("layers").width); // in pixels of the frame
    c.fillRect(0, 0, canvas.width, canvas.height);
    for (const from of [find("picture"), find("layers")]) {
      const [perCol, perRow] = [from.width / cols, from.height / rows];
      const [x, y] = [(tip[0] + 0.5 - side / 2) * perCol, (tip[1] + 0.5 - side / 2) * perRow];
      c.drawImage(from, x, y, side * perCol, side * perRow, 0, 0, canvas.width, canvas.height);
    }
  }

  // `touch(at)` takes a touched place in pixels of the frame and returns whether it is used; otherwise a drag changes the
  // window.
  follow(state, touch) {
    let held = null;
    find("view").addEventListener("pointerdown", (event) => {
      if (event.target.closest("button")) return;
      held = [event.clientX, event.clientY];
      if (state.shown && touch(this.at(event, state.shown.rows, state.shown.cols))) held = null;
    });
    addEventListener("pointerup", () => (held = null));
    addEventListener("pointermove", (event) => {
      if (!held) return;
      this.picture.drag(event.clientX - held[0], event.clientY - held[1]);
      held = [event.clientX, event.clientY];
      state.redraw = true;
    });
  }
}
