// The list of structures: colour, engine, confidence, state; shown or hidden, approved or rejected.

import { post } from "./api.js";
import { asked, el, percent, say, tried } from "./dom.js";

const KINDS = { vertebra: "Vertebrae", rib: "Ribs", bone: "Bones", cartilage: "Cartilage", lesion: "Lesions", implant: "Implants", nerve: "Cord and nerves", vessel: "Vessels", organ: "Organs", muscle: "Muscles", other: "Other" };
const IN_SPACE = new Set(["vertebra", "rib", "bone", "lesion", "implant", "nerve", "vessel"]); // shown in 3D at first
const ABOUT_SCREWS = new Set(["vertebra", "nerve", "vessel", "lesion", "implant"]);
const BONE = new Set(["vertebra", "rib", "bone", "cartilage"]);
const THROUGH = 0.18; // opacity of what a screw is seen through; chosen on the chest
const LOW_CONFIDENCE = 0.7; // chosen: shown as a warning

export const readable = (name) => name.replace(/^vertebrae?_/, "Vertebra ").replaceAll("_", " ").replace(/^./, (c) => c.toUpperCase());

export class Structures {
  constructor(view) {
    this.view = view;
    this.all = [];
    this.hidden = new Set();
    this.solo = new Set(); // hidden in 3D alone
    this.ticked = new Set();
    this.opacity = 0.4;
    this.filter = "";
  }

