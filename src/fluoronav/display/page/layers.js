// Drawing over the frame: outlines, plan, instruments. Widths and letters are in units of the screen, 1/1080 of its height, so
// that they are as large on every screen; `u` is a unit in pixels of the frame.

import { annotate } from "./annotations.js";
import {
  CASING, ELLIPSE_95, HATCH_UNITS, HELD_OPACITY, LEVEL_COLOUR, PLAN_COLOUR, SHAFT_COLOUR, TEXT_UNITS,
} from "./constants.js";
import { Meanings } from "./meanings.js";
import { text } from "./strings.js";

const WORST = ["danger", "caution"];

export class Layers {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.on = { outlines: true, plan: true, instruments: true, no_go: true, labels: true, letters: true };
    this.meanings = new Meanings();
    this.alarms = () => []; // the open alarms of distances
    this.camera = null; // {focal_px}
    this.measure = []; // points in pixels of the frame
    this.landmarks = []; // [{name, touched_px, projected_px}]
    this.view = null; // {region(), unit}: the part of the frame that is shown, and a unit in CSS pixels
    this.legend = null;
    this.patterns = new Map(); // hatching by colour and size
  }

  get no_go() {
    return this.meanings.no_go;
  }

  // Draws an overlay over a frame of rows x cols with the opacity `strength`; what is held by `ages` is dashed.
  draw(overlay, rows, cols, strength, ages) {
    const c = this.context;
    this.lay(rows, cols);
    if (overlay) {
      if (overlay.plan.length) this.meanings.aim(overlay.plan.map((p) => p.trajectory));
      const drawn = (held) => (c.globalAlpha = held ? Math.min(strength, HELD_OPACITY) : strength);
      const isHeld = (structure) => ages.registration !== null || ages.objects.has(structure);
      this.outlines(overlay, isHeld, drawn);
      drawn(ages.registration !== null);
      if (this.on.plan) this.plan(overlay.plan);
      annotate(this, overlay, ages.registration !== null, strength);
      if (this.on.instruments)
        for (const i of overlay.instruments) {
          const held = ages.instruments.has(i.id);
          drawn(held);
          this.instrument(i, overlay, held);
        }
      c.globalAlpha = 1;
    }
    this.picked(overlay);
    this.legend?.show(overlay, this);
  }

  // Clears the canvas, and lays pixels of the frame over it. Pixel centres are at whole coordinates: the frame's left edge is
  // at -0.5.
  lay(rows, cols) {
    const { canvas, context: c } = this;
    const [left, top, wide, high] = this.view?.region() ?? [0, 0, 1, 1];
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, canvas.width, canvas.height);
    const [x, y] = [canvas.width / (wide * cols), canvas.height / (high * rows)];
    c.setTransform(x, 0, 0, y, (0.5 - left * cols) * x, (0.5 - top * rows) * y);
    c.lineJoin = "round";
    this.px = 1 / x; // a pixel of the canvas
    this.u = ((this.view?.unit ?? 1) * wide * cols) / (canvas.clientWidth || canvas.width);
    this.shown = { left: left * cols - 0.5, top: top * rows - 0.5, right: (left + wide) * cols - 0.5, bottom: (top + high) * rows - 0.5 };
  }

  // A line with a dark border: legible on bone and on air. `dash` in units.
  line(points, colour, width, { dash = [], closed = false } = {}) {
    const c = this.context;
    c.beginPath();
    points.forEach(([x, y], k) => (k ? c.lineTo(x, y) : c.moveTo(x, y)));
    if (closed) c.closePath();
    c.setLineDash(dash.map((n) => n * this.u));
    for (const [stroke, wide] of [[CASING, width + 2], [colour, width]]) {
      c.strokeStyle = stroke;
      c.lineWidth = wide * this.u;
      c.stroke();
    }
    c.setLineDash([]);
  }

  ring([x, y], radius, colour, width) {
    const c = this.context;
    c.beginPath();
    c.arc(x, y, radius, 0, 7);
    for (const [stroke, wide] of [[CASING, width + 2], [colour, width]]) {
      c.strokeStyle = stroke;
      c.lineWidth = wide * this.u;
      c.stroke();
    }
  }

  // Bordered words of a height in units.
  words(said, x, y, size, { colour = "#ffffff", align = "start", base = "alphabetic" } = {}) {
    const c = this.context;
    [c.font, c.textAlign, c.textBaseline] = [`700 ${size * this.u}px sans-serif`, align, base];
    [c.strokeStyle, c.fillStyle, c.lineWidth] = [CASING, colour, (size / 7) * this.u];
    c.strokeText(said, x, y);
    c.fillText(said, x, y);
  }

  outlines(overlay, isHeld, drawn) {
    const order = ["bone", "target", "no_go", "vessel", "nerve"];
    const things = overlay.outlines.map((o) => ({ ...o, meaning: this.meanings.of(o.structure) }));
    things.sort((a, b) => order.indexOf(a.meaning) - order.indexOf(b.meaning));
    for (const { structure, paths, meaning } of things) {
      if (!this.on[meaning === "no_go" ? "no_go" : "outlines"]) continue;
      const held = isHeld(structure), style = this.meanings.style(structure);
      drawn(held);
      const level = this.levelAt(overlay, (d) => d.structure === structure);
      const colour = level ? LEVEL_COLOUR[level] : style.colour, width = style.width * (level ? 1.6 : 1);
      for (const points of paths) {
        this.line(points, colour, width, { dash: held ? [8, 8] : style.dash, closed: true });
        if (style.hatched || level === "danger") this.hatch(points, colour);
      }
    }
  }

  // The worst level of the distances and open alarms that `chosen` picks; undefined where all are clear.
  levelAt(overlay, chosen) {
    const levels = [...overlay.distances, ...this.alarms()].filter(chosen).map((d) => d.level);
    return WORST.find((level) => levels.includes(level));
  }

  // Fills a path with oblique lines: what may not be touched is told by shape as well.
  hatch(points, colour) {
    const c = this.context;
    c.beginPath();
    points.forEach(([x, y], k) => (k ? c.lineTo(x, y) : c.moveTo(x, y)));
    c.fillStyle = this.pattern(colour);
    c.fill();
  }

  pattern(colour) {
    const side = Math.max(Math.round((HATCH_UNITS * this.u) / this.px), 4), key = `${colour} ${side}`;
    if (!this.patterns.has(key)) {
      if (this.patterns.size > 16) this.patterns.clear(); // of other sizes of the window
      const tile = document.createElement("canvas");
      tile.width = tile.height = side;
      const t = tile.getContext("2d");
      [t.strokeStyle, t.lineWidth] = [colour, side / 9];
      for (const from of [-side, 0, side]) {
        t.moveTo(from - 1, side + 1);
        t.lineTo(from + side + 1, -1);
      }
      t.stroke();
      this.patterns.set(key, this.context.createPattern(tile, "repeat"));
    }
    const pattern = this.patterns.get(key);
    pattern.setTransform(new DOMMatrix([this.px, 0, 0, this.px, 0, 0]));
    return pattern;
  }

  plan(plan) {
    for (const p of plan) {
      if (!p.entry_px || !p.target_px) continue;
      this.line([p.entry_px, p.target_px], PLAN_COLOUR, 3, { dash: [14, 8] });
      this.ring(p.target_px, 8 * this.u, PLAN_COLOUR, 3);
    }
  }

  instrument(i, overlay, held) {
    if (!i.tip_px) return;
    const c = this.context;
    const level = this.levelAt(overlay, (d) => d.instrument === i.id);
    const colour = level ? LEVEL_COLOUR[level] : SHAFT_COLOUR;
    const shaft = i.shaft_px ?? (i.tail_px ? [i.tail_px, i.tip_px] : null);
    const uncertain = i.age || held; // predicted or held, not detected
    if (shaft) {
      this.line(shaft, colour, level ? 6 : 4, { dash: uncertain ? [6, 6] : [] });
      if (level === "danger" && !uncertain) this.line(shaft, "#ffffff", 1.5, { dash: [7, 9] });
    }
    c.beginPath();
    c.arc(...i.tip_px, 4.5 * this.u, 0, 7);
    c.fillStyle = colour;
    c.fill();
    const perMm = this.pxPerMm(overlay, i.tip_ct);
    const [rx, ry] = this.errors(i, overlay.registration).map((mm) => perMm * ELLIPSE_95 * mm);
    if (rx > 0) {
      [c.lineWidth, c.strokeStyle] = [1.6 * this.u, colour];
      c.beginPath();
      c.ellipse(...i.tip_px, rx, Math.abs(ry), 0, 0, 7);
      c.stroke();
    }
    if (level) this.warning(i.tip_px, level, shaft);
    if (i.shaft_px) {
      const [x, y] = i.shaft_px[i.shaft_px.length >> 1];
      this.words(text.bent, x + 12 * this.u, y - 12 * this.u, TEXT_UNITS.level);
    }
  }

  // The level at a tip by shape: a triangle with a mark for danger, an empty one for caution; beyond the tip, off the shaft.
  warning([x, y], level, shaft) {
    const c = this.context, [from] = shaft ?? [[x, y - 1]], size = 20 * this.u;
    const length = Math.hypot(x - from[0], y - from[1]) || 1;
    const [mx, my] = [x + (52 * this.u * (x - from[0])) / length, y + (52 * this.u * (y - from[1])) / length];
    const corners = [[mx, my - size], [mx + size, my + 0.8 * size], [mx - size, my + 0.8 * size]];
    this.line(corners, LEVEL_COLOUR[level], 4, { closed: true });
    if (level !== "danger") return;
    c.fillStyle = LEVEL_COLOUR.danger;
    c.fill();
    this.words("!", mx, my + 0.2 * size, 28, { align: "center", base: "middle" });
  }

  // 1 sigma along the picture's columns and rows, mm. A tip that comes from the tracker alone is drawn through the
  // registration, whose error adds to its own; a detected tip is where the picture shows it.
  errors(instrument, registration) {
    const through = instrument.origin === "tracker" ? registration : null;
    // No ellipse where an error is unknown: a small one would be wrong.
    if (instrument.sigma_mm === null || (through && !through.sigma)) return [0, 0];
    return [3, 4].map((k) => Math.hypot(instrument.sigma_mm, through?.sigma?.[k] ?? 0));
  }

  // Pixels of the frame per millimetre at a point of the patient; 0 where it is unknown.
  pxPerMm(overlay, point_ct) {
    const T = overlay?.registration?.T_camera_ct;
    if (!T || !this.camera) return 0;
    const p = point_ct ?? this.camera.target_ct;
    if (!p) return 0;
    const z = T[8] * p[0] + T[9] * p[1] + T[10] * p[2] + T[11];
    return z > 0 ? this.camera.focal_px / z : 0;
  }

  // What a person has touched: points of a measurement, and landmarks beside where the registration projects them.
  picked(overlay) {
    for (const { name, touched_px, projected_px } of this.landmarks) {
      if (projected_px) {
        this.line([touched_px, projected_px], "#ffffff", 1.5);
        this.ring(projected_px, 9 * this.u, PLAN_COLOUR, 3);
      }
      this.cross(touched_px);
      this.words(name, touched_px[0] + 14 * this.u, touched_px[1] - 14 * this.u, TEXT_UNITS.level);
    }
    if (!this.measure.length) return;
    this.line(this.measure, "#ffffff", 2);
    for (const p of this.measure) this.ring(p, 7 * this.u, "#ffffff", 2);
    const said = this.said(this.measure, overlay);
    const [x, y] = this.measure[this.measure.length - 1];
    if (said) this.words(said, x + 12 * this.u, y, TEXT_UNITS.distance);
  }

  cross([x, y]) {
    const arm = 9 * this.u;
    for (const [dx, dy] of [[arm, 0], [0, arm]]) this.line([[x - dx, y - dy], [x + dx, y + dy]], "#ffffff", 2.5);
  }

  // The length of two points, the angle at the middle one of three.
  said([a, b, d], overlay) {
    if (d) {
      const [u, v] = [a, d].map((p) => [p[0] - b[0], p[1] - b[1]]);
      const angle = Math.atan2(Math.abs(u[0] * v[1] - u[1] * v[0]), u[0] * v[0] + u[1] * v[1]);
      return text.degrees(((180 / Math.PI) * angle).toFixed(1));
    }
    if (!b) return "";
    const perMm = this.pxPerMm(overlay, null);
    const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
    return perMm ? text.mm((length / perMm).toFixed(1)) : text.px(length.toFixed(0));
  }
}
