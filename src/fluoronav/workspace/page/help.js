// The sheet of keys and gestures.

import { asked, el } from "./dom.js";

const KEYS = [
  ["1  2  3  4", "Look, brush, threshold brush, eraser"], ["[   ]", "Smaller, larger brush"], ["B", "Ball: through slices, or in one slice alone"],
  ["I", "Interpolate between slices"], ["Ctrl+Z   Ctrl+Y", "Undo, redo"], ["Ctrl+S", "Save as a new revision"], ["Space", "Structures on and off"],
  ["X", "Cross on and off"], ["W", "Next window: bone, soft tissue, lung"], ["0", "Reset the views"], ["↑  ↓", "Next slice in the cut under the pointer"],
  ["Escape", "Back to looking; stops what is asked for"], ["?", "This sheet"],
];
const GESTURES = [
  ["Click", "Moves the cross in all cuts"], ["Wheel", "Scrolls slices (with Alt: five)"], ["Right drag", "Zooms"], ["Middle drag, or Shift and drag", "Moves the picture"],
  ["Ctrl and drag", "Changes the window"], ["Alt and click", "Picks the structure under the pointer"], ["Double click", "Enlarges a view, and back"],
  ["Drag a square or a circle", "Moves entry or tip of the chosen screw, with its grade live; shifts or turns the chosen cut, with its pieces live"],
];

export function help() {
  const table = (title, rows) => el("section", {}, el("h3", {}, title), el("table", {}, rows.map(([key, what]) => el("tr", {}, el("td", {}, el("kbd", {}, key)), el("td", {}, what)))));
  return asked("Keys and gestures", el("div", { className: "help" }, table("Keys", KEYS), table("Gestures in a cut", GESTURES)), [["Close", undefined, "main"]]);
}
