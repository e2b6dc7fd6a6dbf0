// The plan: screws, measurements, flags, views; its state.

import { get, post, Refusal } from "./api.js";
import { asked, el, of, say, tried, when } from "./dom.js";
import { distance } from "./grid.js";
import { Live } from "./live.js";
import { GRADES } from "./marks.js";
import { Surgery } from "./surgery.js";
import { readable } from "./structures.js";

const DRAWN = ["cut", "move", "resection", "implant"]; // kinds that a user adds and removes
const GRADE_EVERY_MS = 120; // while an end is dragged

export class Plan {
  constructor(view) {
    this.view = view;
    this.path = `${view.path}/plan`;
    this.plan = null;
    this.obstacles = [];
    this.surgery = new Surgery(view);
    this.live = new Live(view);
  }

  take(plan, obstacles) {
    this.plan = plan;
    this.obstacles = obstacles ?? [];
    if (!this.item(this.view.scene.chosen)) {
      this.view.scene.chosen = undefined;
      this.view.space?.near(undefined);
    }
    this.view.cuts?.soon();
    this.view.space?.drawScrews();
    this.live.refresh();
    if (this.seeThrough !== (this.seeThrough = this.screws().length > 0)) this.view.surfaces();
    this.view.tell();
  }

  async reload() {
    const { plan, obstacles } = await get(this.path);
    this.take(plan, obstacles);
  }

  items = (kind) => (this.plan?.items ?? []).filter((i) => i.kind === kind);
  item = (id) => this.plan?.items.find((i) => i.id === id);
  flags = () => this.items("flag");
  open = () => this.flags().filter((f) => !f.acknowledged_by);

  get chosen() {
    return this.screws().find((s) => s.id === this.view.scene.chosen);
  }

  // What is drawn as a screw: screws, and paths as thin ones; the one that is dragged as it lies now.
  screws() {
    const paths = this.items("path").map((p) => ({ ...p, tip_ct: p.target_ct, colour: "#5cc8ff", short: p.name }));
    const all = [...this.items("screw").map((s) => ({ ...s, short: `${s.level} ${s.side}` })), ...paths];
    return this.dragged ? all.map((s) => (s.id === this.dragged.id ? this.dragged : s)) : all;
  }

  // Points of measurements and of flags that are not acknowledged.
  marks() {
    if (!this.view.scene.layers.marks) return [];
    const chosen = this.view.scene.mark;
    const measured = this.items("measurement").map((m) => ({ id: m.id, points: m.points_ct, colour: "#7fe0ff", text: `${readable(m.name)} ${value(m)}`, chosen: m.id === chosen }));
    const asked = this.open().map((f) => ({ id: f.id, points: f.points_ct, colour: "#ffd23f", text: "?", always: true, chosen: f.id === chosen }));
    const implants = this.items("implant").map(this.live.now).map((i) => ({ id: i.id, points: [i.T_ct_implant.slice(0, 3).map((r) => r[3])], colour: "#b9c7d1", text: `${readable(i.family)} ${i.size}`, chosen: i.id === chosen }));
    return [...measured, ...asked, ...implants].filter((m) => m.points.length);
  }

  // Planes of the cuts.
  planes = () => this.items("cut").map(this.live.now).map((c) => ({ point: c.point_ct, normal: c.normal_ct, text: c.id, chosen: c.id === this.view.scene.mark }));

  show(id) {
    const item = this.item(id);
    if (!item) return;
    this.view.scene.mark = id;
    if (item.kind === "screw" || item.kind === "path") {
      this.view.scene.chosen = id;
      this.view.space?.near(middle([item.entry_ct, item.tip_ct ?? item.target_ct]));
      this.view.surfaces();
    }
    const points = item.points_ct ?? [item.entry_ct, item.tip_ct ?? item.target_ct, item.point_ct].filter(Boolean);
    if (points.length) this.view.goTo(middle(points));
    this.view.cuts.soon();
    this.view.space?.drawScrews();
    this.view.tell();
  }

