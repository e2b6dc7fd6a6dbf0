// Buttons, keys and pointers.

import { FLICKER_MS } from "./constants.js";
import { text } from "./strings.js";

const find = (id) => document.getElementById(id);
const KEYS = {
  o: "outlines", n: "no_go", p: "plan", i: "instruments", " ": "freeze", m: "measure", a: "angle", s: "screenshot", l: "log",
  d: "drr", f: "flicker", 3: "space",
};

export function addControls(app) {
  addLayers(app);
  addSpace(app);
  addDrr(app);
  const back = addHistory(app);
  addMeasuring(app);
  button(app, "window", () => (app.picture.window = null));
  button(app, "screenshot", () => screenshot(app));
  button(app, "sound", () => app.alarms.pause());
  button(app, "log", () => find("log").showModal());
  addDecisions(app);
  const offers = addChoices(app);
  find("log").querySelector("h2").textContent = text.tools.log;
  find("log").querySelector("button").textContent = text.close;
  followPointer(app);
  followKeys(app, back);
  addEventListener("resize", () => (app.state.redraw = true));
  return offers;
}

function button({ state }, name, action, pressed) {
  const element = document.createElement("button");
  element.textContent = text.tools[name];
  element.id = `tool-${name}`;
  if (pressed !== undefined) element.setAttribute("aria-pressed", pressed);
  element.onclick = () => {
    const now = element.getAttribute("aria-pressed");
    if (now !== null) element.setAttribute("aria-pressed", now !== "true");
    action(now !== "true");
    state.redraw = true;
  };
  find("tools").append(element);
  return element;
}

function slider(name, low, high, value, action) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  [input.type, input.min, input.max, input.value, input.id] = ["range", low, high, value, `slider-${name}`];
  input.oninput = () => action(Number(input.value));
  label.append(text.tools[name], input);
  label.hidden = true;
  find("tools").append(label);
  return { label, input };
}

function selection(name) {
  const element = document.createElement("select");
  [element.id, element.className] = [`tool-${name}`, "control"];
  element.setAttribute("aria-label", text.tools[name]);
  find("tools").append(element);
  return element;
}

function addLayers(app) {
  const { state, layers } = app;
  for (const name of ["outlines", "no_go", "plan", "instruments"]) button(app, name, (on) => (layers.on[name] = on), true);
  button(app, "loupe", (on) => (state.loupe = on), true);
}

function addSpace(app) {
  const { space } = app;
  const wide = innerWidth >= 1600 && innerWidth > 1.6 * innerHeight; // on a small screen the picture gets all the room
  const show = (on) => {
    space.shown = on;
    find("space").hidden = !on;
  };
  button(app, "space", show, wide);
  show(wide);
  find("along-beam").textContent = text.alongBeam;
  find("along-beam").onclick = () => space.scene?.look_along_beam();
}

// The DRR over the frame: its opacity, and flickering between the two.
function addDrr(app) {
  const { space } = app;
  const drr = () => find("drr"); // another case replaces the canvas
  drr().style.opacity = 0.5;
  button(app, "drr", (on) => {
    space.drr_on = space.drr_new = on;
    drr().hidden = true;
    blend.label.hidden = flicker.hidden = !on;
  }, false);
  const blend = slider("blend", 0, 100, 50, (percent) => (drr().style.opacity = percent / 100));
  let flickering = 0;
  const flicker = button(app, "flicker", (on) => {
    clearInterval(flickering);
    drr().style.visibility = "";
    if (on) flickering = setInterval(() => (drr().style.visibility = drr().style.visibility ? "" : "hidden"), FLICKER_MS);
  }, false);
  flicker.hidden = true;
}

// Freezing, and stepping back through the last half minute; returns the slider's input.
function addHistory(app) {
  const { state, history, showMoment } = app;
  button(app, "freeze", (on) => {
    state.frozen = on;
    state.moment = null;
    back.label.hidden = !on;
    back.input.max = Math.max(history.moments.length - 1, 0);
    back.input.value = back.input.max;
  }, false);
  const back = slider("back", 0, 0, 0, showMoment);
  return back.input;
}

function addMeasuring(app) {
  const { state, layers } = app;
  for (const [name, other, points] of [["measure", "angle", 2], ["angle", "measure", 3]])
    button(app, name, (on) => {
      state.measuring = on ? points : 0;
      layers.measure = [];
      if (on) find(`tool-${other}`).setAttribute("aria-pressed", "false");
    }, false);
}

