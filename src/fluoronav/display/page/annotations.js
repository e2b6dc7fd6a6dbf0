// What is written over the frame: levels at their vertebrae, the patient's directions at the edges, the scale.

import { LABEL_CLEAR_UNITS, MIN_SCALE_BAR_UNITS, SCALE_BAR_MM, TEXT_UNITS } from "./constants.js";
import { edgesOf } from "./directions.js";
import { levelOf } from "./meanings.js";
import { text } from "./strings.js";

// `held`: the pose is old; then no letter and no level stands as if it were measured.
export function annotate(layers, overlay, held, strength) {
  const c = layers.context;
  const stands = overlay.registration && (overlay.status === "tracking" || overlay.status === "degraded");
  if (layers.on.labels) labels(layers, overlay, strength);
  scaleBar(layers, overlay);
  layers.edges = null; // letters that are shown
  if (layers.on.letters && stands && !held) letters(layers, overlay.registration.T_camera_ct);
  [c.textAlign, c.textBaseline] = ["start", "alphabetic"];
}

// The name of each level in the middle of its outline; the target's is larger. A label gives way to a tip.
function labels(layers, overlay, strength) {
  const c = layers.context, before = c.globalAlpha;
  for (const { structure, paths } of overlay.outlines) {
    const level = levelOf(structure);
    if (!level || !paths.length || !layers.on[layers.no_go.has(structure) ? "no_go" : "outlines"]) continue;
    const target = layers.meanings.of(structure) === "target";
    let [x, y] = centroid(paths);
    const size = target ? TEXT_UNITS.target : TEXT_UNITS.level;
    const covers = overlay.instruments.some((i) => i.tip_px && Math.hypot(i.tip_px[0] - x, i.tip_px[1] - y) < LABEL_CLEAR_UNITS * layers.u);
    if (covers) x = Math.min(...paths.flat().map((p) => p[0])) - size * layers.u;
    c.globalAlpha = Math.min(before, strength) * (target ? 1 : 0.85);
    layers.words(level, x, y, size, { align: "center", base: "middle", colour: target ? "#ffffff" : "#d5dde2" });
  }
  c.globalAlpha = before;
}

// The centre of the area inside closed paths.
export function centroid(paths) {
  let [area, sx, sy] = [0, 0, 0];
  for (const path of paths) {
    let [a, px, py] = [0, 0, 0];
    path.forEach(([x1, y1], k) => {
      const [x2, y2] = path[(k + 1) % path.length], cross = x1 * y2 - x2 * y1;
      [a, px, py] = [a + cross / 2, px + ((x1 + x2) * cross) / 6, py + ((y1 + y2) * cross) / 6];
    });
    const sign = Math.sign(a); // of either direction
    [area, sx, sy] = [area + sign * a, sx + sign * px, sy + sign * py];
  }
  if (area > 1e-6) return [sx / area, sy / area];
  const points = paths.flat();
  return [0, 1].map((k) => points.reduce((sum, p) => sum + p[k], 0) / points.length);
}

// L, R, H, F, A and P at the edges of what is shown, by the pose.
function letters(layers, T) {
  const { left, right, top, bottom } = layers.shown, inset = 34 * layers.u;
  const edges = edgesOf(T), [x, y] = [(left + right) / 2, (top + bottom) / 2];
  const places = { left: [left + inset, y], right: [right - inset, y], top: [x, top + inset], bottom: [x, bottom - inset] };
  for (const [edge, at] of Object.entries(places))
    if (edges[edge]) layers.words(edges[edge], ...at, TEXT_UNITS.direction, { align: "center", base: "middle" });
  layers.edges = edges;
}

function scaleBar(layers, overlay) {
  const perMm = layers.pxPerMm(overlay, null);
  if (!perMm) return;
  const { u, shown } = layers;
  const mm = SCALE_BAR_MM.find((m) => m * perMm > MIN_SCALE_BAR_UNITS * u) ?? SCALE_BAR_MM.at(-1);
  const [x, y] = [shown.left + 22 * u, shown.bottom - 20 * u];
  layers.line([[x, y - 9 * u], [x, y], [x + mm * perMm, y], [x + mm * perMm, y - 9 * u]], "#ffffff", 3);
  layers.words(text.mm(mm), x, y - 16 * u, TEXT_UNITS.distance);
}
