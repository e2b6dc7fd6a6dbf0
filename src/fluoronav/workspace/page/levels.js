// Which level a vertebra is: the question with its evidence, the answer, and the way back.

import { post } from "./api.js";
import { el, say, tried } from "./dom.js";

const SPINE = [..."1234567"].map((n) => `C${n}`).concat(Array.from({ length: 12 }, (_, k) => `T${k + 1}`), Array.from({ length: 6 }, (_, k) => `L${k + 1}`));
const levelIn = (name) => /^vertebrae_([CTL]\d+)$/.exec(name)?.[1];
const COLOUR = "#ffd23f";

export class Levels {
  constructor(view) {
    this.view = view;
    this.middles = undefined; // of the vertebrae, while their names are drawn
  }

  // Vertebrae that are there, from head to feet.
  get vertebrae() {
    return this.view.structures.all.map((s) => ({ ...s, level: levelIn(s.name) })).filter((s) => s.voxels && SPINE.includes(s.level)).sort((a, b) => SPINE.indexOf(a.level) - SPINE.indexOf(b.level));
  }

  get open() {
    return (this.view.info.questions ?? []).filter((q) => q.key === "level");
  }

  async answer(drafted, level) {
    await this.#changed("levels", { drafted, true: level }, drafted === level ? `${drafted} is right.` : `What was drafted as ${drafted} is ${level}. All levels have moved with it.`);
  }

  async back() {
    await this.#changed("levels/back", {}, "The levels are as they were.");
  }

  async #changed(path, body, text) {
    const { view } = this;
    if (view.session.state?.unsaved) return say("Save your edits first: the levels of a revision are moved.", "error");
    if (this.busy) return;
    this.busy = true;
    view.saving = true; // its own revision is not somebody else's
    view.tell();
    await tried(async () => {
      const done = await post(`${view.path}/${path}`, { revision: view.info.newest, ...body });
      await view.session.open();
      this.middles = undefined;
      await view.refresh();
      view.repaint();
      say([`${text} This is revision ${done.revision}.`, ...done.notes].join("\n"));
    });
    this.busy = view.saving = false;
    view.tell();
  }

  // Names of the vertebrae as marks in the cuts, each at its middle.
  marks() {
    if (!this.middles) return [];
    return this.vertebrae.map(({ label, level }) => ({ id: `level-${label}`, points: [this.middles.get(label)], colour: COLOUR, text: level, everywhere: true })).filter((m) => m.points[0]);
  }

  toggleNames() {
    this.middles = this.middles ? undefined : this.#found();
    this.view.cuts.soon();
    this.view.tell();
  }

  // Middles of the vertebrae, LPS mm.
  #found() {
    const { grid, session } = this.view;
    const [nx, , nz] = grid.size;
    const sums = new Map(this.vertebrae.map((s) => [s.label, [0, 0, 0, 0]]));
    for (let k = 0; k < nz; k++)
      for (let at = k * grid.steps[2], end = at + grid.steps[2]; at < end; at++) {
        const sum = session.labels[at] && sums.get(session.labels[at]);
        if (!sum) continue;
        sum[0]++;
        sum[1] += at % nx;
        sum[2] += Math.floor((at % grid.steps[2]) / nx);
        sum[3] += k;
      }
    return new Map([...sums].filter(([, s]) => s[0]).map(([label, [n, x, y, z]]) => [label, grid.point([x / n, y / n, z / n])]));
  }

  // The cards of the page Questions.
  cards() {
    const all = this.vertebrae;
    if (!all.length) return [];
    return [...this.open.map((q) => this.#question(q)), this.#spine(all)];
  }

  #names() {
    return el("button", { "aria-pressed": String(Boolean(this.middles)), title: "The name of each vertebra, in the cuts", onclick: () => this.toggleNames() }, this.middles ? "Hide the names" : "Name the vertebrae");
  }

  #question(q) {
    const [drafted] = q.choices;
    const place = q.points_ct?.[0];
    return el("div", { className: "card question", "data-question": "level" },
      el("h2", {}, "Which vertebra is this?"),
      el("p", {}, q.text),
      el("ul", {}, q.evidence.split("; ").map((line) => el("li", {}, line))),
      el("p", {}, "Count from a vertebra that you know, such as the first without ribs or the one on the sacrum. All levels move together, and the move can be taken back."),
      el("div", { className: "row" }, place ? el("button", { onclick: () => this.view.goTo(place) }, "Show the place") : "", this.#names()),
      el("div", { className: "row" }, q.choices.map((level) => el("button", { className: level === drafted ? "good" : "", disabled: this.busy, "data-level": level, onclick: () => this.answer(drafted, level) }, level === drafted ? `✓ It is ${level}, as drafted` : `It is ${level}`))));
  }

  #spine(all) {
    const shown = all.find((s) => s.label === this.view.structures.chosen) ?? all[Math.floor(all.length / 2)];
    const other = (by) => SPINE[SPINE.indexOf(shown.level) + by];
    const move = (by, words) => other(by) ? el("button", { disabled: this.busy, "data-move": by, title: `All vertebrae, ribs and screws move one level ${words}; voxels stay`, onclick: () => this.answer(shown.level, other(by)) }, `${shown.level} is ${other(by)}`) : "";
    return el("div", { className: "card" },
      el("h2", {}, "Levels of the spine"),
      el("p", {}, `${all.length} vertebrae are drawn, ${all[0].level} to ${all.at(-1).level}. Where the count is wrong, say what ${shown.level} is: all move together.`),
      el("div", { className: "row" }, move(-1, "up"), move(1, "down"), this.open.length ? "" : this.#names(),
        this.view.info.can_move_back ? el("button", { id: "levels-back", disabled: this.busy, onclick: () => this.back() }, "↶ Take the move back") : ""));
  }
}
