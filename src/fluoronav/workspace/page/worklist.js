// The list of cases, with how far each is.

import { get } from "./api.js";
import { $, el, of, tried, when } from "./dom.js";

const NEXT = { arrived: "Segment it", segmented: "Review the structures, then plan", planned: "Check and approve the plan", approved: "Ready: export it" };

export async function draw(open) {
  const place = $("worklist");
  const answer = await tried(() => get("/cases"));
  if (!answer) return;
  const { cases } = answer;
  const row = (c) => el("tr", { onclick: () => open(c.name), tabIndex: 0, onkeydown: (e) => e.key === "Enter" && open(c.name), "data-case": c.name },
    el("td", {}, el("b", {}, c.name)),
    el("td", {}, el("span", { className: `chip ${c.state}` }, c.state)),
    el("td", {}, c.structures ? `${c.approved ?? 0} of ${of(c.structures, "structure")} approved` : "–"),
    el("td", {}, c.plan ? `revision ${c.plan.revision}, ${c.plan.state}` : "–"),
    el("td", {}, c.editors?.length ? c.editors.join(", ") : ""),
    el("td", {}, when(c.made)),
    el("td", { className: "next" }, NEXT[c.state] ?? ""));
  place.replaceChildren(
    el("h1", {}, "Cases"),
    cases.length
      ? el("table", {}, el("thead", {}, el("tr", {}, ["Case", "State", "Structures", "Plan", "Open by", "Last change", "Next step"].map((t) => el("th", {}, t)))), el("tbody", {}, cases.map(row)))
      : el("p", { className: "empty" }, "There are no cases yet. `fluoronav plan segment CT --out FOLDER` makes one, and `fluoronav pacs serve` receives them."));
}
