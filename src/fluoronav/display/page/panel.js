// The side panel over the middle column: menu, log, registration, questions; one at a time, and it blocks nothing.

import { text } from "./strings.js";

const find = (id) => document.getElementById(id);

export class Panel {
  constructor() {
    this.shown = "";
    this.closed = this.opened = () => {}; // called with the name of a section that is closed, or opened
    find("panel-close").textContent = text.close;
    find("panel-close").onclick = () => this.open("");
    find("tool-menu").textContent = text.tools.menu;
    find("tool-menu").onclick = () => this.open(this.shown === "menu" ? "" : "menu");
  }

  // Shows one section of the panel; an empty name closes it.
  open(name) {
    const before = this.shown;
    this.shown = name;
    for (const section of find("panel-body").children) section.hidden = section.id !== name;
    find("panel").hidden = !name;
    find("panel").querySelector("h2").textContent = name ? text.panel[name] : "";
    find("tool-menu").setAttribute("aria-pressed", name === "menu");
    if (before && before !== name) this.closed(before);
    if (name && before !== name) this.opened(name);
  }
}
