// The workspace's page: the list of cases, and one open case.

import { get } from "./api.js";
import { Compare } from "./compare.js";
import { WINDOWS } from "./cuts.js";
import { $, el, percent, say, tried } from "./dom.js";
import { help } from "./help.js";
import { Jobs } from "./jobs.js";
import { TOOLS, Tools } from "./tools.js";
import { View } from "./view.js";
import * as worklist from "./worklist.js";

let view, tools, vocabulary = [];
const TABS = ["Structures", "Plan", "Questions", "Compare", "Work"];

// For benches and tests.
export const workspace = (window.fluoronavWorkspace = { get view() { return view; }, get tools() { return tools; } });

async function start() {
  const me = await tried(() => get("/me"));
  if (!me) return;
  $("user").textContent = me.user;
  vocabulary = (await tried(() => get("/vocabulary"))) ?? [];
  const name = decodeURIComponent(location.hash.slice(1));
  if (name) await open(name);
  else await list();
}

async function list() {
  view?.end();
  view = undefined;
  delete document.body.dataset.ready;
  for (const id of ["case", "undo", "redo", "save", "unsaved", "case-name", "case-state", "progress", "home"]) $(id).hidden = true;
  for (const id of ["editors", "hover", "hint"]) $(id).textContent = "";
  history.replaceState(null, "", location.pathname + location.search);
  $("worklist").hidden = false;
  await worklist.draw(open);
}

async function open(name) {
  $("worklist").hidden = true;
  for (const id of ["case", "undo", "redo", "save", "unsaved", "case-name", "home"]) $(id).hidden = false;
  $("case-name").textContent = name;
  location.hash = encodeURIComponent(name);
  const opening = el("div", { className: "opening" }, "Opening…");
  $("case").append(opening);
  view = new View(name);
  tools = new Tools(view);
  new Jobs(view);
  panel();
  const done = await tried(async () => {
    await view.open((share) => (opening.textContent = `Loading the CT: ${percent(share)}`));
    return true;
  });
  opening.remove();
  if (!done) return list();
  if (view.info.warnings?.length) say(view.info.warnings.join("\n"), "error");
  tools.draw();
  select(view.info.newest ? "Structures" : "Work");
  view.jobs.take(view.info.jobs ?? []);
  view.ready = true;
  document.body.dataset.ready = name;
}

function panel() {
  const pages = new Map(TABS.map((name) => [name, el("div", { className: "page", "data-page": name })]));
  $("pages").replaceChildren(...pages.values());
  $("tabs").replaceChildren(...TABS.map((name) => el("button", { role: "tab", "data-tab": name, onclick: () => select(name) }, name)));
  const compare = new Compare(view);
  let asked = false, held = false;
  // A panel is not drawn anew under a pointer that is pressed: the button that it is on would be gone, and the click lost.
  $("pages").onpointerdown = () => {
    held = true;
    const released = () => setTimeout(() => {
      held = false;
      if (asked) draw();
    });
    window.addEventListener("pointerup", released, { once: true });
    window.addEventListener("pointercancel", released, { once: true });
  };
  const draw = () => {
    if (held) return;
    asked = false;
    if (!view?.plan) return;
    const page = pages.get(view.tab);
    if (view.tab === "Structures") view.structures.draw(page, vocabulary);
    if (view.tab === "Plan") view.plan.draw(page);
    if (view.tab === "Questions") view.plan.drawQuestions(page);
    if (view.tab === "Work") view.jobs.draw(page);
    const open = view.plan.open().length + (view.info.questions ?? []).length;
    document.querySelector('[data-tab="Questions"]').textContent = open ? `Questions (${open})` : "Questions";
    $("case-state").hidden = false;
    $("case-state").textContent = view.plan.plan ? `plan ${view.plan.plan.state}` : view.info.state;
    $("case-state").className = `chip ${view.plan.plan?.state ?? view.info.state}`;
    const chosen = document.querySelector("#tools .active");
    if (chosen && chosen.textContent !== tools.name) tools.draw();
  };
  view.listeners.add(() => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(draw);
  });
  view.select = (name) => {
    view.tab = name;
    for (const tab of $("tabs").children) tab.setAttribute("aria-selected", String(tab.dataset.tab === name));
    for (const [key, page] of pages) page.hidden = key !== name;
    if (name === "Compare") tried(() => compare.draw(pages.get(name)));
    else view.tell();
  };
}

const select = (name) => view.select(name);

$("home").onclick = async () => {
  if (view?.session?.pending) return say("A stroke is still being sent. Wait a moment.");
  await list();
};
$("undo").onclick = () => view.undo();
$("redo").onclick = () => view.redo();
$("save").onclick = () => view.save();
$("help").onclick = help;

// A stroke that was not sent is lost when the page closes; saved or not, all others are kept by the server.
window.addEventListener("beforeunload", (event) => view?.session?.pending && event.preventDefault());

const hovered = () => view.scene.pointer?.cut ?? view.cuts.cuts[0];
const PLAIN = {
  "[": () => tools.resize(1 / 1.25), "]": () => tools.resize(1.25), b: () => tools.set("ball", !tools.settings.ball), i: () => tools.ready() && tools.interpolate(),
  " ": () => toggle("structures"), x: () => toggle("cross"), w: () => nextWindow(), 0: () => view.cuts.reset(), "?": help,
  ArrowUp: () => view.cuts.scroll(hovered(), -hovered().onwards), ArrowDown: () => view.cuts.scroll(hovered(), hovered().onwards),
  Escape: () => tools.choose("look"),
  ...Object.fromEntries(TOOLS.map(([name, , key]) => [key, () => tools.choose(name)])),
};
const WITH_CTRL = { z: () => view.undo(), y: () => view.redo(), Z: () => view.redo(), s: () => view.save() };

function toggle(layer) {
  view.scene.layers[layer] = !view.scene.layers[layer];
  view.repaint();
  tools.draw();
}

function nextWindow() {
  const all = Object.values(WINDOWS);
  const now = all.findIndex(([centre, width]) => centre === view.scene.window[0] && width === view.scene.window[1]);
  view.cuts.setWindow(all[(now + 1) % all.length]);
}

document.addEventListener("keydown", (event) => {
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range" && event.target.type !== "checkbox") return;
  if (!view?.ready || document.querySelector("dialog[open]")) return;
  const work = (event.ctrlKey || event.metaKey ? WITH_CTRL : PLAIN)[event.key];
  if (!work) return;
  event.preventDefault();
  work();
});

start();
