// One open case: its scan, session, cuts and 3D view, and what the panels share.

import { events, get, Refusal, voxels } from "./api.js";
import { Cuts, NAMES, WINDOWS } from "./cuts.js";
import { $, asked, el, of, say, tried } from "./dom.js";
import { Grid } from "./grid.js";
import { Levels } from "./levels.js";
import { Plan } from "./plan.js";
import { attach } from "./pointers.js";
import { Session } from "./session.js";
import { Space } from "./space.js";
import { Structures } from "./structures.js";
import { timing } from "./timing.js";

const SURFACES_AFTER_MS = 1200; // surfaces are made anew when the brush has rested so long

export class View {
  constructor(name) {
    this.name = name;
    this.path = `/cases/${encodeURIComponent(name)}`;
    this.timing = timing;
    this.tool = "look";
    this.edited = new Map(); // label: how often it was edited since the revision
    this.listeners = new Set(); // panels
    const layers = { structures: true, cross: true, marks: true, screws: true, surgery: true };
    this.scene = { layers, window: WINDOWS["Soft tissue"], marks: () => [...this.plan.marks(), ...this.levels.marks()], screws: () => this.plan.screws(), planes: () => this.plan.planes(), bodies: () => this.plan.live.bodies, drawn: (cut) => this.timing.drawn(cut) };
    this.scene.crossMoved = () => this.#crossMoved();
  }

