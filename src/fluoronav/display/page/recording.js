// Whether what was asked of the recorder has come true: a recording that does not begin, or ends by itself, is said.

import { RECORDING_BEGINS_MS } from "./constants.js";
import { text } from "./strings.js";

let wanted = null; // what was asked for: true, false, or null where nothing was
let askedAt = 0;

// A person has asked for a recording to begin or to end.
export function recordingAsked(on) {
  [wanted, askedAt] = [on, performance.now()];
}

// The pipeline says what it records to; empty: nothing.
export function recordingSays(state, path, controls, warn) {
  const before = state.recording;
  state.recording = path;
  controls.recording(path);
  if (path && wanted === null) wanted = true; // another screen has begun it
  else if (wanted && before && !path) [wanted] = [null, warn(text.recordingEnded)];
  else if (wanted && !path && performance.now() - askedAt > RECORDING_BEGINS_MS) [wanted] = [null, warn(text.notRecording)];
  else if (wanted === false && !path) wanted = null;
}
