// Where the picture lies on the screen: the part of it that is shown, the sizes of its canvases, the magnifier, and what
// pointers do on it.

import {
  DOUBLE_TAP_MS, DOUBLE_TAP_PX, DOUBLE_TAP_ZOOM, LOUPE_CLEAR, LOUPE_ZOOM, MAX_ZOOM, MOVED_PX, SOFTWARE_LAYER_PX, UNITS_PER_REM, WHEEL_ZOOM,
} from "./constants.js";

const find = (id) => document.getElementById(id);
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

export class View {
  constructor(picture) {
    this.picture = picture;
    this.zoom = 1;
    this.middle = [0.5, 0.5]; // of what is shown, in parts of the frame
    this.zoomed = () => {}; // is told the enlargement
    this.coarse = null; // {drawn, wanted}: pixels across, where fewer are drawn than the screen has
    this.corner = 1; // of the magnifier: upper left, upper right, lower left, lower right
  }

  // What is shown: left, top, width, height in parts of the frame.
  region() {
    const part = 1 / this.zoom;
    const [x, y] = this.middle.map((m) => clamp(m - part / 2, 0, 1 - part));
    return [x, y, part, part];
  }

  // Zooms so that the place of the frame at `at`, in parts of the picture on the screen, stays there.
  zoomAt(at, factor) {
    const [x, y, part] = this.region();
    const zoom = clamp(this.zoom * factor, 1, MAX_ZOOM);
    this.middle = [x + at[0] * part, y + at[1] * part].map((place, k) => place + (0.5 - at[k]) / zoom);
    this.zoom = zoom;
    this.settle();
  }

  // Moves what is shown by parts of the picture on the screen.
  pan(dx, dy) {
    const [, , part] = this.region();
    this.middle = [this.middle[0] - dx * part, this.middle[1] - dy * part];
    this.settle();
  }

  reset() {
    [this.zoom, this.middle] = [1, [0.5, 0.5]];
    this.settle();
  }

  settle() {
    const [x, y, part] = this.region();
    this.middle = [x + part / 2, y + part / 2];
    this.zoomed(this.zoom);
  }

