// The pipeline's state in the head of the page, and the question whether this is the patient.

import { text } from "./strings.js";
import { write } from "./words.js";

const find = (id) => document.getElementById(id);

// [kind, words] of the badge: LIVE only where everything that it promises was received, and recently.
export function badge(health, overlay, known) {
  if (!health) return ["", ""];
  if (!known) return ["unknown", text.mode.unknown];
  if (health.state === "failed") return ["failed", text.state.failed];
  if (!health.confirmed) return ["shadow", text.mode.unconfirmed];
  if (health.mode === "shadow" || overlay?.mode === "shadow") return ["shadow", text.mode.shadow];
  if (health.state !== "running") return ["waiting", text.state[health.state]];
  if (!overlay) return ["waiting", text.mode.unguided];
  if (overlay.registration?.accepted === false) return ["waiting", text.mode.unaccepted];
  return ["live", text.mode.live];
}

export class PipelineState {
  // `confirm(case)` is called when a person confirms the patient.
  constructor(confirm) {
    const button = find("patient").querySelector("button");
    button.textContent = text.confirm;
    button.onclick = () => confirm(this.asked);
  }

  // `overlay` is the newest, or null where it is old; `known`: the pipeline was heard recently.
  show(health, overlay, known) {
    const [kind, words] = badge(health, overlay, known);
    write(find("mode"), words);
    find("mode").className = kind;
    // The badge or the picture shows the state itself.
    const reason = health && known && health.state !== "running" ? health.reason || health.error : "";
    write(find("reason"), reason);
    if (find("reason").title !== reason) find("reason").title = reason;
    write(find("open"), health?.unauthenticated ? text.unauthenticated : "");
    this.patient(health && known ? health : null);
  }

  patient(health) {
    const ask = Boolean(health?.case) && !health.confirmed;
    const bar = find("patient");
    if (bar.hidden === ask) bar.hidden = !ask;
    if (!ask) return;
    this.asked = health.case; // the case that the words name
    const may = document.body.dataset.role === "control";
    write(bar.querySelector(".words"), may ? text.askPatient(health.case_name || health.case) : text.unconfirmed);
  }
}
