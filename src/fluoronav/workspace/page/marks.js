// Marks over a cut: the cross, points of measurements and flags, screws and paths.

import { along, cross, dot, minus } from "./grid.js";

const CROSS = { axial: "#5cc8ff", sagittal: "#ffb000", coronal: "#7fe0a8" };
export const GRADES = { A: "#37d67a", B: "#b6e34a", C: "#ffd23f", D: "#ff8a3c", E: "#ff5a4a" };
const HANDLE_PX = 7, REACH_PX = 12;
const NAME_REACH_MM = 15; // chosen: half a vertebra
const PLANE = "#ff9f43", GRIP_MM = 28; // of the grips that turn it from its middle; chosen
const PLANE_MM = 40, PARALLEL = 0.02; // a plane is drawn so far from its middle, where it lies across the slice; chosen

export function drawCross(context, cut, scene, width, height) {
  if (!scene.layers.cross) return;
  const [x, y] = cut.viewport.worldToCanvas(scene.cross);
  const gap = 14;
  const of = (axis) => CROSS[scene.cutNames[axis]];
  context.lineWidth = 1;
  const lines = [
    [of(cut.right.axis), [x, 0, x, y - gap], [x, y + gap, x, height]],
    [of(cut.down.axis), [0, y, x - gap, y], [x + gap, y, width, y]],
  ];
  for (const [colour, ...pieces] of lines) {
    context.strokeStyle = colour;
    context.beginPath();
    for (const [ax, ay, bx, by] of pieces) {
      context.moveTo(Math.round(ax) + 0.5, Math.round(ay) + 0.5);
      context.lineTo(Math.round(bx) + 0.5, Math.round(by) + 0.5);
    }
    context.stroke();
  }
}

// How far a point lies from the slice that is shown, mm.
const away = (cut, grid, point) => Math.abs(grid.voxel(point)[cut.normal] - cut.slice) * cut.step;

