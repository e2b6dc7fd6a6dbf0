// Fields that change an item of the planned surgery, step by step.

import { get } from "./api.js";
import { el, tried } from "./dom.js";
import { along, cross, dot } from "./grid.js";

const SIDES = ["to the left", "to the back", "to the head"];
const TURNS = ["Bend about left and right, °", "Bend about front and back, °", "Turn about head and feet, °"];
const DEGREE = Math.PI / 180;

const unit = (v) => v.map((x) => x / Math.hypot(...v));
const rounded = (x) => Number(x.toFixed(2));

// A field whose value the item holds.
function value(live, id, title, [min, max, step], read, write) {
  const input = el("input", { type: "number", min, max, step, "data-field": title });
  const apply = ({ timeStamp }) => {
    const number = Number(input.value);
    if (input.value === "" || !(number >= min && number <= max)) return;
    live.step(write(live.now(live.view.plan.item(id)), number), timeStamp);
  };
  input.addEventListener("input", apply);
  const sync = (item) => document.activeElement !== input && (input.value = rounded(read(item)));
  return { row: el("label", {}, `${title} `, input), sync };
}

// A field that shifts or turns from where the item is.
function nudge(live, id, title, step, write) {
  let last = 0;
  const input = el("input", { type: "number", value: 0, step, "data-field": title });
  input.addEventListener("input", ({ timeStamp }) => {
    const number = Number(input.value);
    if (input.value === "" || !Number.isFinite(number)) return;
    live.step(write(live.now(live.view.plan.item(id)), number - last), timeStamp);
    last = number;
  });
  return { row: el("label", {}, `${title} `, input) };
}

// The rows for an item: `row` is the element, and `sync(item)` shows the item's own value.
export function fieldsOf(live, item) {
  const of = (title, range, read, write) => value(live, item.id, title, range, read, write);
  const by = (title, step, write) => nudge(live, item.id, title, step, write);
  if (item.kind === "cut")
    return [
      { row: el("small", {}, "In a view: drag the square to shift the cut, a circle to turn it.") },
      by("Shift along its normal, mm", 0.5, (i, mm) => ({ ...i, point_ct: along(i.point_ct, unit(i.normal_ct), mm) })),
      of("The saw takes, mm", [0, 5, 0.1], (i) => i.kerf_mm, (i, mm) => ({ ...i, kerf_mm: mm })),
    ];
  if (item.kind === "resection") return [of("Margin, mm", [0.5, 50, 0.5], (i) => i.margin_mm, (i, mm) => ({ ...i, margin_mm: mm }))];
  if (item.kind === "move") return moveFields(live, of);
  return [sizes(live, item), ...[0, 1, 2].map((a) => by(`Shift along its ${"xyz"[a]}, mm`, 0.5, (i, mm) => shiftedImplant(i, a, mm))), ...[0, 1, 2].map((a) => by(`Turn about its ${"xyz"[a]}, °`, 1, (i, deg) => turnedImplant(i, a, deg)))];
}

// A move as angles and shifts at the middle of its cut.
function moveFields(live, of) {
  const at = (i) => live.now(live.view.plan.item(i.cut)).point_ct;
  const parts = (i) => {
    const p = at(i), turn = rotationVector(i.T_moved_ct).map((x) => x / DEGREE);
    return { turn, shift: [0, 1, 2].map((r) => dot(i.T_moved_ct[r].slice(0, 3), p) + i.T_moved_ct[r][3] - p[r]) };
  };
  const made = (i, { turn, shift }) => {
    const p = at(i), R = rotation(turn.map((x) => x * DEGREE));
    return { ...i, T_moved_ct: [...[0, 1, 2].map((r) => [...R[r], p[r] + shift[r] - dot(R[r], p)]), [0, 0, 0, 1]] };
  };
  const field = (title, range, what, k) => of(title, range, (i) => parts(i)[what][k], (i, x) => {
    const now = parts(i);
    now[what][k] = x;
    return made(i, now);
  });
  return [...TURNS.map((title, k) => field(title, [-90, 90, 0.5], "turn", k)), ...SIDES.map((title, k) => field(`Shift ${title}, mm`, [-100, 100, 0.5], "shift", k))];
}

// The sizes of an implant's family.
function sizes(live, { id, family }) {
  const select = el("select", { "data-field": "Size" });
  select.addEventListener("change", ({ timeStamp }) => live.step({ ...live.now(live.view.plan.item(id)), size: select.value }, timeStamp));
  const filled = tried(async () => {
    const { families } = await get("/implants");
    select.replaceChildren(...(families.find((f) => f.name === family)?.sizes ?? []).map((size) => el("option", { value: size }, size)));
  });
  const sync = async (item) => {
    await filled;
    if (document.activeElement !== select) select.value = item.size;
  };
  return { row: el("label", {}, "Size ", select), sync };
}

const axisOf = (T, a) => [0, 1, 2].map((r) => T[r][a]);

function shiftedImplant(item, a, mm) {
  const T = item.T_ct_implant, axis = axisOf(T, a);
  return { ...item, T_ct_implant: T.map((row, r) => (r < 3 ? [...row.slice(0, 3), row[3] + axis[r] * mm] : row)) };
}

function turnedImplant(item, a, degrees) {
  const T = item.T_ct_implant, R = rotation(axisOf(T, a).map((x) => x * degrees * DEGREE));
  const columns = [0, 1, 2].map((c) => R.map((row) => dot(row, axisOf(T, c))));
  columns[2] = unit(columns[2]); // many small turns stay rigid
  columns[0] = unit(along(columns[0], columns[2], -dot(columns[0], columns[2])));
  columns[1] = cross(columns[2], columns[0]);
  return { ...item, T_ct_implant: T.map((row, r) => (r < 3 ? [columns[0][r], columns[1][r], columns[2][r], row[3]] : row)) };
}

// The matrix of a rotation vector (radians), by Rodrigues' formula.
export function rotation(vector) {
  const angle = Math.hypot(...vector);
  const [x, y, z] = angle ? vector.map((v) => v / angle) : [0, 0, 1];
  const c = Math.cos(angle), s = Math.sin(angle), d = 1 - c;
  return [
    [c + x * x * d, x * y * d - z * s, x * z * d + y * s],
    [y * x * d + z * s, c + y * y * d, y * z * d - x * s],
    [z * x * d - y * s, z * y * d + x * s, c + z * z * d],
  ];
}

// The rotation vector (radians) of a matrix; turns of half a circle are not planned.
export function rotationVector(T) {
  const twice = [T[2][1] - T[1][2], T[0][2] - T[2][0], T[1][0] - T[0][1]];
  const sine = Math.hypot(...twice) / 2, cosine = (T[0][0] + T[1][1] + T[2][2] - 1) / 2;
  if (sine < 1e-9) return [0, 0, 0];
  return twice.map((v) => (v / 2 / sine) * Math.atan2(sine, cosine));
}
