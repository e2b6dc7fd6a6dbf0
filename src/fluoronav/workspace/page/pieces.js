// Bodies of the planned surgery: as they come from the server, and where they meet a cut.

import { dot, minus } from "./grid.js";

// How each kind is drawn in the cuts: opacity of its inside, width of its border in px.
const LOOKS = { piece: [0.25, 2], kerf: [0.45, 1], resection: [0.15, 2], implant: [0.5, 1.5], ghost: [0, 1.5] };
const DASHES = [6, 5]; // of the border of a piece at the place that it was moved from

// Bodies of a packed answer. One that was moved is followed by its ghost: where it lay.
export function bodiesOf({ parts }, payload) {
  const out = [];
  let at = 0;
  for (const part of parts) {
    const points = new Float32Array(payload, at, part.points * 3);
    const triangles = new Uint32Array(payload, at + part.points * 12, part.triangles * 3);
    at += (part.points + part.triangles) * 12;
    const body = { ...part, points, triangles };
    out.push(body);
    if (part.T_moved_ct) out.push({ ...body, kind: "ghost", points: movedBack(points, part.T_moved_ct) });
  }
  return out.filter((b) => b.triangles.length);
}

// Points before a rigid motion.
function movedBack(points, T) {
  const out = new Float32Array(points.length);
  for (let k = 0; k < points.length; k += 3) {
    const off = [0, 1, 2].map((r) => points[k + r] - T[r][3]);
    for (let c = 0; c < 3; c++) out[k + c] = T[0][c] * off[0] + T[1][c] * off[1] + T[2][c] * off[2];
  }
  return out;
}

// The loops in which a body's surface meets a slice, each as a flat list of points, LPS mm.
export function loopsOf({ points, triangles }, axis, plane) {
  const n = points.length / 3, level = dot(plane, axis), above = new Float32Array(n);
  for (let k = 0, p = 0; k < n; k++, p += 3) above[k] = points[p] * axis[0] + points[p + 1] * axis[1] + points[p + 2] * axis[2] - level;
  // Each triangle that the slice passes through joins two of its edges.
  const joined = new Map();
  const join = (a, b) => (joined.get(a) ?? joined.set(a, []).get(a)).push(b);
  for (let t = 0; t < triangles.length; t += 3) {
    const corners = [triangles[t], triangles[t + 1], triangles[t + 2]];
    const sides = corners.map((c) => above[c] >= 0);
    if (sides[0] === sides[1] && sides[1] === sides[2]) continue;
    const edges = [0, 1, 2].filter((k) => sides[k] !== sides[(k + 1) % 3]).map((k) => {
      const [a, b] = [corners[k], corners[(k + 1) % 3]];
      return Math.min(a, b) * n + Math.max(a, b);
    });
    join(edges[0], edges[1]);
    join(edges[1], edges[0]);
  }
  const loops = [], seen = new Set();
  for (const begin of joined.keys()) {
    if (seen.has(begin)) continue;
    const loop = [];
    for (let edge = begin; edge !== undefined; edge = joined.get(edge).find((next) => !seen.has(next))) {
      seen.add(edge);
      const [a, b] = [Math.floor(edge / n), edge % n];
      const t = above[a] / (above[a] - above[b]);
      for (let c = 0; c < 3; c++) loop.push(points[3 * a + c] + (points[3 * b + c] - points[3 * a + c]) * t);
    }
    loops.push(loop);
  }
  return loops;
}

// The same, found once for each slice that is shown.
function section(body, cut) {
  body.sections ??= {};
  const have = body.sections[cut.name];
  if (have?.slice === cut.slice) return have.loops;
  const loops = loopsOf(body, cut.axis, cut.plane());
  body.sections[cut.name] = { slice: cut.slice, loops };
  return loops;
}

// Draws where the bodies meet the slice: pieces at their moved place, and dashed where they lay.
export function drawBodies(context, cut, scene) {
  const bodies = scene.layers.surgery ? scene.bodies() : [];
  if (!bodies.length) return;
  const plane = cut.plane(), { right, down } = cut;
  const [o, x, y] = [[0, 0], [1, 0], [0, 1]].map(([a, b]) => cut.viewport.worldToCanvas(plane.map((p, k) => p + right.vector[k] * a + down.vector[k] * b)));
  const [dx, dy] = [minus([...x, 0], [...o, 0]), minus([...y, 0], [...o, 0])];
  for (const body of bodies) {
    const [inside, width] = LOOKS[body.kind] ?? LOOKS.piece;
    context.beginPath();
    for (const loop of section(body, cut)) {
      for (let k = 0; k < loop.length; k += 3) {
        const off = [loop[k] - plane[0], loop[k + 1] - plane[1], loop[k + 2] - plane[2]];
        const [u, v] = [dot(off, right.vector), dot(off, down.vector)];
        context[k ? "lineTo" : "moveTo"](o[0] + dx[0] * u + dy[0] * v, o[1] + dx[1] * u + dy[1] * v);
      }
      context.closePath();
    }
    context.fillStyle = context.strokeStyle = body.colour;
    if (inside) {
      context.globalAlpha = inside;
      context.fill("evenodd");
    }
    context.globalAlpha = 1;
    context.lineWidth = width;
    context.setLineDash(body.kind === "ghost" ? DASHES : []);
    context.stroke();
  }
  context.setLineDash([]);
}
