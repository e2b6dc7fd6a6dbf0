// The planned surgery, carried out while a person changes it: numbers and pieces follow, and settle to the exact ones.

import { packed, Refusal } from "./api.js";
import { el } from "./dom.js";
import { along, cross, distance, dot, minus } from "./grid.js";
import { fieldsOf } from "./fields.js";
import { planeLine } from "./marks.js";
import { bodiesOf } from "./pieces.js";
import { linesOf, surgeryLines } from "./results.js";
import { readable } from "./structures.js";

const KINDS = ["cut", "move", "resection", "implant"];
const REST_MS = 600; // after the last step of a value it becomes part of the plan; chosen
const REACH_PX = 12;
const PAGE = crypto.randomUUID(); // of each page, the server heeds the newest value alone

const unit = (v) => v.map((x) => x / Math.hypot(...v));

export class Live {
  constructor(view) {
    this.view = view;
    this.drafts = new Map(); // id: item as it is while it is changed
    this.bodies = [];
    this.report = undefined;
    this.fault = "";
    this.chip = el("span", { className: "chip" });
    this.fields = el("div", { className: "column" });
    this.figures = el("div", { className: "column figures" });
    this.box = el("div", { className: "card", id: "surgery" }, el("h2", {}, "Surgery as planned ", this.chip), this.fields, this.figures);
  }

  // An item as it is now.
  now = (item) => this.drafts.get(item.id) ?? item;
  items = () => KINDS.flatMap((kind) => this.view.plan.items(kind)).map(this.now);

  // The plan, or what is cut in it, may have changed: carries it out anew where it has.
  refresh() {
    if (this.committing) return;
    const about = JSON.stringify([this.view.info.newest, this.items().map(({ origin, audit, ...item }) => item)]);
    if (about === this.about) return;
    this.about = about;
    if (this.items().length || this.bodies.length || this.report) this.#ask(!this.drafts.size);
  }

  // Makes ready what will be cut, while its place is still being drawn.
  prepare(names) {
    packed(`${this.view.plan.path}/simulate`, { prepare: names, page: `${PAGE} prepares` }).catch(() => {}); // said when it is cut
  }

  // An item as a person changes it; `at` is the time of the event.
  change(item, at = performance.now()) {
    this.since ??= at;
    this.drafts.set(item.id, item);
    clearTimeout(this.resting);
    this.view.cuts.soon();
    this.#ask(false);
  }

  // A value was stepped: it is kept when no other step follows.
  step(item, at) {
    this.change(item, at);
    this.resting = setTimeout(() => this.commit(), REST_MS);
  }

  // What was changed becomes part of the plan, and is carried out exactly.
  async commit() {
    clearTimeout(this.resting);
    const put = [...this.drafts.values()];
    if (!put.length) return;
    if (this.committing) return void (this.resting = setTimeout(() => this.commit(), REST_MS));
    this.committing = true;
    this.let_go = performance.now();
    await this.view.plan.change({ put: put.map((item) => ({ ...item, origin: "drawn" })) });
    this.committing = false;
    for (const item of put) if (this.drafts.get(item.id) === item) this.drafts.delete(item.id); // another change may have come
    this.about = undefined;
    this.refresh();
  }

