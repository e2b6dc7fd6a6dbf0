// Slices of the CT: along the patient's axes through the tip, and along the instrument (the probe's eye).

import { AHEAD_MM, PLAN_COLOUR, SHAFT_COLOUR, SHAFT_MM, SLICE_FIELD_MM, SLICE_WINDOW_HU } from "./constants.js";
import { edgesOf } from "./directions.js";
import { text } from "./strings.js";
import { HEAD, Renderer } from "./volume.js";

const SLICE = `${HEAD}
uniform vec3 middle, right, down; // LPS mm; the square's middle and its sides
uniform vec2 window; // fractions of the voxel's range
void main() {
  vec3 p = (middle + (at.x - 0.5) * right + (at.y - 0.5) * down - origin) / size;
  bool inside = all(greaterThanEqual(p, vec3(0))) && all(lessThanEqual(p, vec3(1)));
  float value = inside ? texture(ct, p).r : 0.0;
  colour = vec4(vec3((value - window.x) / (window.y - window.x)), 1.0);
}`;

// Right and down on the screen in LPS, as radiologists look at them.
const AXES = [
  { name: "axial", right: [1, 0, 0], down: [0, 1, 0] },
  { name: "sagittal", right: [0, 1, 0], down: [0, 0, -1] },
  { name: "coronal", right: [1, 0, 0], down: [0, 0, -1] },
];

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const along = (p, way, mm) => p.map((x, k) => x + mm * way[k]);

// The slices through a point along the patient's axes.
export function slicesAt(point_ct) {
  return AXES.map((axis) => ({ ...axis, middle: point_ct }));
}

// The slices of an instrument: two planes that contain its axis, which points down, and two across it, seen along it with the
// head up: at the tip and ahead of it. Null without a direction.
export function slicesOf(instrument) {
  const { tip_ct: tip, axis_ct: axis } = instrument;
  const length = axis ? Math.hypot(...axis) : 0;
  if (!tip || !(length > 0)) return null;
  const down = axis.map((x) => x / length);
  const up = Math.abs(down[2]) < 0.95 ? [0, 0, 1] : [0, -1, 0]; // to the head; of an instrument along the spine: to the front
  const head = along(up, down, -dot(up, down)), size = Math.hypot(...head);
  const right = head.map((x) => x / size), side = cross(down, right), feet = right.map((x) => -x);
  return [
    { name: "along", right: side, down, middle: tip },
    { name: "alongToo", right, down, middle: tip },
    { name: "across", right: side, down: feet, middle: tip },
    { name: "ahead", right: side, down: feet, middle: along(tip, down, AHEAD_MM) },
  ];
}

export class Slices extends Renderer {
  // `marks`: a canvas over `canvas`.
  constructor(canvas, marks, ct) {
    super(canvas, ct, SLICE);
    this.marks = marks;
  }

  prepare() {
    super.prepare();
    this.set("window", SLICE_WINDOW_HU.map((hu) => this.ct.fraction(hu)));
  }

  // Gives the canvases the screen's own pixels; returns whether there are any. `most`: of the longer side.
  fit(most) {
    const { canvas, marks } = this;
    const scale = Math.min(devicePixelRatio, most / Math.max(canvas.clientWidth, canvas.clientHeight, 1));
    const [width, height] = [Math.floor(canvas.clientWidth * scale), Math.floor(canvas.clientHeight * scale)];
    if (!width || !height) return false;
    if (canvas.width !== width || canvas.height !== height)
      for (const c of [canvas, marks]) [c.width, c.height] = [width, height];
    return true;
  }

  // Where the tiles lie: as large as they can be.
  tiles(count) {
    const { width, height } = this.canvas;
    let best = { side: 0, columns: 1 };
    for (let columns = 1; columns <= count; columns++) {
      const side = Math.floor(Math.min(width / columns, height / Math.ceil(count / columns)));
      if (side >= best.side) best = { side, columns };
    }
    return Array.from({ length: count }, (_, k) => ({ x: (k % best.columns) * best.side, y: Math.floor(k / best.columns) * best.side, side: best.side }));
  }

