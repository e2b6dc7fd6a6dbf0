// The bottom bar with its sheets, the presets of the middle column, keys.

import { button, group, holdButton, opener, selection, sheet, slider } from "./bar.js";
import { FLICKER_MS } from "./constants.js";
import { addMenu } from "./menu.js";
import { Registering } from "./register.js";
import { text } from "./strings.js";
import { addViewControls } from "./view_controls.js";

const find = (id) => document.getElementById(id);
const KEYS = {
  o: "outlines", n: "no_go", p: "plan", i: "instruments", " ": "freeze", m: "measure", a: "angle", s: "screenshot", l: "log",
  d: "drr", f: "flicker", 3: "space",
};
const PRESETS = ["other", "space", "probe", "slices"];

export function addControls(app) {
  addPresets(app);
  const groups = Object.fromEntries(Object.keys(text.groups).map((name) => [name, group(name)]));
  addView(app, groups.view);
  const back = addHistory(app, groups.freeze);
  addMeasuring(app, groups.measure);
  const offerPlan = addPlan(app, groups.plan);
  const registering = addRegistration(app, groups.registration);
  const sound = find("tool-sound");
  sound.textContent = text.tools.sound;
  sound.onclick = () => app.alarms.pause();
  find("more").onclick = () => app.panel.open("log");
  const offers = addMenu(app);
  app.view.follow(app.state, (at) => registering.touched(at) || touch(app, at));
  followKeys(app, back);
  addEventListener("resize", () => (app.state.redraw = true));
  return { ...offers, offerPlan, registering };
}

// What the middle column shows.
function addPresets(app) {
  const { space } = app;
  const choose = (name) => {
    for (const one of PRESETS) find(`tool-${one}`).setAttribute("aria-pressed", one === name);
    find("space").dataset.preset = space.preset = name;
    space.shown = true;
    app.panel.open("");
  };
  for (const name of PRESETS) button(app, find("presets"), name, () => choose(name), false);
  choose("space");
  find("along-beam").textContent = text.alongBeam;
  find("along-beam").onclick = () => space.scene?.look_along_beam();
}

function addView(app, bar) {
  const { state, layers, picture } = app;
  const layered = sheet("layers");
  opener(app, bar, "layers", layered);
  for (const name of ["outlines", "no_go", "plan", "instruments"]) button(app, layered, name, (on) => (layers.on[name] = on), true);
  button(app, layered, "loupe", (on) => (state.loupe = on), true);
  const windowed = sheet("window");
  opener(app, bar, "windowing", windowed);
  button(app, windowed, "window", () => (picture.window = null));
  addViewControls(app, layered, windowed);
  addDrr(app, bar);
}

// The DRR over the frame: its opacity, and flickering between the two.
function addDrr(app, bar) {
  const { space } = app;
  const drr = () => find("drr"); // another case replaces the canvas
  const pane = sheet("drr");
  drr().style.opacity = 0.5;
  const switched = button(app, bar, "drr", (on) => {
    space.drr_on = space.drr_new = on;
    space.next = 0; // at once: where there is no GPU, the next turn may be two seconds away
    drr().hidden = true;
    pane.hidden = !on;
  }, false);
  app.blend = (on) => (switched.getAttribute("aria-pressed") === "true") !== on && switched.click();
  slider(pane, "blend", 0, 100, 50, (percent) => (drr().style.opacity = percent / 100));
  let flickering = 0;
  button(app, pane, "flicker", (on) => {
    clearInterval(flickering);
    drr().style.visibility = "";
    if (on) flickering = setInterval(() => (drr().style.visibility = drr().style.visibility ? "" : "hidden"), FLICKER_MS);
  }, false);
}

// Freezing, and stepping back through the last half minute; returns what steps.
function addHistory(app, bar) {
  const { state, history, showMoment } = app;
  const pane = sheet("back");
  const freeze = button(app, bar, "freeze", (on) => {
    app.freeze(on);
    pane.hidden = !on;
    input.max = Math.max(history.moments.length - 1, 0);
    input.value = input.max;
  }, false);
  const input = slider(pane, "back", 0, 0, 0, showMoment);
  // A step freezes first.
  const step = (by) => {
    if (!state.frozen) freeze.click();
    input.value = Number(input.value) + by;
    showMoment(Number(input.value));
  };
  button(app, bar, "earlier", () => step(-1));
  button(app, bar, "later", () => state.frozen && step(1));
  return step;
}

function addMeasuring(app, bar) {
  const { state, layers } = app;
  for (const [name, other, points] of [["measure", "angle", 2], ["angle", "measure", 3]])
    button(app, bar, name, (on) => {
      state.measuring = on ? points : 0;
      layers.measure = [];
      if (on) find(`tool-${other}`).setAttribute("aria-pressed", "false");
    }, false);
  addMarking(app, bar);
}

// A touched place of the picture, in pixels of the frame: a point of what is measured.
function touch({ state, layers }, at) {
  if (!state.measuring) return false;
  layers.measure = layers.measure.length < state.measuring ? [...layers.measure, at] : [at];
  state.redraw = true;
  return true;
}

// A mark is of the frame that is shown when the button is pressed; a note may follow, and stops no picture meanwhile.
function addMarking(app, bar) {
  const { state, request, say, warn } = app;
  const pane = sheet("mark");
  const note = document.createElement("input");
  [note.type, note.id, note.className, note.placeholder, note.maxLength] = ["text", "mark-note", "control", text.askMark, 200];
  note.setAttribute("aria-label", text.askMark);
  pane.append(note);
  let seq = 0;
  const mark = async (words) => {
    const { ok, result } = (await request("moment.mark", { seq, text: words })) ?? {};
    if (!ok) return;
    if (!result.heard) warn(text.markedAlone);
    else if (result.why) warn(text.notKept(result.why));
    else say(result.objects ? text.marked : text.markTaken);
    pane.hidden = Boolean(words);
  };
  button(app, bar, "mark", () => {
    seq = state.shown?.seq ?? 0;
    note.value = "";
    mark("");
  }).classList.add("control");
  note.onkeydown = (event) => {
    if (event.key === "Enter" && note.value.trim()) mark(note.value.trim());
    else if (event.key === "Escape" || event.key === "Enter") pane.hidden = true;
  };
}

// The planned path, with the diameter and length of what goes into it; returns what the case changes in it.
function addPlan(app, bar) {
  const { state, space, request } = app;
  const paths = selection(bar, "trajectory");
  paths.onchange = async () => {
    const names = paths.value ? [paths.value] : state.plan;
    const reply = await request("plan.set", { trajectories: names });
    if (reply?.ok) space.choose(names);
  };
  return (plan) => {
    const option = (t) => new Option(text.path(t), t.name);
    paths.replaceChildren(new Option(text.allPaths, ""), ...plan.map(option));
    paths.disabled = plan.length < 2;
    if (plan.length === 1) paths.value = plan[0].name;
  };
}

function addRegistration(app, bar) {
  const { panel, request } = app;
  const registering = new Registering(app);
  button(app, bar, "check", () => panel.open(panel.shown === "register" ? "" : "register")).classList.add("control");
  holdButton(app, bar, "restart", () => request("registration.start", {})).classList.add("control");
  return registering;
}

function followKeys({ state }, step) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.target.closest?.("input, select, .hold")) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const name = KEYS[event.key];
    if (by && state.frozen) step(by);
    else if (name) {
      event.preventDefault();
      find(`tool-${name}`).click();
    }
  });
}