  // Asks for the surgery as it is now; one question at a time, the newest.
  #ask(exact) {
    this.wanted = exact;
    if (!this.asking) this.settled = this.#answers();
    this.#figures();
  }

  async #answers() {
    this.asking = true;
    try {
      while (this.wanted !== undefined) {
        const [exact, since] = [this.wanted, this.since];
        this.wanted = this.since = undefined;
        const items = this.items();
        if (!items.length) {
          this.#take({ report: undefined, parts: [] }, new ArrayBuffer(0));
          continue;
        }
        try {
          const { head, payload } = await packed(`${this.view.plan.path}/simulate`, { items, exact, page: PAGE });
          this.#take(head, payload, since);
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          [this.fault, this.bodies, this.report] = [error.message, [], undefined];
          this.#drawn();
        }
      }
    } finally {
      this.asking = false;
      this.#figures();
    }
  }

  #take(head, payload, since) {
    [this.fault, this.report, this.bodies] = ["", head.report, bodiesOf(head, payload)];
    this.#drawn();
    const { timing } = this.view, let_go = head.report?.exact && !this.drafts.size ? this.let_go : undefined;
    if (let_go) this.let_go = undefined;
    requestAnimationFrame(() => {
      if (since !== undefined) timing.changes_ms.push(performance.now() - since);
      if (let_go !== undefined) timing.settled_ms.push(performance.now() - let_go);
    });
  }

  #drawn() {
    this.#figures();
    this.view.cuts?.soon();
    this.view.space?.drawBodies(this.bodies, this.drafts.size > 0);
    const hidden = [...this.hides()].join();
    if (hidden !== (this.hidden ?? "")) this.view.surfaces();
    this.hidden = hidden;
  }

  // Names of structures whose pieces are drawn in their place.
  hides = () => new Set(this.view.scene.layers.surgery ? this.bodies.filter((b) => b.kind === "piece").map((b) => b.structure) : []);

  #figures() {
    const waits = this.asking && (this.wanted !== undefined || !this.report);
    const state = this.fault ? "not possible" : !this.report ? "carrying out…" : this.report.exact && !waits ? "exact" : "preview";
    this.chip.textContent = state;
    this.chip.className = `chip ${{ exact: "approved", preview: "running", "not possible": "rejected" }[state] ?? ""}`;
    this.chip.title = state === "preview" ? "On simplified surfaces; the exact numbers follow when the hand rests" : "";
    const lines = this.fault ? [[this.fault, "warn"]] : this.report ? surgeryLines(this.report) : [];
    const notes = (this.report?.warnings ?? []).filter((w) => !w.includes("demonstration")).map((w) => [w, "warn"]);
    this.figures.replaceChildren(...linesOf([...lines, ...notes], (id) => this.view.plan.show(id)));
  }

  // The card of the panel; empty where there is nothing to carry out.
  card() {
    if (!this.items().length) return "";
    const item = this.view.plan.item(this.view.scene.mark);
    const shown = item && KINDS.includes(item.kind) ? item.id : undefined;
    if (shown !== this.shown) {
      this.shown = shown;
      this.rows = shown ? fieldsOf(this, item) : [];
      const title = item && shown ? `${readable(item.kind)} ${item.id}` : "Choose a cut, a move, a resection or an implant below to change it.";
      this.fields.replaceChildren(shown ? el("b", {}, title) : el("small", {}, title), ...this.rows.map((r) => r.row));
    }
    if (item && shown) for (const row of this.rows) row.sync?.(this.now(item));
    return this.box;
  }

  // Grips of the chosen cut in a view: one that shifts its plane, two that turn it.
  grips(cut) {
    const item = this.view.plan.item(this.view.scene.mark);
    if (item?.kind !== "cut" || !this.view.scene.layers.surgery) return [];
    const now = this.now(item), line = planeLine(cut, { point: now.point_ct, normal: now.normal_ct });
    if (!line) return [];
    return line.grips.map((at, k) => ({ at, drag: k === 0 ? shifted(now, line.middle) : turnedAbout(now, line.middle, at, cut.axis) }));
  }

  // What a drag from a place on the screen does to the chosen cut; undefined away from its grips.
  gripAt(cut, [x, y]) {
    const grip = this.grips(cut).find(({ at }) => {
      const [gx, gy] = cut.viewport.worldToCanvas(at);
      return Math.hypot(gx - x, gy - y) <= REACH_PX;
    });
    if (!grip) return undefined;
    return { drag: (point, at) => this.change(grip.drag(point), at), end: () => this.commit() };
  }
}

// A cut whose plane follows a point along its normal.
function shifted(item, from) {
  const normal = unit(item.normal_ct);
  return (point) => ({ ...item, point_ct: along(item.point_ct, normal, dot(minus(point, from), normal)) });
}

// A cut that is turned in a view about the middle of its line, so that a grip follows a point.
function turnedAbout(item, middle, grip, axis) {
  const from = unit(minus(grip, middle));
  return (point) => {
    if (distance(point, middle) < 1) return item;
    const to = unit(minus(point, middle));
    const angle = Math.atan2(dot(cross(from, to), axis), dot(from, to));
    const turn = (v) => {
      const c = Math.cos(angle), s = Math.sin(angle), about = cross(axis, v), along_axis = dot(axis, v) * (1 - c);
      return v.map((x, k) => x * c + about[k] * s + axis[k] * along_axis);
    };
    return { ...item, normal_ct: unit(turn(item.normal_ct)), point_ct: along(middle, turn(minus(item.point_ct, middle)), 1) };
  };
}