  async open(progress) {
    this.timing.opening();
    this.info = await get(this.path);
    const { ct } = this.info;
    this.grid = new Grid(ct);
    this.scene.cross = this.grid.centre;
    if (ct.window) this.scene.window = ct.window;
    this.session = new Session(this.name, this.grid, { changed: (labels) => this.#labelsChanged(labels), moved: () => this.#moved(), unreachable: (text) => say(text, "error") });
    const [{ buffer }] = await Promise.all([
      voxels(`${this.path}/ct`, this.grid.voxels * 2, progress),
      this.info.newest ? this.session.open() : null,
    ]);
    this.hu = new Int16Array(buffer);
    this.structures = new Structures(this);
    this.plan = new Plan(this);
    this.levels = new Levels(this);
    this.#boxes();
    this.cuts = new Cuts(this.boxes, this.grid, this.hu, ct.frame_of_reference ?? "", this.scene);
    this.structures.take();
    this.plan.take(this.info.plan, []);
    await this.cuts.show();
    for (const cut of this.cuts.cuts) {
      cut.onwards = cut.name === "axial" ? -Math.sign(cut.axis[2]) : Math.sign(cut.axis[cut.name === "sagittal" ? 0 : 1]);
      attach(this, cut);
    }
    this.timing.opened();
    this.space = new Space(this.boxes.space, this.scene, () => this.drawingNow);
    this.space.show();
    this.space.drawScrews();
    this.space.drawBodies(this.plan.live.bodies);
    this.surfaces();
    this.close = events(this.name, (message) => this.#heard(message));
    this.observer = new ResizeObserver(() => this.cuts.resize());
    this.observer.observe($("views"));
    await this.plan.reload();
    this.tell();
  }

  #boxes() {
    this.boxes = {};
    for (const view of document.querySelectorAll("#views .view")) {
      const box = el("div", { className: "cornerstone" });
      const turns = view.dataset.view === "space" ? ["A", "P", "L", "R", "H", "F"].map((l) => el("button", { title: `From ${l}`, onclick: () => this.space.from(l) }, l)) : [];
      view.replaceChildren(box, el("div", { className: "corner" }, turns, el("button", { title: "Enlarge (double click)", onclick: () => this.enlarge(view.dataset.view) }, "⤢")));
      this.boxes[view.dataset.view] = box;
    }
  }

  end() {
    this.close?.();
    this.observer?.disconnect();
    this.space?.close();
    this.cuts?.close();
  }

  say = say;

  // Something that panels show has changed.
  tell() {
    for (const listener of this.listeners) listener();
  }

  enlarge(name) {
    const views = $("views");
    views.dataset.large = views.dataset.large === name ? "" : name;
    for (const view of views.children) view.classList.toggle("large", view.dataset.view === views.dataset.large);
    this.cuts.resize();
  }

  // Shows a point in all cuts.
  goTo(point) {
    this.cuts.setCross(point);
    for (const cut of this.cuts.cuts) {
      const [x, y] = cut.viewport.worldToCanvas(this.scene.cross);
      const { clientWidth: w, clientHeight: h } = cut.box;
      if (x > w * 0.1 && x < w * 0.9 && y > h * 0.1 && y < h * 0.9) continue;
      const [px, py] = cut.viewport.getPan();
      cut.viewport.setPan([px + w / 2 - x, py + h / 2 - y]);
      cut.viewport.render();
    }
  }

  #crossMoved() {
    if (this.hu) this.hovered(undefined, this.scene.cross);
  }

  hovered(cut, point) {
    const index = this.grid.index(point);
    if (index < 0) return;
    const label = this.session.labels?.[index] ?? 0;
    const name = label ? this.structures.nameOf(label) : "";
    $("hover").textContent = `${this.hu[index]} HU   ${name}   ${point.map((x, a) => `${Math.abs(x).toFixed(1)} ${(x >= 0 ? "LPH" : "RAF")[a]}`).join("  ")} mm`;
  }

  pick(point) {
    const label = this.session.labels?.[this.grid.index(point)] ?? 0;
    if (label) this.structures.choose(label);
    else say("There is no structure here.");
  }

  // Why nothing may be drawn now; undefined where it may.
  mayDraw() {
    if (!this.session.labels) return "There is no segmentation yet: run one under Work.";
    if (!this.scene.drawing.label) return "Choose a structure in the list first.";
    return undefined;
  }

  // Colours of labels in the cuts, and 3D; called when structures are shown, hidden or recoloured.
  repaint() {
    this.scene.labels = this.scene.layers.structures ? this.session.labels : undefined;
    this.structures.palette(this.scene);
    this.cuts?.soon();
  }

  strokeEnded(stroke) {
    tried(() => this.session.stroke(stroke));
  }

  #labelsChanged(labels) {
    this.scene.labels = this.scene.layers.structures ? this.session.labels : undefined;
    for (const label of labels ?? this.session.state.structures.map((s) => s.label)) if (label) this.edited.set(label, (this.edited.get(label) ?? 0) + 1);
    this.cuts?.soon();
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.surfaces(), SURFACES_AFTER_MS);
  }

  async surfaces() {
    if (!this.space?.viewport || !this.info.newest) return;
    await this.session.waiting;
    const revision = this.session.state.parent;
    const fresh = [], old = [];
    for (const s of this.structures.inSpace()) {
      const edits = this.edited.get(s.label);
      (edits ? fresh : old).push({ ...s, version: edits ? `edited ${edits}` : `revision ${revision}` });
    }
    this.surfacesShown = tried(async () => {
      const path = (s) => (this.edited.has(s.label) ? `${this.path}/session` : `${this.path}/revisions/${revision}`);
      await this.space.structures(path, [...old, ...fresh]);
    });
    await this.surfacesShown;
  }

  // The session's state has changed: undo, redo, number of unsaved edits.
  #moved() {
    const { state, pending } = this.session;
    $("undo").disabled = !state.undo;
    $("redo").disabled = !state.redo;
    $("undo").textContent = state.undo ? `↶ Undo ${state.undo}` : "↶ Undo";
    $("redo").textContent = state.redo ? `↷ Redo ${state.redo}` : "↷ Redo";
    $("save").disabled = !state.unsaved;
    $("unsaved").textContent = pending ? "sending…" : state.unsaved ? "not saved" : `revision ${state.parent}`;
    $("unsaved").className = state.unsaved ? "warn" : "";
    this.structures?.counts();
  }

  undo = () => tried(() => this.session.undo());
  redo = () => tried(() => this.session.redo());

  async save() {
    if (!this.session.state?.unsaved) return;
    this.saving = true; // its own revision is not somebody else's
    const done = await tried(() => this.#saved({}));
    this.saving = false;
    if (done) say(`Saved as revision ${done.revision}${done.merged ? ", together with what others saved meanwhile" : ""}.`);
  }

  async #saved(choice) {
    try {
      const done = await this.session.save(choice);
      await this.refresh();
      return done;
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 409 || !error.body.structures) throw error;
      const list = error.body.structures.map((s) => `${s.name}: ${of(s.voxels, "voxel")}`).join(", ");
      const how = await asked("Somebody else changed the same places", [error.message, list], [
        ["Keep mine there", { resolve: "mine" }], ["Keep theirs there", { resolve: "theirs" }], ["Save mine as a branch", { branch: `${$("user").textContent}` }], ["Not now", undefined],
      ]);
      return how && this.#saved(how);
    }
  }

  // Takes the case's record anew: after saving, approving, or work in the background.
  async refresh() {
    this.info = await get(this.path);
    if (!this.session.labels && this.info.newest) await this.session.open();
    this.edited.clear();
    this.structures.take();
    await this.plan.reload();
    this.surfaces();
    this.tell();
  }

  #heard(message) {
    if (message.event === "jobs") this.jobs?.take(message.jobs);
    if (message.event === "editors") this.#editors(message.editors);
    if (message.event === "plan" && message.revision !== this.plan.plan?.revision) tried(() => this.plan.reload());
    if (message.event === "revision" && message.number > (this.info.newest ?? 0)) tried(() => this.#revised(message));
  }

  #editors(editors) {
    const others = new Set(editors.map((e) => e.user).filter((user) => user !== $("user").textContent));
    $("editors").textContent = others.size ? `Also open: ${[...others].join(", ")}` : "";
  }

  async #revised({ number, author, branch }) {
    if (this.saving && author === $("user").textContent) return;
    if (branch) return say(`${author} made revision ${number}, on the branch ${branch}: see it under Compare.`);
    if (this.session.state?.unsaved) return say(`${author} saved revision ${number}. Your work will be put together with it when you save.`);
    if (this.session.state) await this.session.open({ restart: true });
    await this.refresh();
    this.repaint();
    say(`${author} saved revision ${number}: shown now.`);
  }

  static names = NAMES;
}
