// Work in the background: segment, measure, propose screws, check, views, export; with its progress.

import { fileAddress, get, post, remove, upload } from "./api.js";
import { $, asked, el, percent, say, tried } from "./dom.js";
import { linesOfJob } from "./results.js";

const WORDS = { segment: "Segmentation", measure: "Measurements", screws: "Screws", check: "Check", views: "Views", simulate: "Simulated surgery", export: "Export", briefing: "Briefing" };
const TARGETS = { case: "Case for the guidance (case.yaml)", stl: "STL, mm", "3mf": "3MF, mm", slicer: "3D Slicer scene", dicom: "DICOM (SEG, SR, STL)" };

const MESHES = ["stl", "3mf"]; // whose axes must be said: programs differ
const AXES = [["LPS (DICOM)", "lps"], ["RAS (3D Slicer, NIfTI)", "ras"], ["Cancel", undefined]];

const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} KB` : `${(bytes / 1e6).toFixed(1)} MB`);
const going = (job) => job.state === "running" || job.state === "waiting";
const question = (q) => el("p", { className: "warn" }, "? ", typeof q === "string" ? q : q.text);

export class Jobs {
  constructor(view) {
    this.view = view;
    this.all = [];
    this.seen = new Set();
    this.awaited = new Map(); // job: who waits for its end
    view.jobs = this;
  }

  take(jobs) {
    const ended = jobs.filter((j) => (this.first === false ? !going(j) : j.state === "broken") && !this.seen.has(j.job));
    if (this.first !== false) this.first = false;
    for (const job of jobs) if (!going(job)) this.seen.add(job.job);
    this.all = jobs;
    for (const job of jobs.filter((j) => !going(j) && this.awaited.has(j.job))) {
      this.awaited.get(job.job)(job);
      this.awaited.delete(job.job);
    }
    for (const job of ended) {
      if (job.state === "done") say(`${WORDS[job.kind] ?? job.kind}: done.${job.text ? ` ${job.text}` : ""}`);
      if (job.state === "broken") say(`${WORDS[job.kind] ?? job.kind}, started by ${job.user}, was broken off when the server ended. Start it again under Work.`, "error");
      if (job.state === "failed") say(`${WORDS[job.kind] ?? job.kind} failed: ${job.error}`, "error");
    }
    if (ended.some((j) => j.state === "done")) tried(() => this.#ended(ended));
    const running = jobs.find((j) => j.state === "running");
    $("progress").hidden = !running;
    if (running) {
      $("progress").querySelector("i").style.width = percent(running.share ?? 0);
      $("progress").querySelector("b").textContent = `${WORDS[running.kind] ?? running.kind} ${percent(running.share ?? 0)}: ${running.text ?? ""}`;
    }
    this.view.tell();
  }

  async #ended(jobs) {
    const { view } = this;
    if (jobs.some((j) => j.kind === "segment") && view.session.state && !view.session.state.unsaved) await view.session.open({ restart: true });
    await view.refresh();
    view.repaint();
  }

  start = (kind, keys = {}) => tried(async () => {
    await post(`${this.view.path}/jobs`, { kind, ...keys });
    const { jobs } = await get(`${this.view.path}/jobs`);
    this.take(jobs);
  });

  // Starts work, and resolves with it when it is done.
  async finished(kind, keys = {}) {
    const { job } = await post(`${this.view.path}/jobs`, { kind, ...keys });
    const ended = new Promise((resolve) => this.awaited.set(job, resolve));
    this.take((await get(`${this.view.path}/jobs`)).jobs);
    const done = await ended;
    if (done.state !== "done") throw new Error(`${WORDS[kind]}: ${done.error || done.state}`);
    return done;
  }

  #address = (job) => `${this.view.path}/jobs/${job.job}`;

  #again = (job) => this.#ask(() => post(`${this.#address(job)}/again`, {}));

  #ask = (work) => tried(async () => {
    await work();
    const { jobs } = await get(`${this.view.path}/jobs`);
    this.take(jobs);
  });

  async segment() {
    const engine = el("select", {}, [["atlas", "Atlas (chest)"], ["import", "Import a label map (SEG, NIfTI, NRRD, STL)"], ["network", "Network"], ["threshold", "Bone by threshold"]].map(([v, t]) => el("option", { value: v }, t)));
    const file = el("input", { type: "file", hidden: true });
    const replace = el("input", { type: "checkbox", checked: true });
    engine.addEventListener("change", () => (file.hidden = engine.value !== "import"));
    const again = this.view.info.newest ? el("label", { className: "row" }, replace, "Show it in place of what is there now; without, it becomes a branch to compare with") : "";
    const text = "What the engine returns is a draft, a new revision. What people drew is never lost: it stays in the revision before.";
    if (!(await asked("Segment", el("div", { className: "column" }, el("p", {}, text), engine, file, again), [["Start", true, "main"], ["Cancel", false]]))) return;
    await tried(async () => {
      const keys = { engine: engine.value, replace: replace.checked };
      if (engine.value === "import") {
        if (!file.files[0]) throw new Error("Choose the file to import.");
        keys.upload = (await upload(`${this.view.path}/uploads/${encodeURIComponent(file.files[0].name)}`, file.files[0])).upload;
      }
      await this.start("segment", keys);
    });
  }

  async screws() {
    const levels = this.view.structures.all.filter((s) => s.kind === "vertebra" && s.voxels).map((s) => s.name.replace(/vertebrae?_/, ""));
    const boxes = levels.map((level) => el("label", { className: "row" }, el("input", { type: "checkbox", value: level }), level));
    if (!(await asked("Propose screws", el("div", { className: "levels" }, boxes), [["Propose", true, "main"], ["Cancel", false]]))) return;
    const chosen = boxes.map((b) => b.querySelector("input")).filter((i) => i.checked).map((i) => i.value);
    if (!chosen.length) return say("Choose at least one level.", "error");
    await this.start("screws", { levels: chosen });
  }

  async exportAsked() {
    const to = await asked("Export", "What is written can be taken under Work.", [...Object.entries(TARGETS).map(([v, t]) => [t, v]), ["Cancel", undefined]]);
    if (!to) return;
    const frame = MESHES.includes(to) ? await asked("Axes of the meshes", "Programs for printing and design take either.", AXES) : undefined;
    if (MESHES.includes(to) && !frame) return;
    await this.start("export", frame ? { to, frame } : { to });
  }

  // Writes the briefing of the plan's current revision, and opens it in a tab of its own. The tab is opened at once: browsers
  // open none for what happens seconds after a click.
  briefing() {
    const tab = window.open("about:blank", "_blank");
    if (tab) tab.document.body.textContent = "The briefing is being written.";
    return tried(async () => {
      try {
        const job = await this.finished("briefing");
        const address = this.#file(job, job.files[0].name);
        if (tab) tab.location = address;
        else say("The briefing is written: take it under Work.");
      } catch (error) {
        tab?.close();
        throw error;
      }
    });
  }

  #file = (job, name) => fileAddress(`${this.#address(job)}/files/${name.split("/").map(encodeURIComponent).join("/")}`);

  draw(page) {
    const button = (title, what, work) => el("button", { title: what, onclick: work }, title);
    page.replaceChildren(
      el("div", { className: "buttons" },
        button("Segment…", "Structures from the CT", () => this.segment()),
        button("Measure", "Volumes, heights, angles, pedicles", () => this.start("measure")),
        button("Propose screws…", "For chosen levels", () => this.screws()),
        button("Check the plan", "Clearances, flags", () => this.start("check")),
        button("Views for guidance", "C-arm angles at which the error is smallest", () => this.start("views")),
        button("Simulate", "Carry out the plan's cuts, moves, resections and implants: volumes and angles", () => this.start("simulate")),
        button("Briefing", "What the team reads before the operation, as PDF", () => this.briefing()),
        button("Export…", "For guidance, printing, archive", () => this.exportAsked())),
      ...[...this.all].reverse().map((job) => this.#row(job)));
  }

  #row(job) {
    const files = job.files ?? [];
    return el("div", { className: `card job-${job.state}` },
      el("h2", {}, WORDS[job.kind] ?? job.kind, " ", el("span", { className: `chip ${job.state}` }, job.state)),
      job.state === "running" ? el("progress", { value: job.share ?? 0, max: 1 }) : "",
      el("p", {}, job.error ?? job.text ?? ""),
      ...linesOfJob(job, (id) => this.view.plan.show(id)),
      ...(job.warnings ?? []).map((w) => el("p", { className: "warn" }, w)),
      ...(job.questions ?? []).map((q) => question(q)),
      ...files.map(({ name, bytes }) => el("a", { href: this.#file(job, name), download: name.split("/").at(-1) }, `${name} (${size(bytes)})`)),
      job.state === "broken" ? el("div", { className: "row" },
        el("button", { className: "main", onclick: () => this.#again(job) }, "Start again"),
        el("button", { onclick: () => this.#ask(() => remove(this.#address(job))) }, "Forget it")) : "",
      going(job) ? el("button", { onclick: () => tried(() => remove(`${this.view.path}/jobs/${job.job}`)) }, "Stop") : "");
  }
}