  // Takes the newest revision's structures, and those that the session has added.
  take() {
    const known = new Map(this.view.info.structures.map((s) => [s.label, s]));
    for (const s of this.view.session.state?.structures ?? [])
      if (!known.has(s.label)) known.set(s.label, { ...s, kind: "other", engine: "person", confidence: 1, volume_cm3: 0, state: "draft", colour: "#5cc8ff" });
    const order = Object.keys(KINDS);
    this.all = [...known.values()].sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind) || (a.kind === "vertebra" ? b.label - a.label : a.label - b.label));
    this.by = new Map(this.all.map((s) => [s.label, s]));
    for (const s of this.all) if (s.state === "rejected") this.hidden.add(s.label);
    this.chosen ??= this.all[0]?.label;
    this.counts();
    this.view.repaint();
  }

  counts() {
    for (const { label, voxels } of this.view.session.state?.structures ?? []) {
      const s = this.by?.get(label);
      if (!s) continue;
      const mm3 = this.view.grid.spacing.reduce((a, b) => a * b, 1);
      [s.voxels, s.volume_cm3] = [voxels, (voxels * mm3) / 1000];
    }
    const fresh = (this.view.session.state?.structures ?? []).some((s) => this.by && !this.by.has(s.label));
    if (fresh) this.take();
    this.view.tell();
  }

  nameOf = (label) => readable(this.by.get(label)?.name ?? `label ${label}`);

  palette(scene) {
    const [fills, edges] = [new Uint32Array(65536), new Uint32Array(65536)];
    const alpha = Math.round(this.opacity * 255);
    for (const { label, colour } of this.all) {
      if (this.hidden.has(label)) continue;
      const [r, g, b] = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
      const bgr = (b << 16) | (g << 8) | r;
      fills[label] = ((alpha << 24) | bgr) >>> 0;
      edges[label] = ((255 << 24) | bgr) >>> 0;
    }
    Object.assign(scene, { fills, edges });
    if (scene.drawing) scene.drawing.label = this.chosen;
  }

  // What 3D shows. Bone is translucent where there are screws; with one chosen, only what lies about it is shown.
  inSpace() {
    const screw = this.view.scene.chosen;
    return this.all
      .filter((s) => !this.view.plan?.live.hides().has(s.name)) // its pieces are drawn
      .filter((s) => !screw || (ABOUT_SCREWS.has(s.kind) && this.#isNear(s)))
      .filter((s) => !this.hidden.has(s.label) && !this.solo.has(s.label) && s.voxels && (IN_SPACE.has(s.kind) || s.label === this.chosen))
      .map(({ label, colour, kind }) => ({ label, colour, opacity: this.#opacity(kind, screw) }));
  }

  // Of the vertebrae: that of the chosen screw, and its neighbours.
  #isNear({ kind, name }) {
    const level = this.view.plan.chosen?.level;
    if (kind !== "vertebra" || !level) return true;
    const all = this.view.levels.vertebrae;
    const [at, here] = [level, name.replace(/^vertebrae_/, "")].map((l) => all.findIndex((v) => v.level === l));
    return at < 0 || Math.abs(at - here) <= 1;
  }

  #opacity(kind, screw) {
    const through = this.view.scene.layers.screws && this.view.plan?.seeThrough;
    if (through && BONE.has(kind)) return THROUGH;
    if (kind === "vessel") return through && screw ? THROUGH : 0.7;
    return through && kind === "nerve" ? 0.5 : 1;
  }

  choose(label, go = false) {
    this.chosen = label;
    this.hidden.delete(label);
    this.view.repaint();
    this.view.tell();
    document.querySelector(`[data-structure="${label}"]`)?.scrollIntoView({ block: "nearest" });
    if (go) this.#goTo(label);
  }

  // The slice on which a structure is largest, and its middle there.
  #goTo(label) {
    const { labels } = this.view.session;
    const { size, steps } = this.view.grid;
    let best = { n: 0 };
    for (let k = 0; k < size[2]; k++) {
      let [n, x, y] = [0, 0, 0];
      const end = (k + 1) * steps[2];
      for (let at = labels.indexOf(label, k * steps[2]); at >= 0 && at < end; at = labels.indexOf(label, at + 1)) {
        n++;
        x += at % size[0];
        y += Math.floor((at % steps[2]) / size[0]);
      }
      if (n > best.n) best = { n, voxel: [x / n, y / n, k] };
    }
    if (best.n) this.view.goTo(this.view.grid.point(best.voxel.map(Math.round)));
  }

  toggle(labels, show) {
    for (const label of labels) show ? this.hidden.delete(label) : this.hidden.add(label);
    this.view.repaint();
    this.view.tell();
    this.view.surfaces();
  }

  async judge(state) {
    const labels = [...this.ticked];
    const { session } = this.view;
    if (session.state.unsaved) {
      const choice = await asked("Save first", "Only what is saved can be approved or rejected.", [["Save now", true, "main"], ["Not now", false]]);
      if (!choice) return;
      await this.view.save();
      if (session.state.unsaved) return;
    }
    await tried(async () => {
      const { revision } = await post(`${this.view.path}/structures/judge`, { revision: this.view.info.newest, labels, state });
      await session.reload();
      await this.view.refresh();
      this.ticked.clear();
      say(`${labels.length === 1 ? this.nameOf(labels[0]) : `${labels.length} structures`}: ${state}. This is revision ${revision}.`);
      this.view.tell();
    });
  }

  // Adds a structure, or asks for one; resolves with its label.
  async add(vocabulary) {
    const select = el("select", {}, vocabulary.filter((v) => !this.by.has(v.label)).map((v) => el("option", { value: v.label }, readable(v.name))), el("option", { value: "new" }, "Another name…"));
    const name = el("input", { placeholder: "Name, such as lesion_1", hidden: true });
    select.addEventListener("change", () => (name.hidden = select.value !== "new"));
    if (!(await asked("Add a structure", el("div", { className: "column" }, select, name), [["Add", true, "main"], ["Cancel", false]]))) return;
    const known = vocabulary.find((v) => String(v.label) === select.value);
    const label = known?.label ?? Math.max(255, ...this.all.map((s) => s.label)) + 1;
    const title = known?.name ?? name.value.trim().replaceAll(" ", "_");
    if (!title) return say("Give the structure a name.", "error");
    await tried(async () => {
      await this.view.session.widen(label);
      await this.view.session.operate("structure", { label, name: title });
      if (!this.by.has(label)) this.take();
      this.choose(label);
    });
  }

  draw(page, vocabulary) {
    const filter = page.querySelector("input[type=search]");
    const shown = this.all.filter((s) => readable(s.name).toLowerCase().includes(this.filter));
    const groups = new Map();
    for (const s of shown) (groups.get(s.kind) ?? groups.set(s.kind, []).get(s.kind)).push(s);
    const list = el("div", { className: "list" }, [...groups].map(([kind, all]) => this.#group(kind, all)));
    if (!this.all.length) list.append(el("p", { className: "empty" }, "Nothing is segmented yet. Run a segmentation under Work."));
    const judging = el("div", { className: "row judging" },
      el("button", { className: "good", disabled: !this.ticked.size, onclick: () => this.judge("approved") }, `✓ Approve${this.ticked.size ? ` ${this.ticked.size}` : ""}`),
      el("button", { className: "bad", disabled: !this.ticked.size, onclick: () => this.judge("rejected") }, "✕ Reject"),
      el("button", { disabled: !this.ticked.size, onclick: () => this.judge("draft") }, "Back to draft"));
    if (filter) {
      page.querySelector(".list").replaceWith(list);
      page.querySelector(".judging").replaceWith(judging);
      list.scrollTop = this.scrolled ?? 0;
      list.addEventListener("scroll", () => (this.scrolled = list.scrollTop));
      return;
    }
    page.replaceChildren(
      el("div", { className: "row" },
        el("input", { type: "search", placeholder: "Find a structure", oninput: (e) => { this.filter = e.target.value.toLowerCase(); this.draw(page, vocabulary); } }),
        el("button", { onclick: () => this.add(vocabulary) }, "+ Add")),
      el("label", { className: "row", style: "flex-wrap: nowrap" }, "Opacity", el("input", { type: "range", min: 0, max: 1, step: 0.05, value: this.opacity, oninput: (e) => { this.opacity = Number(e.target.value); this.view.repaint(); } })),
      list, judging);
  }

  #group(kind, all) {
    const labels = all.map((s) => s.label);
    const shown = labels.some((l) => !this.hidden.has(l));
    const every = labels.every((l) => this.ticked.has(l));
    return el("section", {},
      el("h3", {},
        el("input", { type: "checkbox", checked: every, title: "Select all", onchange: (e) => { labels.forEach((l) => (e.target.checked ? this.ticked.add(l) : this.ticked.delete(l))); this.view.tell(); } }),
        el("button", { className: "eye", "aria-pressed": String(shown), title: shown ? "Hide all" : "Show all", onclick: () => this.toggle(labels, !shown) }, shown ? "◉" : "○"),
        `${KINDS[kind] ?? kind} (${all.length})`),
      all.map((s) => this.#row(s)));
  }

  #row(s) {
    const shown = !this.hidden.has(s.label);
    const unsure = s.engine !== "person" && s.confidence < LOW_CONFIDENCE;
    const edited = this.view.edited.has(s.label);
    return el("div", { className: `structure ${s.label === this.chosen ? "chosen" : ""}`, "data-structure": s.label, onclick: () => this.choose(s.label, true) },
      el("input", { type: "checkbox", checked: this.ticked.has(s.label), title: "Select", onclick: (e) => e.stopPropagation(), onchange: (e) => { e.target.checked ? this.ticked.add(s.label) : this.ticked.delete(s.label); this.view.tell(); } }),
      el("button", { className: "eye", "aria-pressed": String(shown), title: shown ? "Hide" : "Show", onclick: (e) => { e.stopPropagation(); this.toggle([s.label], !shown); } }, shown ? "◉" : "○"),
      el("i", { className: "swatch", style: `background:${s.colour}` }),
      el("div", { className: "what" },
        el("b", {}, readable(s.name)),
        el("small", {}, `${s.volume_cm3.toFixed(1)} cm³ · ${s.engine} `, s.engine === "person" ? "" : el("span", { className: unsure ? "warn" : "" }, percent(s.confidence)))),
      el("span", { className: `chip ${s.state}` }, edited ? "edited" : s.state, s.alarms ? " · alarms" : ""));
  }
}
