// What a user adds to a plan besides screws: paths, cuts, wedges, moved pieces, resections, implants.

import { get } from "./api.js";
import { asked, el, say, tried } from "./dom.js";
import { along, cross, distance, dot, minus } from "./grid.js";
import { readable } from "./structures.js";

const BONES = ["vertebra", "rib", "bone"];
const AXES = [["Bend forwards or back (about left and right)", 0], ["Bend sideways (about front and back)", 1], ["Turn (about head and feet)", 2]];
// What is clicked to place an implant; frames as in docs/plan-export.md.
const FRAMES = {
  pedicle_screw: ["the entry", "the tip"], rod: ["where it begins", "where it ends", "a place on the side that it bends to"],
  plate: ["the middle of the plate on the bone", "a place away from the bone, over it", "a place along the plate"],
  knee_tibial: ["the middle of the underside", "towards the femur", "towards the patient's left"],
  knee_femoral: ["the middle of the distal cut", "towards the hip", "towards the patient's left"],
};

const unit = (v) => v.map((x) => x / Math.hypot(...v));
const number = (value, min, max, step) => el("input", { type: "number", value, min, max, step });
const selectOf = (options) => el("select", {}, options.map(([text, value]) => el("option", { value }, text)));
const row = (title, input) => el("label", {}, `${title} `, input);

export class Surgery {
  constructor(view) {
    this.view = view;
  }

  buttons() {
    const all = [["+ Path", "A needle or wire", this.path], ["+ Cut", "Saw through a bone", this.cut], ["+ Wedge", "Take out what lies between two cuts", this.wedge],
      ["+ Move", "Move the piece of bone past a cut", this.move], ["+ Resection", "Take out a lesion with a margin", this.resection], ["+ Implant", "From the catalogue", this.implant]];
    return el("div", { className: "row" }, all.map(([title, what, work]) => el("button", { title: what, onclick: () => tried(() => work.call(this)) }, title)));
  }

