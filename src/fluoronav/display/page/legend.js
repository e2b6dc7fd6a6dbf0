// What the lines over the picture mean: what is shown now, and nothing else.

import { PLAN_COLOUR, SHAFT_COLOUR } from "./constants.js";
import { STYLES } from "./meanings.js";
import { text } from "./strings.js";

const SVG = "http://www.w3.org/2000/svg";
const WAYS = {
  ...STYLES,
  plan: { colour: PLAN_COLOUR, width: 3, dash: [14, 8] },
  instrument: { colour: SHAFT_COLOUR, width: 4, dash: [] },
};

export class Legend {
  constructor(box) {
    this.element = document.createElement("ul");
    this.element.id = "legend";
    this.element.hidden = true;
    this.key = "";
    box.append(this.element);
  }

  // `overlay` is what is drawn, or null; `layers` say which parts of it, and what they mean.
  show(overlay, layers) {
    const { on, meanings } = layers;
    const kinds = new Set(overlay?.outlines.map((o) => meanings.of(o.structure)).filter((kind) => on[kind === "no_go" ? "no_go" : "outlines"]));
    if (on.plan && overlay?.plan.some((p) => p.target_px)) kinds.add("plan");
    if (on.instruments && overlay?.instruments.some((i) => i.tip_px)) kinds.add("instrument");
    const key = on.labels ? Object.keys(WAYS).filter((kind) => kinds.has(kind)).join(" ") : "";
    if (key === this.key) return;
    this.key = key;
    this.element.hidden = !key;
    this.element.replaceChildren(...key.split(" ").filter(Boolean).map((kind) => line(kind)));
  }
}

function line(kind) {
  const { colour, width, dash, hatched } = WAYS[kind];
  const item = document.createElement("li"), sample = document.createElementNS(SVG, "svg");
  sample.setAttribute("viewBox", "0 0 48 20");
  const add = (name, attributes) => {
    const part = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
    sample.append(part);
  };
  const stroke = { stroke: colour, "stroke-width": width, "stroke-dasharray": dash.join(" "), fill: "none" };
  if (hatched) {
    add("rect", { x: 3, y: 2, width: 42, height: 16, ...stroke });
    for (const x of [6, 16, 26, 36]) add("path", { d: `M${x} 17l8 -14`, ...stroke, "stroke-width": 1.5 });
  } else add("path", { d: "M2 10H46", ...stroke });
  item.append(sample, text.legend[kind]);
  return item;
}