  drag(end, point) {
    const screw = this.chosen;
    this.dragged = { ...screw, [end]: point };
    if (screw.kind === "screw") this.dragged.length_mm = distance(this.dragged.entry_ct, this.dragged.tip_ct);
    this.view.cuts.soon();
    this.#grade();
  }

  // Asks for the grade of the screw as it lies now; one question at a time, the newest.
  async #grade() {
    if (this.dragged?.kind !== "screw") return;
    this.again = true;
    if (this.grading) return;
    this.grading = true;
    while (this.again && this.dragged) {
      this.again = false;
      const screw = plain(this.dragged);
      const graded = await tried(() => post(`${this.path}/grade`, { screw }));
      if (graded && this.dragged) {
        Object.assign(this.dragged, graded);
        this.view.cuts.soon();
        this.view.tell();
      }
      await new Promise((done) => setTimeout(done, GRADE_EVERY_MS));
    }
    this.grading = false;
  }

  async dropped() {
    const moved = this.dragged;
    if (!moved) return;
    const item = moved.kind === "path" ? { ...plain(moved), target_ct: moved.tip_ct } : plain(moved);
    await this.change({ put: [item] });
    this.dragged = undefined;
    this.take(this.plan, this.obstacles);
  }

  // Changes items. Where somebody else changed the plan meanwhile, it is loaded anew and said so.
  async change({ put = [], remove = [], note }) {
    await tried(async () => {
      try {
        const { plan, obstacles } = await post(`${this.path}/items`, { parent: this.plan?.revision ?? 0, put, remove, ...(note ? { note } : {}) });
        this.take(plan, obstacles);
      } catch (error) {
        if (!(error instanceof Refusal) || error.status !== 409) throw error;
        await this.reload();
        throw new Error("Somebody else changed the plan meanwhile. It is shown as it is now: make your change again.");
      }
    });
  }

  async acknowledge(ids) {
    await tried(async () => {
      const { plan, obstacles } = await post(`${this.path}/acknowledge`, { parent: this.plan.revision, flags: ids });
      this.take(plan, obstacles);
    });
  }

  // Approves the plan as it was checked now; what the check calls unsafe is shown, and noted with who approved it.
  async approve() {
    await tried(async () => {
      if (this.obstacles.length) return this.setState("approved"); // the server says why not
      const { result } = await this.view.jobs.finished("check");
      const unsafe = (result.findings ?? []).filter((f) => f.severity === "unsafe").map((f) => `${f.item} ${f.text}`.trim());
      if (unsafe.length) {
        const list = el("ul", {}, unsafe.map((text) => el("li", {}, text)));
        const sure = await asked("The check calls this unsafe", list, [["Approve all the same", true, "bad"], ["Not now", false, "main"]]);
        if (!sure) return undefined;
      }
      return this.setState("approved", unsafe);
    });
  }

  async setState(state, accepted = []) {
    await tried(async () => {
      const { plan, obstacles } = await post(`${this.path}/state`, { parent: this.plan.revision, state, ...(accepted.length ? { accepted } : {}) });
      this.take(plan, obstacles);
      say(`The plan is ${state}.`);
    });
  }

  // A screw drawn by hand: its entry, then its tip.
  async draw_screw() {
    const level = el("input", { placeholder: "Level, such as T8", value: levelOf(this.view) });
    const side = el("select", {}, el("option", {}, "left"), el("option", {}, "right"));
    const diameter = el("input", { type: "number", value: 5, min: 1, max: 12, step: 0.5 });
    const form = el("div", { className: "column" }, el("label", {}, "Level ", level), el("label", {}, "Side ", side), el("label", {}, "Diameter, mm ", diameter));
    if (!(await asked("Draw a screw", form, [["Next: click its entry, then its tip", true, "main"], ["Cancel", false]]))) return;
    const points = [];
    this.view.hint("Click the entry of the screw in any cut. Escape stops.");
    this.view.asking = async (point) => {
      points.push(point);
      if (points.length < 2) return this.view.hint("Now click the tip.");
      this.view.asking = undefined;
      this.view.hint("");
      const [entry_ct, tip_ct] = points;
      const screw = { kind: "screw", id: `screw_${level.value}_${side.value}_${Date.now() % 100000}`, origin: "drawn", level: level.value.toUpperCase(), side: side.value, entry_ct, tip_ct, diameter_mm: Number(diameter.value), length_mm: distance(entry_ct, tip_ct), clearance_mm: 0, breach_mm: 0, grade: "A" };
      await this.change({ put: [screw] });
      this.show(screw.id);
    };
  }

  draw(page) {
    const { plan } = this;
    if (!plan) {
      page.replaceChildren(el("p", { className: "empty" }, "There is no plan yet. Propose screws or measure under Work, or draw a screw."), el("button", { onclick: () => this.draw_screw() }, "+ Draw a screw"), this.surgery.buttons());
      return;
    }
    const active = document.activeElement;
    const obstacles = this.obstacles.map((o) => el("li", {}, o));
    page.replaceChildren(
      el("div", { className: `card state-${plan.state}` },
        el("h2", {}, "Plan ", el("span", { className: `chip ${plan.state}` }, plan.state)),
        el("small", {}, `revision ${plan.revision}, ${plan.author || "made by the program"}, ${when(plan.made)}`),
        obstacles.length && plan.state !== "approved" ? el("details", { open: true }, el("summary", {}, `${of(obstacles.length, "thing")} to do before approval`), el("ul", {}, obstacles)) : "",
        el("div", { className: "row" },
          plan.state === "draft" ? el("button", { className: "main", id: "review-plan", onclick: () => this.setState("reviewed") }, "Mark as reviewed") : el("button", { onclick: () => this.setState("draft") }, "Back to draft"),
          el("button", { className: "good", id: "approve-plan", disabled: plan.state !== "reviewed", title: "A plan is reviewed first, then approved", onclick: () => this.approve() }, "✓ Approve the plan"),
          el("button", { id: "export", disabled: plan.state !== "approved", title: "Only an approved plan guides", onclick: () => this.view.jobs.exportAsked() }, "Export…"),
          el("button", { id: "briefing", title: "What the team reads before the operation, as PDF", onclick: () => this.view.jobs.briefing() }, "Briefing"))),
      el("div", { className: "row" }, el("h3", {}, `Screws (${this.items("screw").length})`), el("button", { onclick: () => this.draw_screw() }, "+ Draw a screw")),
      ...this.screws().map((s) => this.#screw(s)),
      this.surgery.buttons(),
      this.live.card(),
      ...this.#section("Views for guidance", "view", (v) => [`${v.item}`, `orbital ${v.orbital_deg.toFixed(0)}°, angular ${v.angular_deg.toFixed(0)}°, ${v.error_mm.toFixed(2)} mm expected${v.bound_mm ? `, ${v.bound_mm.toFixed(2)} stated` : ""} (95 %)`]),
      ...this.#section("Measurements", "measurement", (m) => [`${readable(m.name)}${m.structure ? ` · ${readable(m.structure)}` : ""}`, `${value(m)}${m.uncertainty ? ` ± ${m.uncertainty.toPrecision(2)}` : ""}`, m.method]),
      ...this.#section("Cuts", "cut", (c) => [`${c.id}: ${readable(c.structure)}`, `kerf ${c.kerf_mm} mm`]),
      ...this.#section("Moved pieces", "move", (m) => [readable(this.item(m.cut)?.structure ?? m.cut), m.id]),
      ...this.#section("Resections", "resection", (r) => [readable(r.lesion), `margin ${r.margin_mm} mm`]),
      ...this.#section("Implants", "implant", (i) => [i.family, i.size]));
    if (this.live.box.contains(active)) active.focus(); // it was taken out of the page for a moment
  }

  #section(title, kind, words) {
    const all = this.items(kind);
    if (!all.length) return [];
    return [el("details", { open: kind !== "measurement" || all.length < 12 }, el("summary", {}, `${title} (${all.length})`), all.map((i) => {
      const [name, ...rest] = words(i);
      return el("div", { className: `item ${i.id === this.view.scene.mark ? "chosen" : ""}`, title: rest[1] ?? "", onclick: () => this.show(i.id) }, el("b", {}, name), el("span", {}, rest[0]), DRAWN.includes(kind) ? this.#remove(i.id) : "");
    }))];
  }

  #screw(s) {
    const chosen = s.id === this.view.scene.chosen;
    if (s.kind === "path") return el("div", { className: `item ${chosen ? "chosen" : ""}`, "data-screw": s.id, onclick: () => this.show(s.id) }, el("b", {}, s.name), el("span", {}, `path, Ø ${s.diameter_mm} mm`), el("span", { className: "chip" }, s.origin), chosen ? this.#remove(s.id) : "");
    return el("div", { className: `screw ${chosen ? "chosen" : ""}`, "data-screw": s.id, onclick: () => this.show(s.id) },
      el("span", { className: "grade", style: `background:${GRADES[s.grade]}`, title: "Gertzbein and Robbins" }, s.grade),
      el("div", { className: "what" }, el("b", {}, `${s.level} ${s.side}`),
        el("small", {}, `Ø ${s.diameter_mm} × ${s.length_mm.toFixed(0)} mm · clearance ${s.clearance_mm.toFixed(1)} mm${s.breach_mm > 0 ? ` · breach ${s.breach_mm.toFixed(1)} mm` : ""}`),
        chosen ? el("small", {}, "Drag its square (entry) or its circle (tip) in a cut.") : ""),
      el("span", { className: "chip" }, s.origin),
      chosen ? this.#remove(s.id) : "");
  }

  #remove = (id) => el("button", { title: "Remove this from the plan", onclick: (e) => { e.stopPropagation(); this.change({ remove: [id] }); } }, "✕");

  drawQuestions(page) {
    const open = this.open(), done = this.flags().filter((f) => f.acknowledged_by);
    page.replaceChildren(
      ...this.view.levels.cards(),
      ...(this.view.info.questions ?? []).filter((q) => q.key !== "level").map((q) => el("div", { className: "card question" }, el("h2", {}, "Asked by the segmentation"), el("p", {}, q.text), el("small", {}, "Answer it by relabelling, or by approving the structure as it is."))),
      el("h3", {}, open.length ? `${of(open.length, "question")} to answer` : this.view.info.questions?.length ? "" : "No question is open."),
      ...open.map((f) => el("div", { className: "card question" },
        el("h2", {}, readable(f.what)), el("p", {}, f.text),
        el("div", { className: "row" },
          f.points_ct.length ? el("button", { onclick: () => this.show(f.id) }, "Show the place") : "",
          el("button", { className: "good", onclick: () => this.acknowledge([f.id]) }, "✓ Seen and considered")))),
      ...done.map((f) => el("div", { className: "item", onclick: () => this.show(f.id) }, el("b", {}, readable(f.what)), el("span", {}, `answered by ${f.acknowledged_by}`))));
  }
}

const middle = (points) => points[0].map((_, k) => points.reduce((sum, p) => sum + p[k], 0) / points.length);

// A screw as the server knows it.
function plain({ short, colour, tip_ct, ...item }) {
  return item.kind === "screw" ? { ...item, tip_ct } : item;
}

const UNITS = { mm: "mm", deg: "°", cm3: "cm³", HU: "HU", 1: "" };
const value = (m) => `${Math.abs(m.value) >= 100 ? m.value.toFixed(0) : m.value.toFixed(1)} ${UNITS[m.unit]}`.trim();

// The vertebral level under the cross, as a start.
function levelOf(view) {
  const label = view.session.labels?.[view.grid.index(view.scene.cross)];
  return /vertebrae?_(\w+)/.exec(view.structures.by.get(label)?.name ?? "")?.[1] ?? "";
}
