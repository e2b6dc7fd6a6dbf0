// What is wrong with what is shown, and what is old.

import { HELD_MS, HELD_STEP_MS, LOST_MS, UNKNOWN_MS } from "./constants.js";
import { text } from "./strings.js";

const find = (id) => document.getElementById(id);

// Age of the newest health, ms; null where none has come.
function healthAge(now, { health, link, linkAt }) {
  return health ? (link.health_s ?? 0) * 1000 + Math.max(now - linkAt, 0) : null;
}

// What is wrong: [title, detail], or null.
export function faultOf(now, state, stream) {
  if (now - stream.heardAt > LOST_MS) return [text.connectionLost, text.connectionDetail];
  if (state.health && !state.link.heard) return [text.pipelineLost, text.pipelineDetail];
  const age = healthAge(now, state);
  if (age > UNKNOWN_MS) return [text.unknown, text.unknownDetail(Math.floor(age / 1000))];
  if (state.overlayAt === -Infinity && state.pictureAt === -Infinity) return [text.waiting, text.waitingDetail];
  if (!state.link.heard) return [text.pipelineLost, text.pipelineDetail];
  const silent = now - Math.max(state.pictureAt, state.overlayAt);
  if (silent > LOST_MS) return [text.stale, text.staleDetail(Math.round(silent / 100) * 100)];
  return otherSize(state.camera, state.came);
}

// The pipeline refuses frames of another size than its camera file's; they are still seen here.
function otherSize(camera, came) {
  if (!camera || !came || (came.rows === camera.rows && came.cols === camera.cols)) return null;
  return [text.otherSize, text.otherSizeDetail(`${came.cols} x ${came.rows}`, `${camera.cols} x ${camera.rows}`)];
}

// Faults in which the pipeline itself is heard.
export function isHeard(wrong) {
  return !wrong || [text.waiting, text.stale, text.otherSize].includes(wrong[0]);
}

export function showFault(wrong) {
  const box = find("lost");
  const words = wrong ? wrong.join("\n") : "";
  if (box.dataset.words !== words) {
    box.dataset.words = words;
    box.hidden = !wrong;
    box.replaceChildren(...(wrong ?? []).map((line, k) => {
      const p = document.createElement(k ? "p" : "h1");
      p.textContent = line;
      return p;
    }));
  }
  document.body.classList.toggle("lost", Boolean(wrong));
}

// What of an overlay that came at `received` is held for longer than HELD_MS at `now`, with its age in ms, in steps.
export function agesOf(entry, now) {
  if (!entry) return { registration: null, instruments: new Map(), objects: new Set() };
  const since = Number.isFinite(entry.received) ? Math.max(now - entry.received, 0) : 0;
  const held = (part) => {
    const ms = part?.age_ms == null ? 0 : Math.max(part.age_ms, 0) + since;
    return ms > HELD_MS ? HELD_STEP_MS * Math.ceil(ms / HELD_STEP_MS) : null;
  };
  const those = (list, key) => new Map(list.map((x) => [x[key], held(x)]).filter(([, ms]) => ms !== null));
  const { registration, instruments, objects, outlines } = entry.overlay;
  const bodies = those(objects, "name");
  // The structures of an object with another name are unknown: any may be one of them.
  const named = new Set(outlines.map((o) => o.structure));
  const any = [...bodies.keys()].some((name) => !named.has(name));
  return {
    registration: held(registration), instruments: those(instruments, "id"),
    objects: any ? new Set(named) : new Set(bodies.keys()),
  };
}
