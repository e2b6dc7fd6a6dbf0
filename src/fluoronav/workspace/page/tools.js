// The column of tools: look, brush, threshold brush, eraser, and what is done to a whole structure.

import { WINDOWS } from "./cuts.js";
import { $, asked, el, say, tried } from "./dom.js";
import { along, cross, minus } from "./grid.js";
import { readable } from "./structures.js";

export const TOOLS = [
  ["look", "Look", "1", "Click moves the cross; wheel scrolls; right drag zooms; middle drag, or Shift and drag, moves; Ctrl and drag changes the window; Alt and click picks the structure."],
  ["brush", "Brush", "2", "Draws the chosen structure. Alt and click picks another."],
  ["threshold", "Threshold brush", "3", "Draws only where the CT lies between the two HU values."],
  ["eraser", "Eraser", "4", "Takes voxels of the chosen structure away."],
];

export class Tools {
  constructor(view) {
    this.view = view;
    view.tools = this;
    this.settings = { radius_mm: 5, ball: false, keep: true, low_hu: 150, high_hu: 2000 };
    view.hint = (text) => ($("hint").textContent = text);
    this.choose("look");
  }

  choose(tool) {
    const { view } = this;
    view.tool = tool;
    view.asking = undefined;
    view.scene.drawing = tool === "look" ? undefined : { tool, label: view.structures?.chosen, ...this.settings };
    view.hint(TOOLS.find(([name]) => name === tool)[3]);
    document.body.dataset.tool = tool;
    view.cuts?.soon();
    this.draw();
  }

  set(name, value) {
    this.settings[name] = value;
    if (this.view.scene.drawing) this.view.scene.drawing[name] = value;
    this.view.cuts?.soon();
    this.draw();
  }

  resize(factor) {
    this.set("radius_mm", Math.min(Math.max(this.settings.radius_mm * factor, 0.5), 40));
  }

  // Waits for a click in a cut: `text` says on what.
  place(text) {
    this.choose("look");
    this.view.hint(`${text} Escape stops.`);
    return new Promise((resolve) => {
      this.view.asking = (point, cut) => {
        this.view.asking = undefined;
        this.view.hint("");
        resolve({ point, cut });
      };
    });
  }

  get label() {
    return this.view.structures.chosen;
  }

  get name() {
    return this.view.structures.nameOf(this.label);
  }

  operate = (operation, keys) => tried(() => this.view.session.operate(operation, keys));

  async interpolate() {
    const choices = this.view.cuts.cuts.map((cut) => [`Drawn in ${cut.name} cuts`, "xyz"[cut.normal], cut.name === "axial" ? "main" : ""]);
    const axis = await asked("Interpolate between slices", `Fills the slices between those in which ${this.name} is drawn. Other structures stay.`, [...choices, ["Cancel", undefined]]);
    if (axis) await this.operate("interpolate", { label: this.label, axis });
  }

  async other(title, text) {
    const select = el("select", {}, this.view.structures.all.filter((s) => s.label !== this.label).map((s) => el("option", { value: s.label }, readable(s.name))));
    const choice = await asked(title, el("div", { className: "column" }, el("p", {}, text), select), [["Go on", true, "main"], ["Cancel", false]]);
    return choice ? Number(select.value) : undefined;
  }

  async relabel() {
    const to = await this.other("Relabel", `What is drawn as ${this.name} becomes:`);
    if (to === undefined) return;
    const how = await asked("Relabel", `All of ${this.name}, or only one piece of it?`, [["All of it", "all", "main"], ["One piece: click it", "piece"], ["Cancel", undefined]]);
    if (how === "all") await this.operate("relabel", { from: this.label, to });
    if (how === "piece") {
      const { point } = await this.place(`Click the piece of ${this.name} that becomes ${this.view.structures.nameOf(to)}.`);
      await this.operate("relabel", { from: this.label, to, seed_ct: point });
    }
  }

  async split() {
    const to = await this.other("Split", `One part of ${this.name} stays; the other becomes:`);
    if (to === undefined) return;
    const how = await asked("Split", "Where?", [["Along a line that I draw", "plane", "main"], ["Its second largest separate piece", "components"], ["Cancel", undefined]]);
    if (how === "components") await this.operate("split", { label: this.label, by: "components", to: [to] });
    if (how !== "plane") return;
    const first = await this.place("Click where the dividing line begins.");
    const second = await this.place("Click where it ends.");
    const side = await this.place(`Click on the side that becomes ${this.view.structures.nameOf(to)}.`);
    let normal = cross(first.cut.towards, minus(second.point, first.point));
    const length = Math.hypot(...normal);
    if (!length) return say("The line has no length: click two places.", "error");
    normal = normal.map((x) => x / length);
    const away = minus(side.point, first.point);
    if (normal[0] * away[0] + normal[1] * away[1] + normal[2] * away[2] < 0) normal = along([0, 0, 0], normal, -1);
    await this.operate("split", { label: this.label, by: "plane", point_ct: first.point, normal_ct: normal, to });
  }