// Requests to the pipeline, for screens that control.
function addDecisions(app) {
  const { state, request, say } = app;
  for (const [name, op] of [["restart", "registration.start"], ["accept", "registration.accept"], ["reject", "registration.reject"]])
    button(app, name, async () => {
      const reply = await request(op, {});
      if (reply?.ok && name === "accept") say(text.accepted);
    }).classList.add("control");
  button(app, "mode", () => {
    const mode = state.mode === "shadow" ? "live" : "shadow";
    if (confirm(text.askMode(mode))) request("mode.set", { mode });
  }).classList.add("control");
  addMarking(app);
}

// A mark is of the frame that is shown when the button is pressed; a note may follow, and stops no picture meanwhile.
function addMarking(app) {
  const { state, request, say, warn } = app;
  const note = document.createElement("input");
  [note.id, note.className, note.placeholder, note.maxLength, note.hidden] = ["mark-note", "control", text.askMark, 200, true];
  note.setAttribute("aria-label", text.askMark);
  let seq = 0;
  const mark = async (words) => {
    const { ok, result } = (await request("moment.mark", { seq, text: words })) ?? {};
    if (!ok) return;
    if (!result.heard) warn(text.markedAlone);
    else if (result.why) warn(text.notKept(result.why));
    else say(result.objects ? text.marked : text.markTaken);
    note.hidden = Boolean(words);
  };
  button(app, "mark", () => {
    seq = state.shown?.seq ?? 0;
    note.value = "";
    mark("");
  }).classList.add("control");
  note.onkeydown = (event) => {
    if (event.key === "Enter" && note.value.trim()) mark(note.value.trim());
    else if (event.key === "Escape" || event.key === "Enter") note.hidden = true;
  };
  find("tools").append(note);
}

// Recording, the case and the planned path; returns what the pipeline's state changes in them.
function addChoices(app) {
  const { state, space, request } = app;
  const record = button(app, "record", () => request(state.recording ? "record.stop" : "record.start", {}));
  record.classList.add("control");
  const cases = selection("case");
  cases.hidden = true;
  cases.onchange = async () => {
    const name = cases.value;
    cases.value = ""; // the heading again: the loaded case is named at the top of the page
    if (name && confirm(text.askCase(name))) await request("case.load", { case: name });
  };
  const paths = selection("trajectory");
  paths.onchange = async () => {
    const names = paths.value ? [paths.value] : state.plan;
    const reply = await request("plan.set", { trajectories: names });
    if (reply?.ok) space.choose(names);
  };
  const fill = (element, heading, names) =>
    element.replaceChildren(new Option(heading, ""), ...names.map((name) => new Option(name, name)));
  return {
    recording(path) {
      record.textContent = path ? text.tools.recording : text.tools.record;
      record.classList.toggle("recording", Boolean(path));
      record.title = path;
    },
    offerCases(names) {
      fill(cases, text.tools.case, names);
      cases.hidden = !names.length;
    },
    offerPlan(names) {
      fill(paths, text.allPaths, names);
      paths.hidden = names.length < 2;
    },
  };
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

// Sets points to measure; otherwise a drag changes the window.
function followPointer({ state, layers, picture }) {
  let held = null;
  find("view").addEventListener("pointerdown", (event) => {
    held = [event.clientX, event.clientY];
    if (!state.measuring || !state.shown) return;
    const box = find("layers").getBoundingClientRect();
    const at = [((event.clientX - box.left) / box.width) * state.shown.cols - 0.5, ((event.clientY - box.top) / box.height) * state.shown.rows - 0.5];
    layers.measure = layers.measure.length < state.measuring ? [...layers.measure, at] : [at];
    state.redraw = true;
  });
  addEventListener("pointerup", () => (held = null));
  addEventListener("pointermove", (event) => {
    if (!held || state.measuring) return;
    picture.drag(event.clientX - held[0], event.clientY - held[1]);
    held = [event.clientX, event.clientY];
    state.redraw = true;
  });
}

function followKeys({ state, showMoment }, back) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.target.closest?.("input, select, dialog")) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const name = KEYS[event.key];
    if (step && state.frozen) {
      back.value = Number(back.value) + step;
      showMoment(Number(back.value));
    } else if (name) {
      event.preventDefault();
      const element = find(`tool-${name}`);
      if (!element.hidden) element.click();
    }
  });
}
