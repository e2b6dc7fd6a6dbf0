// Drawing over the frame: outlines, plan, instruments, scale bar.

import {
  ELLIPSE_95, HELD_OPACITY, LEVEL_COLOUR, MIN_ARROW, MIN_SCALE_BAR_PX, PLAN_COLOUR, SCALE_BAR_MM, SHAFT_COLOUR,
} from "./constants.js";
import { text } from "./strings.js";

export class Layers {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.on = { outlines: true, plan: true, instruments: true, no_go: true };
    this.no_go = new Set(); // names of no-go regions
    this.alarms = () => []; // the open alarms of distances
    this.camera = null; // {focal_px}
    this.measure = []; // points in pixels of the frame
  }

  // Draws an overlay over a frame of rows x cols with the opacity `strength`; what is held by `ages` is dashed.
  draw(overlay, rows, cols, strength, ages) {
    const c = this.context;
    const scale = this.canvas.width / cols;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, this.canvas.width, this.canvas.height);
    // Pixel centres are at whole coordinates: the frame's left edge is at -0.5.
    c.setTransform(scale, 0, 0, this.canvas.height / rows, scale / 2, this.canvas.height / rows / 2);
    this.px = 1 / scale;
    if (overlay) {
      const drawn = (held) => (c.globalAlpha = held ? Math.min(strength, HELD_OPACITY) : strength);
      this.outlines(overlay.outlines, (structure) => {
        const held = ages.registration !== null || ages.objects.has(structure);
        drawn(held);
        return held;
      });
      drawn(ages.registration !== null);
      if (this.on.plan) this.plan(overlay.plan);
      if (this.on.instruments)
        for (const i of overlay.instruments) {
          const held = ages.instruments.has(i.id);
          drawn(held);
          this.instrument(i, overlay, held);
        }
      drawn(ages.registration !== null);
      this.scaleBar(overlay, rows);
      this.orientation(overlay, rows, cols);
      c.globalAlpha = 1;
    }
    this.measured(overlay);
  }

  // A light line with a dark border: legible on bone and on air.
  bordered(points) {
    const c = this.context;
    for (const [colour, width] of [["rgb(0 0 0 / 70%)", 4.5], ["#e8eef2", 2]]) {
      c.strokeStyle = colour;
      c.lineWidth = width * this.px;
      this.path(points, false);
    }
  }

  words(said, x, y, size) {
    const c = this.context;
    c.font = `${size * this.px}px sans-serif`;
    c.strokeStyle = "rgb(0 0 0 / 70%)";
    c.fillStyle = "#e8eef2";
    c.lineWidth = 3 * this.px;
    c.lineJoin = "round";
    c.strokeText(said, x, y);
    c.fillText(said, x, y);
  }

  path(points, closed) {
    const c = this.context;
    c.beginPath();
    points.forEach(([x, y], k) => (k ? c.lineTo(x, y) : c.moveTo(x, y)));
    if (closed) c.closePath();
    c.stroke();
  }

  // `isHeld(structure)` sets the opacity for it, and returns whether its pose is old.
  outlines(outlines, isHeld) {
    const c = this.context;
    for (const outline of outlines) {
      const forbidden = this.no_go.has(outline.structure);
      if (!this.on[forbidden ? "no_go" : "outlines"]) continue;
      c.strokeStyle = c.fillStyle = outline.color;
      c.lineWidth = (forbidden ? 2.5 : 1.6) * this.px;
      if (isHeld(outline.structure)) c.setLineDash([8 * this.px, 8 * this.px]);
      else if (forbidden) c.setLineDash([3 * this.px, 5 * this.px]);
      for (const points of outline.paths) {
        this.path(points, true);
        if (forbidden) this.hatch();
      }
      c.setLineDash([]);
    }
  }

  // Fills the path that was just drawn, so that a no-go region does not look like a bone.
  hatch() {
    const c = this.context;
    const before = c.globalAlpha;
    c.globalAlpha = 0.22 * before;
    c.fill();
    c.globalAlpha = before;
  }

  plan(plan) {
    const c = this.context;
    for (const p of plan) {
      if (!p.entry_px || !p.target_px) continue;
      c.strokeStyle = c.fillStyle = PLAN_COLOUR;
      c.lineWidth = 2 * this.px;
      c.setLineDash([10 * this.px, 6 * this.px]);
      this.path([p.entry_px, p.target_px], false);
      c.setLineDash([]);
      c.beginPath();
      c.arc(...p.target_px, 6 * this.px, 0, 7);
      c.stroke();
    }
  }

  instrument(i, overlay, held) {
    if (!i.tip_px) return;
    const c = this.context;
    const levels = [...overlay.distances, ...this.alarms()].filter((d) => d.instrument === i.id).map((d) => d.level);
    const worst = ["danger", "caution"].find((level) => levels.includes(level));
    c.strokeStyle = c.fillStyle = worst ? LEVEL_COLOUR[worst] : SHAFT_COLOUR;
    c.lineWidth = 2.5 * this.px;
    if (i.age || held) c.setLineDash([4 * this.px, 4 * this.px]); // predicted or held, not detected
    if (i.shaft_px) this.path(i.shaft_px, false);
    else if (i.tail_px) this.path([i.tail_px, i.tip_px], false);
    c.setLineDash([]);
    c.beginPath();
    c.arc(...i.tip_px, 3 * this.px, 0, 7);
    c.fill();
    const perMm = this.pxPerMm(overlay, i.tip_ct);
    const [rx, ry] = this.errors(i, overlay.registration).map((mm) => perMm * ELLIPSE_95 * mm);
    if (rx > 0) {
      c.lineWidth = 1.2 * this.px;
      c.beginPath();
      c.ellipse(...i.tip_px, rx, Math.abs(ry), 0, 0, 7);
      c.stroke();
    }
    if (i.shaft_px) {
      const [x, y] = i.shaft_px[i.shaft_px.length >> 1];
      this.words(text.bent, x + 10 * this.px, y - 10 * this.px, 15);
    }
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

  scaleBar(overlay, rows) {
    const perMm = this.pxPerMm(overlay, null);
    if (!perMm) return;
    const mm = SCALE_BAR_MM.find((m) => m * perMm > MIN_SCALE_BAR_PX * this.px) ?? 100;
    const [x, y] = [24 * this.px, rows - 26 * this.px];
    this.bordered([[x, y - 5 * this.px], [x, y], [x + mm * perMm, y], [x + mm * perMm, y - 5 * this.px]]);
    this.words(text.mm(mm), x, y - 9 * this.px, 15);
  }

  // The patient's directions: arrows to the left (L), the back (P) and the head (H), projected into the picture.
  orientation(overlay, rows, cols) {
    const T = overlay.registration?.T_camera_ct;
    if (!T) return;
    const c = this.context;
    const [x, y, length] = [cols - 60 * this.px, rows - 60 * this.px, 38 * this.px];
    c.textAlign = "center";
    c.textBaseline = "middle";
    [text.toLeft, text.toBack, text.toHead].forEach((letter, k) => {
      const [dx, dy] = [T[k], T[4 + k]];
      if (Math.hypot(dx, dy) < MIN_ARROW) return; // points at the viewer
      this.bordered([[x, y], [x + length * dx, y + length * dy]]);
      const size = Math.hypot(dx, dy);
      const beyond = length + (11 * this.px) / size;
      this.words(letter, x + beyond * dx, y + beyond * dy, 15);
    });
    c.textAlign = "start";
    c.textBaseline = "alphabetic";
  }

  measured(overlay) {
    if (!this.measure.length) return;
    const c = this.context;
    c.strokeStyle = c.fillStyle = "#ffffff";
    c.lineWidth = 1.5 * this.px;
    this.path(this.measure, false);
    for (const p of this.measure) {
      c.beginPath();
      c.arc(...p, 4 * this.px, 0, 7);
      c.stroke();
    }
    const said = this.said(this.measure, overlay);
    const last = this.measure[this.measure.length - 1];
    if (said) this.words(said, last[0] + 8 * this.px, last[1], 18);
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
