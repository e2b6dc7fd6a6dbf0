// Buttons of what is seen of the picture: labels, windows, the whole picture again.

import { button } from "./bar.js";
import { PRESET_WINDOWS } from "./constants.js";
import { text } from "./strings.js";

// `layered` and `windowed`: the sheets of layers and windows.
export function addViewControls(app, layered, windowed) {
  const { layers, picture, view } = app;
  button(app, layered, "labels", (on) => (layers.on.labels = layers.on.letters = on), true);
  const presets = Object.keys(PRESET_WINDOWS).map((name) =>
    button(app, windowed, name, () => {
      picture.choose(name);
      for (const [k, one] of Object.keys(PRESET_WINDOWS).entries()) presets[k].setAttribute("aria-pressed", one === name);
    }, name === picture.preset));
  const whole = document.createElement("button");
  [whole.id, whole.textContent, whole.hidden] = ["unzoom", text.tools.unzoom, true];
  const reset = () => {
    view.reset();
    app.state.redraw = true;
  };
  whole.onclick = reset;
  view.zoomed = (zoom) => {
    whole.hidden = zoom === 1;
    whole.textContent = `${zoom.toFixed(1)} × ${text.tools.unzoom}`;
  };
  document.getElementById("view").append(whole);
  addEventListener("keydown", (event) => {
    if (event.key === "0" && !event.ctrlKey && !event.metaKey && !event.target.closest?.("input, select")) reset();
  });
}
