// The patient's directions on a screen: which letter lies where.

import { LESS_OBLIQUE, MIN_ARROW } from "./constants.js";

// Letters of the patient's axes (LPS) at their positive and negative ends, as on a radiograph.
const LETTERS = [["L", "R"], ["P", "A"], ["H", "F"]];

// The six directions on a screen: [{letter, x, y}], x to the right and y down, in parts of a direction's length. `T` maps the
// patient to a camera whose x goes to the right and y down (16 numbers by rows).
export function directionsOf(T) {
  return LETTERS.flatMap(([plus, minus], k) => {
    const [x, y] = [T[k], T[4 + k]];
    return [{ letter: plus, x, y }, { letter: minus, x: -x, y: -y }];
  }).filter(({ x, y }) => Math.hypot(x, y) >= MIN_ARROW);
}

// What lies at the left, right, upper and lower edge: the letter of the nearest direction, and that of another to which the
// view is oblique, as DICOM's patient orientation writes it.
export function edgesOf(T) {
  const all = directionsOf(T);
  const edge = (dx, dy) => all.map((d) => [d.letter, d.x * dx + d.y * dy]).filter(([, part]) => part > LESS_OBLIQUE)
    .sort((a, b) => b[1] - a[1]).slice(0, 2).map(([letter]) => letter).join("");
  return { left: edge(-1, 0), right: edge(1, 0), top: edge(0, -1), bottom: edge(0, 1) };
}

// The name of a C-arm's view: by the patient's axis that lies nearest to the beam, within 30 degrees of it.
export function viewOf(T) {
  const [x, y] = [T[8], T[9]]; // the patient's left and back, along the beam
  if (Math.abs(y) > COS_30) return y > 0 ? "AP" : "PA";
  if (Math.abs(x) > COS_30) return "lateral";
  return "oblique";
}

const COS_30 = Math.sqrt(0.75);

// The angle between the beams of two poses, degrees.
export function betweenBeams(T, other) {
  const cos = T[8] * other[8] + T[9] * other[9] + T[10] * other[10];
  return (180 / Math.PI) * Math.acos(Math.min(Math.max(cos, -1), 1));
}
