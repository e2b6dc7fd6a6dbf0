// What bars, sheets and the menu are made of: buttons, sliders, choices.

import { HOLD_MS } from "./constants.js";
import { text } from "./strings.js";

const find = (id) => document.getElementById(id);

// A group of buttons in the bottom bar.
export function group(name) {
  const element = document.createElement("div");
  element.className = "group";
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", text.groups[name]);
  find("tools").append(element);
  return element;
}

// What opens above the bar; one at a time.
export function sheet(name) {
  const element = document.createElement("div");
  [element.className, element.id, element.hidden] = ["sheet", `sheet-${name}`, true];
  find("sheets").append(element);
  return element;
}

// `action(on)` is called at a press; a button that was given `pressed` stays pressed until the next.
export function button({ state }, where, name, action, pressed) {
  const element = document.createElement("button");
  [element.textContent, element.id] = [text.tools[name], `tool-${name}`];
  if (pressed !== undefined) element.setAttribute("aria-pressed", pressed);
  element.onclick = () => {
    const now = element.getAttribute("aria-pressed");
    if (now !== null) element.setAttribute("aria-pressed", now !== "true");
    action(now !== "true");
    state.redraw = true;
  };
  where.append(element);
  return element;
}

// A button that opens and closes its sheet.
export function opener(app, where, name, pane) {
  const element = button(app, where, name, (on) => {
    pane.hidden = !on;
    for (const other of on ? find("sheets").children : [])
      if (other !== pane && other.opener) {
        other.hidden = true;
        other.opener.setAttribute("aria-pressed", "false");
      }
  }, false);
  pane.opener = element;
  return element;
}

// A button that acts only after it was held for `HOLD_MS`: a touch by mistake does nothing but say so. The finger ends a hold,
// by lifting or by leaving the place that it touched; a page that moves under it, or is busy, does not.
export function holdButton({ say }, where, name, action) {
  const element = document.createElement("button");
  [element.textContent, element.id, element.className] = [text.tools[name], `tool-${name}`, "hold"];
  element.title = text.holdIt;
  let timer = 0, began = 0, place = null;
  const begin = (event) => {
    if (timer) return;
    element.classList.add("held");
    began = event.timeStamp; // of the finger, not of when a busy page hears of it
    // One more turn, so that a finger which has left meanwhile is heard first.
    timer = setTimeout(() => (timer = setTimeout(() => end(true))), HOLD_MS);
  };
  const end = (long) => {
    if (!timer) return;
    clearTimeout(timer);
    timer = 0;
    element.classList.remove("held");
    const seen = !element.hidden && element.offsetParent !== null;
    if (long && seen) action();
    else say(text.holdIt);
  };
  const released = (event) => end(event.timeStamp - began >= HOLD_MS);
  element.onpointerdown = (event) => {
    element.setPointerCapture(event.pointerId);
    place = element.getBoundingClientRect();
    begin(event);
  };
  element.onpointermove = (event) => {
    const { clientX: x, clientY: y } = event;
    if (timer && !(x >= place.left && x <= place.right && y >= place.top && y <= place.bottom)) released(event);
  };
  for (const over of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) element.addEventListener(over, released);
  element.onkeydown = (event) => (event.key === "Enter" || event.key === " ") && !event.repeat && begin(event);
  element.onkeyup = released;
  element.oncontextmenu = (event) => event.preventDefault(); // a long touch opens one
  where.append(element);
  return element;
}

export function slider(where, name, low, high, value, action) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  [input.type, input.min, input.max, input.value, input.id] = ["range", low, high, value, `slider-${name}`];
  input.oninput = () => action(Number(input.value));
  label.append(text.tools[name], input);
  where.append(label);
  return input;
}

export function selection(where, name) {
  const element = document.createElement("select");
  [element.id, element.className] = [`tool-${name}`, "control"];
  element.setAttribute("aria-label", text.tools[name]);
  where.append(element);
  return element;
}
