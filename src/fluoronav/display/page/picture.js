// The frame: counts as received; curve, evening and window are applied when it is drawn, on the browser's GPU where it has one.

import { CURVE_CHANGE, MAX_WINDOW_STEP, PRESET_WINDOWS, WINDOW_EVERY_MS, WINDOW_SETTLES_MS } from "./constants.js";
import { Curve } from "./curve.js";
import { Background } from "./evening.js";
import { hasGpu } from "./gl.js";
import { CpuPainter } from "./picture_cpu.js";
import { GpuPainter } from "./picture_gpu.js";
import { curveOf, outsideOf, windowOf } from "./window.js";

// `where`: "gpu" or "cpu"; by default what the browser has. WebGL in software takes twice as long as the CPU's own way.
export function makePicture(canvas, where) {
  return new Picture(canvas, (where ?? (hasGpu() ? "gpu" : "cpu")) === "gpu" ? GpuPainter : CpuPainter);
}

class Picture {
  constructor(canvas, Painter) {
    this.canvas = canvas;
    this.rows = this.cols = 0;
    this.region = [0, 0, 1, 1]; // what is shown: left, top, width, height in parts of the picture
    this.preset = "bone";
    this.window = null; // [low, high] in fractions of full scale, once a person has dragged
    this.corners = []; // how bright the corners are, as of `outsideOf`
    this.forget();
    this.painter = new Painter(this);
    this.mostPerPx = this.painter.mostPerPx;
  }

  get gl() {
    return this.painter.gl;
  }

  get even() {
    return PRESET_WINDOWS[this.preset].even;
  }

  forget() {
    this.range = null; // the window as it is chosen for the picture
    this.aimedAt = null; // when it was chosen
    this.next = 0;
    this.noise = 0; // fraction that is not exceeded outside the field
    this.background = new Background();
    this.version = 0; // counts changes of curve and background
  }

  // "bone", "soft" or "metal".
  choose(preset) {
    [this.preset, this.window, this.aimedAt] = [preset, null, null];
  }

  // Takes a frame's pixels, scaled to the screen.
  take(header, buffer, offset) {
    const pixels = header.dtype === "u2" ? new Uint16Array(buffer, offset) : new Uint8Array(buffer, offset);
    this.upload(header, header.height, header.width, pixels);
  }

  // The same for pixels of any size.
  upload(header, rows, cols, pixels) {
    const resized = rows !== this.rows || cols !== this.cols || header.dtype !== this.dtype;
    [this.rows, this.cols, this.dtype] = [rows, cols, header.dtype];
    const kind = `${header.dtype} ${header.bits} ${header.inverse} ${header.view}`;
    if (kind !== this.kindOf) {
      this.kindOf = kind;
      this.forget();
      this.full = 2 ** header.bits - 1;
      this.inverse = Boolean(header.inverse);
      this.view = Boolean(header.view); // the enhanced picture: without noise, and with a curve of its own
      this.bytes = pixels.BYTES_PER_ELEMENT;
      this.bend(new Curve(this.full, 0, this.view ? null : this.full / 100));
    }
    this.pixels = pixels;
    this.painter.keep(pixels, resized);
  }

  bend(curve) {
    // What a person has chosen keeps its counts.
    const moved = (window) => window?.map((x) => curve.of(this.curve.back(Math.min(Math.max(x, 0), 1)))) ?? null;
    if (this.curve && this.window) this.window = moved(this.window);
    if (this.curve && this.range) this.range = moved(this.range);
    this.curve = curve;
    this.fractions = curve.table(this.bytes, this.inverse);
    this.version++;
  }

  // Moves the window smoothly towards the best one for what lies inside `paths`, outlines in pixels of the frame, which has
  // `frameCols` columns.
  aim(now, paths, frameCols) {
    if (this.aimedAt !== null && now < this.next) return;
    const { pixels, cols, rows, painter } = this;
    const scale = cols / frameCols;
    const scaled = paths.map((path) => path.map(([x, y]) => [(x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5]));
    const pixel = this.view ? (x, y) => pixels[y * cols + x] : (x, y) => smoothed(pixels, rows, cols, x, y);
    const counts = this.inverse ? (x, y) => this.full - pixel(x, y) : pixel;
    const outside = outsideOf(counts, rows, cols);
    this.corners = outside.corners;
    if (!this.view) this.follow_curve(curveOf(counts, rows, cols, scaled, this.full, outside));
    this.noise = outside.noise < 0 ? -1 : this.curve.of(outside.noise);
    const first = this.aimedAt === null;
    const part = first ? 1 : Math.min(1 - Math.exp(-(now - this.aimedAt) / WINDOW_SETTLES_MS), MAX_WINDOW_STEP);
    const fraction = (x, y) => this.fractions[pixel(x, y)];
    this.background.follow(fraction, rows, cols, this.noise, part);
    const { even, background, noise } = this;
    const evened = (x, y) => {
      const value = fraction(x, y);
      return value <= noise ? -Infinity : value - even * background.at((x + 0.5) / cols, (y + 0.5) / rows);
    };
    const wanted = windowOf(evened, rows, cols, scaled, -9, this.preset);
    this.range = first || !this.range ? wanted : this.range.map((was, k) => was + part * (wanted[k] - was));
    this.version++;
    [this.aimedAt, this.next] = [now, now + WINDOW_EVERY_MS];
    painter.stale = true;
  }

  // A curve that changed with every picture would make the window flicker.
  follow_curve(wanted) {
    const { dark, soft } = this.curve;
    if (this.aimedAt !== null && Math.max(Math.abs(wanted.dark - dark), Math.abs(wanted.soft - soft)) < CURVE_CHANGE * soft) return;
    this.bend(wanted);
  }

  // Fractions that are drawn black and white.
  blackAndWhite() {
    if (!this.window && !this.range) {
      this.aim(0, [], this.cols);
      this.aimedAt = null;
    }
    return this.window ?? this.range;
  }

  // A drag sideways changes the width, up and down the level, as in other viewers.
  drag(dx, dy) {
    const [low, high] = this.blackAndWhite();
    const width = Math.max((high - low) * (1 + dx / 300), 0.002);
    const level = (low + high) / 2 + (dy / 600) * (high - low);
    this.window = [level - width / 2, level + width / 2];
  }

  draw() {
    if (this.rows) this.painter.draw();
  }
}

// The binomial mean of a pixel and its neighbours, as it is drawn.
function smoothed(pixels, rows, cols, x, y) {
  const left = x > 0 ? -1 : 0, right = x < cols - 1 ? 1 : 0, at = y * cols + x;
  const line = (k) => pixels[k + left] + 2 * pixels[k] + pixels[k + right];
  return (line(y > 0 ? at - cols : at) + 2 * line(at) + line(y < rows - 1 ? at + cols : at)) >> 4;
}
