// The pipeline's state in the head of the page, and the question whether this is the patient.

import { text } from "./strings.js";
import { write, writeFitting } from "./words.js";

const find = (id) => document.getElementById(id);

// [kind, words, detail] of the block: LIVE only where everything that it promises was received, and recently; `frozen`: of
// when the screen is, or empty.
export function badge(health, overlay, known, frozen) {
  if (!health) return ["", "", ""];
  if (frozen) return ["frozen", text.mode.frozen, frozen];
  if (!known) return ["unknown", text.mode.unknown, ""];
  if (health.state === "failed") return ["failed", text.state.failed, ""];
  if (!health.confirmed) return ["shadow", text.mode.shadow, text.mode.unconfirmed];
  if (health.mode === "shadow" || overlay?.mode === "shadow") return ["shadow", text.mode.shadow, text.mode.notGuiding];
  if (health.state !== "running") return ["waiting", text.state[health.state], ""];
  if (!overlay) return ["waiting", text.mode.unguided, ""];
  if (!isPlaced(overlay)) return ["waiting", text.mode.unguided, text.mode.unregistered];
  if (overlay.registration?.accepted === false) return ["waiting", text.mode.unaccepted, text.mode.registration];
  if (overlay.replayed) return ["replay", text.mode.replay, ""];
  return ["live", text.mode.live, ""];
}

const isPlaced = (overlay) => Boolean(overlay.registration) && (overlay.status === "tracking" || overlay.status === "degraded");

// Why nobody may guide by the numbers, as it stands beneath them; empty where they may.
export function doubtOf(health, overlay, frozen) {
  if (frozen) return text.doubt.frozen(frozen);
  if (!isPlaced(overlay)) return text.doubt.unregistered;
  if (health?.mode === "shadow" || health?.confirmed === false || overlay.mode === "shadow") return text.doubt.shadow;
  if (overlay.registration.accepted === false) return text.doubt.unaccepted;
  return overlay.replayed ? text.doubt.replay : "";
}

export class PipelineState {
  // `confirm(case)` is called when a person confirms the patient.
  constructor(confirm) {
    const button = find("patient").querySelector("button");
    button.textContent = text.confirm;
    button.onclick = () => confirm(this.asked);
  }

  // `overlay` is the one that is shown, or null where it is old; `known`: the pipeline was heard recently.
  show(health, overlay, known, frozen) {
    const [kind, words, detail] = badge(health, overlay, known, frozen);
    const block = find("mode");
    write(block.querySelector("b"), words);
    write(block.querySelector("small"), detail);
    if (block.className !== kind) block.className = kind;
    // The block or the picture shows the state itself.
    const reason = health && known && health.state !== "running" ? health.reason || health.error : "";
    writeFitting(find("reason"), reason);
    if (find("reason").title !== reason) find("reason").title = reason;
    const rests = Object.entries((known && health?.resting) || {});
    const resting = rests.map(([stage, why]) => text.rests(stage, why)).join("; ");
    writeFitting(find("resting"), resting, rests.map(([stage]) => text.rests(stage)).join("; "));
    if (find("resting").title !== resting) find("resting").title = resting;
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
