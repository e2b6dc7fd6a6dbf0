// Two revisions beside each other: where they differ, and by how much.

import { get, voxels } from "./api.js";
import { el, of, percentBelow, tried, when } from "./dom.js";
import { readable } from "./structures.js";

export class Compare {
  constructor(view) {
    this.view = view;
    this.page = el("div");
  }

  async draw(page) {
    const { revisions } = await get(`${this.view.path}/revisions`);
    const title = (r) => `Revision ${r.number}: ${r.author}, ${when(r.made)}${r.note ? ` (${r.note})` : ""}`;
    const options = () => [el("option", { value: "session" }, "My work now"), ...[...revisions].reverse().map((r) => el("option", { value: r.number }, title(r)))];
    this.a = el("select", {}, options());
    this.b = el("select", {}, options());
    if (revisions.length > 1) this.a.value = String(revisions.at(-2).number);
    else if (revisions.length) this.a.value = String(revisions[0].number);
    this.result = el("div", { className: "list" });
    page.replaceChildren(
      el("label", { className: "column" }, "A", this.a), el("label", { className: "column" }, "B", this.b),
      el("div", { className: "row" }, el("button", { className: "main", onclick: () => tried(() => this.compare()) }, "Show the difference"), el("button", { onclick: () => this.clear() }, "Clear")),
      el("p", {}, el("i", { className: "swatch", style: "background:#4d6aff" }), " only in A  ", el("i", { className: "swatch", style: "background:#ffb43c" }), " only in B  ", el("i", { className: "swatch", style: "background:#ff5ce8" }), " another structure"),
      this.result);
  }

  async compare() {
    await this.view.session.waiting;
    const query = `a=${this.a.value}&b=${this.b.value}`;
    const [{ voxels: count, structures }, { buffer }] = await Promise.all([
      get(`${this.view.path}/compare?${query}`), voxels(`${this.view.path}/compare/mask?${query}`, this.view.grid.voxels),
    ]);
    this.view.scene.difference = new Uint8Array(buffer);
    this.view.cuts.soon();
    const changed = structures.filter((s) => s.differing).sort((x, y) => y.differing - x.differing);
    const first = this.view.scene.difference.findIndex((x) => x);
    if (first >= 0) this.#show(first);
    this.result.replaceChildren(el("h3", {}, count ? `${of(count, "voxel")} differ` : "No voxel differs"),
      ...changed.map((s) => el("div", { className: "item", onclick: () => this.view.structures.choose(s.label, true) }, el("b", {}, readable(s.name)), el("span", {}, `${of(s.differing, "voxel")}, Dice ${percentBelow(s.dice)}`))));
  }

  // The slice with most differences.
  #show(first) {
    const { difference } = this.view.scene;
    const { size, steps, point } = this.view.grid;
    let best = { n: 0, at: first };
    for (let k = Math.floor(first / steps[2]); k < size[2]; k++) {
      let n = 0, at = 0;
      for (let index = k * steps[2]; index < (k + 1) * steps[2]; index++) if (difference[index]) [n, at] = [n + 1, at || index];
      if (n > best.n) best = { n, at };
    }
    const { at } = best;
    this.view.goTo(point.call(this.view.grid, [at % size[0], Math.floor((at % steps[2]) / size[0]), Math.floor(at / steps[2])]));
  }

  clear() {
    this.view.scene.difference = undefined;
    this.view.cuts.soon();
    this.result?.replaceChildren();
  }
}