  // The canvases have the screen's own pixels; the picture at most as many as it can draw. Returns how many pixels the
  // frame's longer side should have.
  fit(rows, cols) {
    const box = find("view").getBoundingClientRect();
    const scale = Math.min(box.width / cols, box.height / rows);
    const region = this.region();
    this.picture.region = region;
    const [width, height] = [cols * scale, rows * scale];
    for (const canvas of [find("picture"), find("layers")]) {
      const most = canvas.id === "picture" ? this.picture.mostPerPx * region[2] * cols : this.picture.gl ? Infinity : SOFTWARE_LAYER_PX;
      const across = Math.max(Math.round(Math.min(width * devicePixelRatio, most)), 1);
      const down = Math.max(Math.round((across * rows) / cols), 1);
      if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    this.unit = this.unitOf();
    const [drawn, wanted] = [find("layers").width, Math.round(width * devicePixelRatio)];
    this.coarse = drawn < wanted ? { drawn, wanted } : null;
    this.lay(find("drr"), region, width, height);
    const shown = Math.max(find("picture").width, find("picture").height);
    return Math.min(Math.round(shown * this.zoom), Math.max(rows, cols));
  }

  // A unit of the screen in CSS pixels: a sixteenth of a root unit.
  unitOf() {
    const screen = `${innerWidth} ${innerHeight}`;
    if (screen !== this.screen) [this.screen, this.unitPx] = [screen, parseFloat(getComputedStyle(document.documentElement).fontSize) / UNITS_PER_REM];
    return this.unitPx;
  }

  // Lays a canvas that shows another part of the frame, `canvas.region`, over the one that is shown.
  lay(canvas, [left, top, wide, high], width, height) {
    const [x, y, w, h] = canvas.region ?? [0, 0, 1, 1];
    const style = { width: `${width}px`, height: `${height}px`, transformOrigin: "0 0" };
    style.transform = `translate(${((x - left) / wide) * width}px, ${((y - top) / high) * height}px) scale(${w / wide}, ${h / high})`;
    const inset = [(top - y) / h, 1 - (left + wide - x) / w, 1 - (top + high - y) / h, (left - x) / w];
    style.clipPath = `inset(${inset.map((part) => `${100 * clamp(part, 0, 1)}%`).join(" ")})`;
    for (const [name, value] of Object.entries(style)) if (canvas.style[name] !== value) canvas.style[name] = value;
  }

  // A pointer's place in pixels of a frame of rows x cols.
  at(event, rows, cols) {
    const [x, y, part] = this.region(), [right, down] = this.part(event);
    return [(x + right * part) * cols - 0.5, (y + down * part) * rows - 0.5];
  }

  // A pointer's place in parts of the picture on the screen.
  part(event) {
    const box = find("layers").getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  // The picture about the first instrument's tip, enlarged, in a dark corner; hidden without one.
  loupe(overlay, rows, cols) {
    const canvas = find("loupe"), [left, top, part] = this.region();
    const tip = overlay?.instruments.find((i) => i.tip_px)?.tip_px;
    const at = tip && [((tip[0] + 0.5) / cols - left) / part, ((tip[1] + 0.5) / rows - top) / part];
    canvas.hidden = !at || at.some((x) => x < 0 || x > 1);
    if (canvas.hidden) return;
    this.place(canvas, at);
    const size = Math.min(Math.round(canvas.clientWidth * devicePixelRatio), SOFTWARE_LAYER_PX) || canvas.width;
    if (canvas.width !== size) canvas.width = canvas.height = size;
    const c = canvas.getContext("2d");
    const shown = find("layers").getBoundingClientRect().width;
    const side = canvas.clientWidth / LOUPE_ZOOM / shown; // in parts of the picture on the screen
    c.fillRect(0, 0, canvas.width, canvas.height);
    for (const from of [find("picture"), find("layers")]) {
      const [wide, high] = [side * from.width, side * from.width];
      c.drawImage(from, at[0] * from.width - wide / 2, at[1] * from.height - high / 2, wide, high, 0, 0, canvas.width, canvas.height);
    }
  }

  // The magnifier stays in its corner until the tip comes near, and then goes to the darkest that is free. The lower corners
  // have the scale and the legend.
  place(canvas, [x, y]) {
    const near = (corner) => Math.hypot(x - (corner & 1), y - (corner >> 1)) < LOUPE_CLEAR;
    const { corners } = this.picture;
    if (canvas.dataset.corner === undefined || near(this.corner)) {
      const free = [1, 0].filter((corner) => !near(corner));
      this.corner = free.reduce((a, b) => ((corners[b] ?? 0) < (corners[a] ?? 0) - 0.1 ? b : a), free[0] ?? 1);
    }
    if (canvas.dataset.corner !== String(this.corner)) canvas.dataset.corner = this.corner;
  }

  // `touch(at)` takes a touched place in pixels of the frame and returns whether it is used. Otherwise two touches enlarge,
  // two fingers pinch, a drag moves an enlarged picture, and changes the window of a whole one (with the right button: always).
  follow(state, touch) {
    const held = new Map(); // id of a pointer -> {x, y, moved}
    const changed = () => (state.redraw = true);
    let tapped = null, pinched = false;
    find("view").addEventListener("pointerdown", (event) => {
      if (event.target.closest("button, input, select")) return;
      held.set(event.pointerId, { x: event.clientX, y: event.clientY, moved: false, window: this.zoom === 1 || event.button === 2 });
      pinched ||= held.size > 1;
    });
    addEventListener("pointermove", (event) => {
      const one = held.get(event.pointerId);
      if (!one) return;
      const [dx, dy] = [event.clientX - one.x, event.clientY - one.y];
      if (!one.moved && held.size === 1 && Math.hypot(dx, dy) < MOVED_PX) return;
      const before = held.size === 2 ? spread([...held.values()]) : null;
      [one.x, one.y, one.moved] = [event.clientX, event.clientY, true];
      if (before) this.pinch(before, spread([...held.values()]));
      else if (one.window) this.picture.drag(dx, dy);
      else if (held.size === 1) {
        const box = find("layers").getBoundingClientRect();
        this.pan(dx / box.width, dy / box.height);
      }
      changed();
    });
    const end = (event) => {
      const one = held.get(event.pointerId);
      held.delete(event.pointerId);
      const alone = one && !one.moved && !pinched && event.type === "pointerup" && event.button !== 2;
      if (!held.size) pinched = false;
      if (!alone || !state.shown) return;
      const used = touch(this.at(event, state.shown.rows, state.shown.cols));
      const twice = !used && tapped && event.timeStamp - tapped.at < DOUBLE_TAP_MS && Math.hypot(event.clientX - tapped.x, event.clientY - tapped.y) < DOUBLE_TAP_PX;
      tapped = used || twice ? null : { at: event.timeStamp, x: event.clientX, y: event.clientY };
      if (!twice) return;
      if (this.zoom > 1) this.reset();
      else this.zoomAt(this.part(event), DOUBLE_TAP_ZOOM);
      changed();
    };
    addEventListener("pointerup", end);
    addEventListener("pointercancel", end);
    find("view").addEventListener("contextmenu", (event) => event.preventDefault());
    find("view").addEventListener("wheel", (event) => {
      event.preventDefault();
      const px = event.deltaY * (event.deltaMode === 1 ? 33 : 1); // lines
      this.zoomAt(this.part(event), Math.exp(-WHEEL_ZOOM * px));
      changed();
    }, { passive: false });
  }

  // `before` and `after`: middle and distance of two fingers, CSS pixels.
  pinch(before, after) {
    const box = find("layers").getBoundingClientRect();
    const part = ({ x, y }) => [(x - box.left) / box.width, (y - box.top) / box.height];
    const [from, to] = [part(before), part(after)];
    this.zoomAt(from, after.apart / Math.max(before.apart, 1));
    this.pan(to[0] - from[0], to[1] - from[1]);
  }
}

function spread([a, b]) {
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
}
