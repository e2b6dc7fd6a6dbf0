// What is rare: case, record, mode, user, log, screenshot; each a line of the menu in the side panel.

import { button, selection } from "./bar.js";
import { recordingAsked } from "./recording.js";
import { text } from "./strings.js";

const find = (id) => document.getElementById(id);

// Returns what the pipeline's state changes in the menu.
export function addMenu(app) {
  const { state, request, ask, panel } = app;
  const menu = find("menu");
  const record = button(app, menu, "record", async () => {
    const on = !state.recording;
    const reply = await request(on ? "record.start" : "record.stop", {});
    if (reply?.ok) recordingAsked(on);
  });
  const cases = selection(menu, "case");
  cases.hidden = true;
  cases.onchange = async () => {
    const name = cases.value;
    cases.value = ""; // the heading again: the loaded case is named at the top of the page
    if (name && (await ask({ words: text.askCase(name), yes: text.load }))) await request("case.load", { case: name });
  };
  const mode = button(app, menu, "mode", async () => {
    const wanted = state.mode === "shadow" ? "live" : "shadow";
    if (await ask({ words: text.askMode(wanted), yes: text.modeYes[wanted] })) request("mode.set", { mode: wanted });
  });
  const user = button(app, menu, "user", () => app.user.change());
  for (const element of [record, mode, user]) element.classList.add("control");
  button(app, menu, "log", () => panel.open("log"));
  button(app, menu, "screenshot", () => screenshot(app));
  plannedViews(app, menu);
  const fill = (element, heading, names) =>
    element.replaceChildren(new Option(heading, ""), ...names.map((name) => new Option(name, name)));
  return {
    recording(path) {
      record.textContent = path ? text.tools.recording : text.tools.record;
      find("rec").hidden = !path;
      record.title = path;
    },
    offerCases(names) {
      fill(cases, text.tools.case, names);
      cases.hidden = !names.length;
    },
  };
}

// The C-arm views of the approved plan, by screw or path: where to turn the arm. Asked for when the menu is opened.
function plannedViews({ state }, menu) {
  const list = menu.appendChild(document.createElement("dl"));
  list.id = "planned-views";
  list.hidden = true;
  find("tool-menu").addEventListener("click", async () => {
    const head = await fetch("/case").then((reply) => (reply.ok ? reply.json() : null)).catch(() => null);
    const views = head?.case === state.running ? (head.views ?? []) : [];
    const made = (tag, words) => Object.assign(document.createElement(tag), { textContent: words });
    const items = [...new Set(views.map((v) => v.item))];
    list.hidden = !items.length;
    list.replaceChildren(made("dt", text.plannedViews), ...items.map((item) => made("dd", text.viewsOf(item, views.filter((v) => v.item === item)))));
  });
}

function screenshot({ state }) {
  const canvas = document.createElement("canvas");
  const from = find("picture"), drr = find("drr");
  [canvas.width, canvas.height] = [from.width, from.height];
  const c = canvas.getContext("2d");
  c.drawImage(from, 0, 0);
  if (!drr.hidden) {
    c.globalAlpha = Number(drr.style.opacity);
    c.drawImage(drr, 0, 0, canvas.width, canvas.height);
    c.globalAlpha = 1;
  }
  c.drawImage(find("layers"), 0, 0);
  const link = document.createElement("a");
  link.download = `fluoronav-${state.shown?.seq ?? 0}.png`;
  link.href = canvas.toDataURL("image/png");
  link.click();
}
