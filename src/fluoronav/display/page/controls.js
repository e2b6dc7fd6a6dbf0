// Buttons, keys and fingers.

import { text } from "./strings.js";

const find = (id) => document.getElementById(id);
const FLICKER_MS = 400;

export function addControls(app) {
  const { state, layers, picture, alarms, space, history, request, say, showMoment } = app;

  function button(name, action, pressed) {
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

  for (const name of ["outlines", "no_go", "plan", "instruments"]) button(name, (on) => (layers.on[name] = on), true);
  button("loupe", (on) => (state.loupe = on), true);
  const wide = innerWidth >= 1600 && innerWidth > 1.6 * innerHeight; // a small screen is the picture's
  const showSpace = (on) => {
    space.shown = on;
    find("space").hidden = !on;
  };
  button("space", showSpace, wide);
  showSpace(wide);
  find("along-beam").textContent = text.alongBeam;
  find("along-beam").onclick = () => space.scene?.look_along_beam();

  // The DRR over the frame: how much of it, and flickering between the two.
  const drr = () => find("drr"); // another case brings another canvas
  drr().style.opacity = 0.5;
  button("drr", (on) => {
    space.drr_on = space.drr_new = on;
    drr().hidden = true;
    blend.label.hidden = flicker.hidden = !on;
  }, false);
  const blend = slider("blend", 0, 100, 50, (share) => (drr().style.opacity = share / 100));
  let flickering = 0;
  const flicker = button("flicker", (on) => {
    clearInterval(flickering);
    drr().style.visibility = "";
    if (on) flickering = setInterval(() => (drr().style.visibility = drr().style.visibility ? "" : "hidden"), FLICKER_MS);
  }, false);
  flicker.hidden = true;

  // Freezing, and stepping back through the last half minute.
  button("freeze", (on) => {
    state.frozen = on;
    state.moment = null;
    back.label.hidden = !on;
    back.input.max = Math.max(history.moments.length - 1, 0);
    back.input.value = back.input.max;
  }, false);
  const back = slider("back", 0, 0, 0, showMoment);

  function measure(name, points) {
    button(name, (on) => {
      state.measuring = on ? points : 0;
      layers.measure = [];
      const other = find(`tool-${name === "measure" ? "angle" : "measure"}`);
      if (on) other.setAttribute("aria-pressed", "false");
    }, false);
  }
  measure("measure", 2);
  measure("angle", 3);
  button("window", () => (picture.window = null));
  button("screenshot", screenshot);
  button("sound", () => alarms.pause());
  button("log", () => find("log").showModal());

  // What changes the pipeline: for whoever controls.
  for (const [name, op] of [["restart", "registration.start"], ["accept", "registration.accept"], ["reject", "registration.reject"]])
    button(name, async () => {
      const reply = await request(op, {});
      if (reply?.ok && name === "accept") say(text.accepted);
    }).classList.add("control");
  button("mode", () => {
    const mode = state.mode === "shadow" ? "live" : "shadow";
    if (confirm(text.askMode(mode))) request("mode.set", { mode });
  }).classList.add("control");
  button("mark", async () => {
    const reply = await request("moment.mark", { seq: state.shown?.seq ?? 0, text: (prompt(text.askMark) ?? "").slice(0, 200) });
    if (reply?.ok) say(text.marked);
  }).classList.add("control");
  const record = button("record", () => request(state.recording ? "record.stop" : "record.start", {}));
  record.classList.add("control");
  const cases = document.createElement("select");
  [cases.id, cases.className, cases.hidden] = ["tool-case", "control", true];
  cases.setAttribute("aria-label", text.tools.case);
  cases.onchange = async () => {
    const name = cases.value;
    cases.value = ""; // the heading again: what is loaded stands at the top of the page
    if (name && confirm(text.askCase(name))) await request("case.load", { case: name });
  };
  find("tools").append(cases);
  const choice = document.createElement("select");
  choice.id = "tool-trajectory";
  choice.className = "control";
  choice.setAttribute("aria-label", text.tools.trajectory);
  choice.onchange = async () => {
    const names = choice.value ? [choice.value] : state.plan;
    const reply = await request("plan.set", { trajectories: names });
    if (reply?.ok) space.choose(names);
  };
  find("tools").append(choice);

  find("log").querySelector("h2").textContent = text.tools.log;
  find("log").querySelector("button").textContent = text.close;

  function screenshot() {
    const canvas = document.createElement("canvas");
    const from = find("picture");
    [canvas.width, canvas.height] = [from.width, from.height];
    const c = canvas.getContext("2d");
    c.drawImage(from, 0, 0);
    if (!drr().hidden) {
      c.globalAlpha = Number(drr().style.opacity);
      c.drawImage(drr(), 0, 0, canvas.width, canvas.height);
      c.globalAlpha = 1;
    }
    c.drawImage(find("layers"), 0, 0);
    const link = document.createElement("a");
    link.download = `fluoronav-${state.shown?.seq ?? 0}.png`;
    link.href = canvas.toDataURL("image/png");
    link.click();
  }

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
  addEventListener("resize", () => (state.redraw = true));
  const KEYS = { o: "outlines", n: "no_go", p: "plan", i: "instruments", " ": "freeze", m: "measure", a: "angle", s: "screenshot", l: "log", d: "drr", f: "flicker", 3: "space" };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.target.closest?.("input, select, dialog")) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const name = KEYS[event.key];
    if (step && state.frozen) {
      back.input.value = Number(back.input.value) + step;
      showMoment(Number(back.input.value));
    } else if (name) {
      event.preventDefault();
      const element = find(`tool-${name}`);
      if (!element.hidden) element.click();
    }
  });

  return {
    recording(path) {
      record.textContent = path ? text.tools.recording : text.tools.record;
      record.classList.toggle("recording", Boolean(path));
      record.title = path;
    },
    offerCases(names) {
      cases.replaceChildren(...[["", text.tools.case], ...names.map((n) => [n, n])].map(([value, words]) => new Option(words, value)));
      cases.hidden = !names.length;
    },
    offerPlan(names) {
      choice.replaceChildren(...[["", text.allPaths], ...names.map((n) => [n, n])].map(([value, words]) => new Option(words, value)));
      choice.hidden = names.length < 2;
    },
  };
}