  // The first name of its kind that the plan does not have.
  #id = (kind) => {
    let k = 1;
    while (this.view.plan.item(`${kind}${k}`)) k++;
    return `${kind}${k}`;
  };

  // Puts items into the plan.
  async #put(items) {
    await this.view.plan.change({ put: items.map((i) => ({ ...i, origin: "drawn" })) });
    this.view.plan.show(items[0].id);
  }

  async #asked(title, text, ...rows) {
    return asked(title, el("div", { className: "column" }, el("p", {}, text), ...rows), [["Next", true, "main"], ["Cancel", false]]);
  }

  #structures(fits, what) {
    const all = this.view.structures.all.filter((s) => s.voxels && fits(s));
    if (!all.length) throw new Error(`There is no ${what} in the label map.`);
    const select = selectOf(all.map((s) => [readable(s.name), s.name]));
    const chosen = this.view.structures.by.get(this.view.structures.chosen)?.name;
    if (all.some((s) => s.name === chosen)) select.value = chosen;
    return select;
  }

  #bones = () => this.#structures((s) => BONES.includes(s.kind), "bone");

  async path() {
    const name = el("input", { placeholder: "Name, such as biopsy" }), diameter = number(2, 0.5, 12, 0.5);
    if (!(await this.#asked("Draw a path", "A straight path of a needle or a wire.", row("Name", name), row("Diameter, mm", diameter)))) return;
    const entry = await this.view.tools.place("Click its entry.");
    const target = await this.view.tools.place("Click its target.");
    const id = this.#id("path");
    await this.#put([{ kind: "path", id, name: name.value.trim() || id, entry_ct: entry.point, target_ct: target.point, diameter_mm: Number(diameter.value) }]);
  }

  // A plane through a line that is drawn in a cut, across that cut; its normal points to a side that is clicked.
  async #plane(which, side) {
    const first = await this.view.tools.place(`Click where ${which} begins.`);
    const second = await this.view.tools.place("Click where it ends, in the same view.");
    const past = await this.view.tools.place(side);
    const normal = cross(first.cut.towards, minus(second.point, first.point));
    if (!Math.hypot(...normal)) throw new Error("The line has no length: click two places.");
    const point = first.point.map((x, k) => (x + second.point[k]) / 2);
    const sign = dot(normal, minus(past.point, point)) < 0 ? -1 : 1;
    return { point_ct: point, normal_ct: unit(normal).map((x) => x * sign) };
  }

  async cut() {
    const bone = this.#bones(), kerf = number(1.2, 0, 5, 0.1);
    if (!(await this.#asked("Cut a bone", "Draw the line of the saw in a view: the cut goes straight through that view.", row("Bone", bone), row("The saw takes, mm", kerf)))) return;
    this.view.plan.live.prepare([bone.value]);
    const plane = await this.#plane("the cut", "Click on the side that can be moved.");
    await this.#put([{ kind: "cut", id: this.#id("cut"), structure: bone.value, kerf_mm: Number(kerf.value), ...plane }]);
  }

  async wedge() {
    const bone = this.#bones(), kerf = number(1.2, 0, 5, 0.1);
    if (!(await this.#asked("Take out a wedge", "Draw two cuts; what lies between them is taken out.", row("Bone", bone), row("The saw takes, mm", kerf)))) return;
    this.view.plan.live.prepare([bone.value]);
    const about = { kind: "cut", structure: bone.value, kerf_mm: Number(kerf.value) };
    const one = await this.#plane("the first cut", "Click inside the wedge.");
    const two = await this.#plane("the second cut", "Click outside the wedge, past the second cut.");
    const id = this.#id("wedge"), end = `${id}_end`;
    await this.#put([{ ...about, id, wedge_to: end, ...one }, { ...about, id: end, ...two }]);
  }

  async move() {
    const cuts = this.view.plan.items("cut");
    if (!cuts.length) throw new Error("There is no cut yet: draw one first.");
    const which = selectOf(cuts.map((c) => [`${readable(c.structure)}: ${c.id}`, c.id])), axis = selectOf(AXES), angle = number(0, -90, 90, 0.5);
    const shift = ["left", "back", "head"].map((to) => [`Shift to the ${to}, mm`, number(0, -100, 100, 0.5)]);
    const text = "The piece on the side that was clicked moves about the middle of the cut.";
    if (!(await this.#asked("Move a piece", text, row("Cut", which), axis, row("Angle, degrees", angle), ...shift.map(([title, input]) => row(title, input))))) return;
    const T = turned(Number(axis.value), (Number(angle.value) * Math.PI) / 180, this.view.plan.item(which.value).point_ct);
    shift.forEach(([, input], k) => (T[k][3] += Number(input.value)));
    await this.#put([{ kind: "move", id: this.#id("move"), cut: which.value, T_moved_ct: T }]);
  }

  async resection() {
    const lesion = this.#structures((s) => !BONES.includes(s.kind), "lesion"), margin = number(5, 0.5, 50, 0.5);
    if (!(await this.#asked("Resect a lesion", "What lies within the margin around it is taken out.", row("Lesion", lesion), row("Margin, mm", margin)))) return;
    await this.#put([{ kind: "resection", id: this.#id("resection"), lesion: lesion.value, margin_mm: Number(margin.value) }]);
  }

  async implant() {
    const { families } = await get("/implants");
    const which = selectOf(families.flatMap((f) => f.sizes.map((size) => [`${readable(f.name)} ${size}`, `${f.name}|${size}`]))), bone = this.#bones();
    const demonstration = families.some((f) => f.demonstration) ? " The shipped sizes are for demonstration, of no manufacturer." : "";
    if (!(await this.#asked("Place an implant", `Its place is given by clicks.${demonstration}`, row("Implant", which), row("Bone", bone)))) return;
    const [family, size] = which.value.split("|");
    const shape = families.find((f) => f.name === family).shape;
    const points = [];
    for (const what of FRAMES[shape] ?? ["its origin", "a place along its z axis", "a place along its x axis"]) points.push((await this.view.tools.place(`Click ${what}.`)).point);
    await this.#put([{ kind: "implant", id: this.#id("implant"), family, size, structure: bone.value, T_ct_implant: frame(points, shape === "rod") }]);
  }
}

// A rotation about one of the patient's axes through a point, as a matrix.
function turned(axis, angle, point) {
  const [a, b] = [(axis + 1) % 3, (axis + 2) % 3];
  const T = [0, 1, 2, 3].map((r) => [0, 1, 2, 3].map((c) => Number(r === c)));
  T[a][a] = T[b][b] = Math.cos(angle);
  T[a][b] = -(T[b][a] = Math.sin(angle));
  for (let k = 0; k < 3; k++) T[k][3] = point[k] - dot(T[k].slice(0, 3), point);
  return T;
}

// The frame of an implant: origin, z towards the second point, and x towards the third as far as z allows; a rod bends to -y.
function frame([origin, onZ, side], isRod) {
  if (distance(origin, onZ) < 0.5) throw new Error("Two of the places are one: click them apart.");
  const z = unit(minus(onZ, origin));
  const other = side ? minus(side, origin) : Math.abs(z[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
  const across = along(other, z, -dot(other, z));
  if (Math.hypot(...across) < 0.1) throw new Error("The last place lies on the line of the others: click beside it.");
  const towards = unit(across), back = towards.map((c) => -c);
  const [x, y] = isRod ? [cross(back, z), back] : [towards, cross(z, towards)];
  return [...[0, 1, 2].map((k) => [x[k], y[k], z[k], origin[k]]), [0, 0, 0, 1]];
}