  async fill() {
    const how = await asked("Fill holes", `Of ${this.name}:`, [["Holes in axial slices", "xyz"[this.view.cuts.cuts[0].normal], "main"], ["Cavities in the volume", "volume"], ["Cancel", undefined]]);
    if (how) await this.operate("fill", { label: this.label, axis: how });
  }

  async threshold() {
    const { low_hu, high_hu } = this.settings;
    const radius = el("input", { type: "number", value: 20, min: 2, max: 200 });
    const form = el("div", { className: "column" }, el("p", {}, `Voxels between ${low_hu} and ${high_hu} HU become ${this.name}, around a place that you click.`), el("label", {}, "Radius, mm ", radius));
    if (!(await asked("Threshold around a place", form, [["Next: click the place", true, "main"], ["Cancel", false]]))) return;
    const { point } = await this.place("Click the middle of the ball.");
    await this.operate("threshold", { label: this.label, low_hu, high_hu, within: { centre_ct: point, radius_mm: Number(radius.value) }, over: [0] });
  }

  async erase() {
    const { point } = await this.place(`Click the piece of ${this.name} to remove.`);
    await this.operate("erase", { label: this.label, seed_ct: point });
  }

  draw() {
    const { view, settings } = this;
    const number = (name, title) => el("label", {}, title, el("input", { type: "number", value: settings[name], step: 10, onchange: (e) => this.set(name, Number(e.target.value)) }));
    const check = (name, title) => el("label", { className: "row" }, el("input", { type: "checkbox", checked: settings[name], onchange: (e) => this.set(name, e.target.checked) }), title);
    const layer = (name, title) => el("label", { className: "row" }, el("input", { type: "checkbox", checked: view.scene.layers[name], onchange: (e) => { view.scene.layers[name] = e.target.checked; view.repaint(); view.space?.drawScrews(); view.space?.drawBodies(view.plan.live.bodies); view.surfaces(); } }), title);
    const whole = (title, what, work) => el("button", { title: what, onclick: () => this.ready() && work.call(this) }, title);
    const chosen = view.structures?.by?.get(this.label);
    $("tools").replaceChildren(
      ...TOOLS.map(([name, title, key, what]) => el("button", { "aria-pressed": String(view.tool === name), "data-tool": name, title: `${what} (${key})`, onclick: () => this.choose(name) }, el("span", {}, title), el("kbd", {}, key))),
      el("div", { className: "active" }, chosen ? [el("i", { className: "swatch", style: `background:${chosen.colour}` }), this.name] : "No structure chosen"),
      el("div", { className: "options", hidden: view.tool === "look" },
        el("label", {}, `Size ${(settings.radius_mm * 2).toFixed(settings.radius_mm < 5 ? 1 : 0)} mm  [ ]`, el("input", { type: "range", min: 0.5, max: 40, step: 0.5, value: settings.radius_mm, oninput: (e) => this.set("radius_mm", Number(e.target.value)) })),
        view.tool === "threshold" ? [number("low_hu", "From HU"), number("high_hu", "To HU")] : "",
        check("ball", "Through slices (ball)"), check("keep", "Keep other structures")),
      el("h3", {}, "Whole structure"),
      whole("Interpolate", "Between the slices that are drawn (I)", this.interpolate),
      whole("Threshold…", "All voxels in a range around a place", this.threshold),
      whole("Fill holes…", "Holes inside the structure", this.fill),
      whole("Relabel…", "Give it, or a piece, another name", this.relabel),
      whole("Split…", "In two, along a line or by pieces", this.split),
      whole("Remove piece…", "A separate piece", this.erase),
      el("h3", {}, "Window"),
      ...Object.entries(WINDOWS).map(([name, window]) => el("button", { onclick: () => view.cuts.setWindow(window), "data-window": name }, name)),
      el("button", { title: "Zoom and place of the cuts as at the start (0)", onclick: () => view.cuts.reset() }, "Reset views"),
      el("h3", {}, "Show"), layer("structures", "Structures"), layer("cross", "Cross"), layer("screws", "Screws"), layer("surgery", "Cuts and pieces"), layer("marks", "Measurements"));
  }

  ready() {
    if (!this.view.session.labels || !this.label) say("Choose a structure in the list first.", "error");
    return Boolean(this.view.session.labels && this.label);
  }
}
