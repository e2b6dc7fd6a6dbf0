// What is drawn over the frame: outlines, plan, instruments, scale bar.

import { text } from "./strings.js";

const SHAFT = "#ffb000"; // amber and blue are told apart by every kind of colour vision
const PLAN = "#5cc8ff";
const LEVEL = { danger: "#ff5a36", caution: "#ffd23f", clear: "#7fe0a8" };
const NICE_MM = [1, 2, 5, 10, 20, 50, 100];

export class Layers {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.on = { outlines: true, plan: true, instruments: true };
    this.camera = null; // {focal_px}
    this.measure = []; // two points in pixels of the frame
  }

  // Draws an overlay over a frame of rows x cols; `strength` fades what is old.
  draw(overlay, rows, cols, strength) {
    const c = this.context;
    const scale = this.canvas.width / cols;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, this.canvas.width, this.canvas.height);
    // Pixel centres are at whole coordinates: the frame's left edge is at -0.5.
    c.setTransform(scale, 0, 0, this.canvas.height / rows, scale / 2, this.canvas.height / rows / 2);
    this.px = 1 / scale;
    if (overlay) {
      c.globalAlpha = strength;
      if (this.on.outlines) this.outlines(overlay.outlines);
      if (this.on.plan) this.plan(overlay.plan);
      if (this.on.instruments) this.instruments(overlay);
      this.scaleBar(overlay, rows);
      c.globalAlpha = 1;
    }
    this.measured(overlay);
  }

  path(points, closed) {
    const c = this.context;
    c.beginPath();
    points.forEach(([x, y], k) => (k ? c.lineTo(x, y) : c.moveTo(x, y)));
    if (closed) c.closePath();
    c.stroke();
  }

  outlines(outlines) {
    this.context.lineWidth = 1.6 * this.px;
    for (const outline of outlines) {
      this.context.strokeStyle = outline.color;
      for (const points of outline.paths) this.path(points, true);
    }
  }

  plan(plan) {
    const c = this.context;
    for (const p of plan) {
      if (!p.entry_px || !p.target_px) continue;
      c.strokeStyle = c.fillStyle = PLAN;
      c.lineWidth = 2 * this.px;
      c.setLineDash([10 * this.px, 6 * this.px]);
      this.path([p.entry_px, p.target_px], false);
      c.setLineDash([]);
      c.beginPath();
      c.arc(...p.target_px, 6 * this.px, 0, 7);
      c.stroke();
    }
  }

  instruments(overlay) {
    const c = this.context;
    for (const i of overlay.instruments) {
      if (!i.tip_px) continue;
      const levels = overlay.distances.filter((d) => d.instrument === i.id).map((d) => d.level);
      const worst = ["danger", "caution"].find((level) => levels.includes(level));
      c.strokeStyle = c.fillStyle = worst ? LEVEL[worst] : SHAFT;
      c.lineWidth = 2.5 * this.px;
      if (i.age) c.setLineDash([4 * this.px, 4 * this.px]); // predicted, not seen
      if (i.tail_px) this.path([i.tail_px, i.tip_px], false);
      c.setLineDash([]);
      c.beginPath();
      c.arc(...i.tip_px, 3 * this.px, 0, 7);
      c.fill();
      const radius = this.pxPerMm(overlay, i.tip_ct) * 2.45 * i.sigma_mm; // 95 % of a circular normal error
      if (radius > 0) {
        c.lineWidth = 1.2 * this.px;
        c.beginPath();
        c.arc(...i.tip_px, radius, 0, 7);
        c.stroke();
      }
    }
  }

  // Pixels of the frame to a millimetre at a point of the patient; 0 where that is not known.
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
    const mm = NICE_MM.find((m) => m * perMm > 90 * this.px) ?? 100;
    const c = this.context;
    const [x, y] = [24 * this.px, rows - 26 * this.px];
    c.strokeStyle = c.fillStyle = "#e8eef2";
    c.lineWidth = 2 * this.px;
    this.path([[x, y - 5 * this.px], [x, y], [x + mm * perMm, y], [x + mm * perMm, y - 5 * this.px]], false);
    c.font = `${15 * this.px}px sans-serif`;
    c.fillText(text.mm(mm), x, y - 9 * this.px);
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
    if (this.measure.length === 2) {
      const [a, b] = this.measure;
      const perMm = this.pxPerMm(overlay, null);
      const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
      c.font = `${18 * this.px}px sans-serif`;
      const said = perMm ? text.mm((length / perMm).toFixed(1)) : text.px(length.toFixed(0));
      c.fillText(said, b[0] + 8 * this.px, b[1]);
    }
  }
}