export function drawMarks(context, cut, grid, scene) {
  context.font = "600 14px system-ui, sans-serif";
  context.textAlign = "left";
  context.textBaseline = "middle";
  for (const mark of scene.marks()) {
    if (mark.everywhere) {
      name(context, cut, grid, mark);
      continue;
    }
    const near = mark.points.map((p) => away(cut, grid, p) <= Math.max(cut.step, 2));
    if (!near.some(Boolean) && !mark.chosen) continue;
    const at = mark.points.map((p) => cut.viewport.worldToCanvas(p));
    context.strokeStyle = context.fillStyle = mark.colour;
    context.globalAlpha = near.every(Boolean) ? 1 : 0.5;
    context.lineWidth = mark.chosen ? 2.5 : 1.5;
    context.setLineDash(near.every(Boolean) ? [] : [6, 4]);
    if (at.length > 1 && at.length <= 4) {
      context.beginPath();
      at.forEach(([x, y], k) => (k % 2 ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.stroke();
    }
    context.setLineDash([]);
    for (const [x, y] of at) context.fillRect(x - 3, y - 3, 6, 6);
    if (mark.text && (mark.chosen || (mark.always && near.every(Boolean)))) label(context, mark.text, at[0][0] + 10, at[0][1] - 12, mark.colour);
    context.globalAlpha = 1;
  }
}

// A name of what lies at a point, also where the slice passes some way beside it.
function name(context, cut, grid, { points: [point], text, colour }) {
  if (away(cut, grid, point) > NAME_REACH_MM) return;
  const [x, y] = cut.viewport.worldToCanvas(point);
  label(context, text, x - context.measureText(text).width / 2, y, colour);
}

function label(context, text, x, y, colour) {
  const width = context.measureText(text).width;
  context.fillStyle = "rgb(0 0 0 / 70%)";
  context.fillRect(x - 4, y - 10, width + 8, 20);
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

// The line in which a plane meets the slice: its middle, its direction, and the grips that shift and turn it; undefined where it lies elsewhere.
export function planeLine(cut, { point, normal }) {
  const inPlane = along(cut.axis, normal, -dot(cut.axis, normal));
  const steepness = dot(inPlane, cut.axis);
  if (steepness < PARALLEL) return undefined;
  const t = dot(minus(cut.plane(), point), cut.axis) / steepness;
  if (Math.abs(t) * Math.hypot(...inPlane) > PLANE_MM) return undefined;
  const middle = along(point, inPlane, t);
  const line = cross(normal, cut.axis).map((x) => x / Math.sqrt(steepness));
  return { middle, line, grips: [middle, along(middle, line, -GRIP_MM), along(middle, line, GRIP_MM)] };
}

// Where the planes of cuts meet the slice; the tick points to the side that can be moved.
export function drawPlanes(context, cut, scene) {
  if (!scene.layers.surgery) return;
  for (const plane of scene.planes()) {
    const found = planeLine(cut, plane);
    if (!found) continue;
    const { middle, line, grips } = found;
    const [a, b, c, d, ...handles] = [along(middle, line, -PLANE_MM), along(middle, line, PLANE_MM), middle, along(middle, plane.normal, PLANE_MM / 6), ...grips].map((p) => cut.viewport.worldToCanvas(p));
    context.strokeStyle = PLANE;
    context.lineWidth = plane.chosen ? 3 : 1.5;
    context.beginPath();
    for (const [from, to] of [[a, b], [c, d]]) {
      context.moveTo(...from);
      context.lineTo(...to);
    }
    context.stroke();
    if (plane.chosen) handles.forEach((at, k) => handle(context, at, k === 0, PLANE));
    const right = a[0] > b[0] ? a : b;
    label(context, plane.text, right[0] + 6, right[1], PLANE);
  }
}

// Screws as they lie in space: filled where the slice cuts them, dashed where they pass before or behind it.
export function drawScrews(context, cut, scene) {
  if (!scene.layers.screws) return;
  for (const screw of scene.screws()) {
    const { entry_ct: entry, tip_ct: tip, diameter_mm } = screw;
    const [a, b] = [entry, tip].map((p) => cut.viewport.worldToCanvas(p));
    const [c, d] = [entry, along(entry, cut.right.vector, diameter_mm)].map((p) => cut.viewport.worldToCanvas(p));
    const width = Math.hypot(d[0] - c[0], d[1] - c[1]);
    const depth = [entry, tip].map((p) => dot(minus(p, scene.cross), cut.towards));
    const nearest = depth[0] * depth[1] <= 0 ? 0 : Math.min(...depth.map(Math.abs));
    const through = nearest <= diameter_mm / 2 + cut.step / 2;
    const chosen = screw.id === scene.chosen;
    if (!through && !chosen) continue;
    const colour = screw.colour ?? GRADES[screw.grade] ?? "#ffb000";
    context.globalAlpha = through ? 0.35 : 0.15;
    context.strokeStyle = colour;
    context.lineCap = "round";
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(...a);
    context.lineTo(...b);
    context.stroke();
    context.globalAlpha = 1;
    context.lineWidth = 1.5;
    context.setLineDash(through ? [] : [5, 4]);
    outline(context, a, b, width / 2);
    context.setLineDash([]);
    section(context, cut, screw, colour);
    if (chosen) handles(context, a, b, colour);
    else label(context, screw.short, a[0] + 8, a[1] - 10, colour);
  }
}

function outline(context, a, b, r) {
  const angle = Math.atan2(b[1] - a[1], b[0] - a[0]);
  context.beginPath();
  context.arc(a[0], a[1], r, angle + Math.PI / 2, angle - Math.PI / 2);
  context.arc(b[0], b[1], r, angle - Math.PI / 2, angle + Math.PI / 2);
  context.closePath();
  context.stroke();
}

// Where the axis passes through the slice.
function section(context, cut, { entry_ct: entry, tip_ct: tip }, colour) {
  const slice = cut.plane();
  const [before, after] = [entry, tip].map((p) => dot(minus(p, slice), cut.axis));
  if (before * after > 0 || before === after) return;
  const t = before / (before - after);
  const [x, y] = cut.viewport.worldToCanvas(entry.map((c, k) => c + (tip[k] - c) * t));
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x, y, 4, 0, 2 * Math.PI);
  context.fill();
}

function handles(context, a, b, colour) {
  handle(context, a, true, colour);
  handle(context, b, false, colour);
}

function handle(context, at, square, colour) {
  context.fillStyle = "#0b0e11";
  context.strokeStyle = colour;
  context.lineWidth = 3;
  context.beginPath();
  if (square) context.rect(at[0] - HANDLE_PX, at[1] - HANDLE_PX, 2 * HANDLE_PX, 2 * HANDLE_PX);
  else context.arc(at[0], at[1], HANDLE_PX, 0, 2 * Math.PI);
  context.fill();
  context.stroke();
}

// Which end of the chosen screw lies under the pointer: "entry_ct", "tip_ct" or undefined.
export function handleAt(cut, screw, x, y) {
  if (!screw) return undefined;
  return ["tip_ct", "entry_ct"].find((end) => {
    const [ex, ey] = cut.viewport.worldToCanvas(screw[end]);
    return Math.hypot(ex - x, ey - y) <= REACH_PX;
  });
}