  // Draws `views` (of `slicesAt` or `slicesOf`); `lines` are [from, to, colour, dash] in LPS mm.
  draw(views, lines) {
    const { gl, canvas } = this;
    const tiles = this.tiles(views.length);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    views.forEach((view, k) => {
      const { x, y, side } = tiles[k];
      gl.viewport(x, canvas.height - y - side, side, side);
      this.set("middle", view.middle);
      for (const way of ["right", "down"]) this.set(way, view[way].map((v) => v * SLICE_FIELD_MM));
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    });
    const c = this.marks.getContext("2d");
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, this.marks.width, this.marks.height);
    views.forEach((view, k) => this.mark(c, view, tiles[k], lines));
  }

  // A message instead of slices.
  say(words) {
    const c = this.marks.getContext("2d"), { width, height } = this.marks;
    c.setTransform(1, 0, 0, 1, 0, 0);
    [c.fillStyle, c.textAlign, c.textBaseline, c.font] = ["#000", "center", "middle", `${Math.round(width / 24)}px sans-serif`];
    c.fillRect(0, 0, width, height);
    c.fillStyle = "#a3b0ba";
    c.fillText(words, width / 2, height / 2);
  }

  // A point of the patient in pixels of a tile.
  at(view, point, side) {
    const off = point.map((x, k) => x - view.middle[k]);
    return [side * (0.5 + dot(off, view.right) / SLICE_FIELD_MM), side * (0.5 + dot(off, view.down) / SLICE_FIELD_MM)];
  }

  mark(c, view, { x, y, side }, lines) {
    const unit = side / 220;
    c.save();
    c.setTransform(1, 0, 0, 1, x, y);
    c.beginPath();
    c.rect(0, 0, side - 2, side - 2);
    c.clip();
    for (const [from, to, colour, dash] of lines) {
      c.setLineDash((dash ?? []).map((n) => n * unit));
      for (const [stroke, width] of [["rgb(0 0 0 / 70%)", 4], [colour, 2.2]]) {
        [c.strokeStyle, c.lineWidth] = [stroke, width * unit];
        c.beginPath();
        c.moveTo(...this.at(view, from, side));
        c.lineTo(...this.at(view, to, side));
        c.stroke();
      }
    }
    c.setLineDash([]);
    this.hair(c, side, unit);
    const letters = edgesOf([...view.right, 0, ...view.down, 0]);
    [c.fillStyle, c.strokeStyle, c.lineWidth, c.lineJoin] = ["#ffffff", "rgb(0 0 0 / 75%)", 4 * unit, "round"];
    [c.textAlign, c.textBaseline, c.font] = ["center", "middle", `700 ${Math.round(side / 10)}px sans-serif`];
    const write = (words, at) => {
      c.strokeText(words, ...at);
      c.fillText(words, ...at);
    };
    for (const [edge, at] of [["left", [0.07, 0.5]], ["right", [0.93, 0.5]], ["top", [0.5, 0.18]], ["bottom", [0.5, 0.92]]])
      if (letters[edge]) write(letters[edge], at.map((part) => part * side));
    [c.textAlign, c.font] = ["start", `${Math.round(side / 15)}px sans-serif`];
    write(text.slices[view.name], [0.03 * side, 0.07 * side]);
    c.restore();
  }

  // A cross that leaves the middle free.
  hair(c, side, unit) {
    [c.strokeStyle, c.lineWidth] = ["rgb(255 255 255 / 45%)", unit];
    for (const [a, b] of [[[0.12, 0.5], [0.42, 0.5]], [[0.58, 0.5], [0.88, 0.5]], [[0.5, 0.25], [0.5, 0.42]], [[0.5, 0.58], [0.5, 0.86]]]) {
      c.beginPath();
      c.moveTo(a[0] * side, a[1] * side);
      c.lineTo(b[0] * side, b[1] * side);
      c.stroke();
    }
  }
}

// The lines of slices: planned paths, and instruments with where they would go.
export function linesOf(plan, instruments) {
  const lines = plan.map((t) => [t.entry_ct, t.target_ct, PLAN_COLOUR, [7, 4]]);
  for (const { tip_ct, axis_ct } of instruments)
    if (tip_ct && axis_ct)
      lines.push([along(tip_ct, axis_ct, -SHAFT_MM), tip_ct, SHAFT_COLOUR], [tip_ct, along(tip_ct, axis_ct, SLICE_FIELD_MM / 3), SHAFT_COLOUR, [1.5, 4]]);
  return lines;
}
