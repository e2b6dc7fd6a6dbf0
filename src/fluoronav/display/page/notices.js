// Words that come and go: a line under the picture, and bars over it.

import { HELD_STEP_MS, NOTE_MS, REFUSAL_MS, RESTART_NOTE_MS } from "./constants.js";
import { text } from "./strings.js";
import { write } from "./words.js";

const find = (id) => document.getElementById(id);
let saidUntil = 0;
const bars = new Map(); // id of an element -> when it goes

export function say(words) {
  find("age").textContent = words;
  saidUntil = performance.now() + NOTE_MS;
}

function bar(id, words, ms) {
  write(find(id), words);
  find(id).hidden = false;
  bars.set(id, performance.now() + ms);
}

// Why something was not done, in full over the picture.
export function refuse(words) {
  say(words);
  bar("refusal", words, REFUSAL_MS);
}

export function anew(words) {
  bar("anew", words, RESTART_NOTE_MS);
}

// Called at each refresh; `pictureAt`: when the newest picture came; null while an older one is shown.
export function tick(now, alarms, pictureAt) {
  for (const [id, until] of bars)
    if (now > until) {
      find(id).hidden = true;
      bars.delete(id);
    }
  if (now <= saidUntil) return;
  const paused = alarms.pausedFor;
  // In steps, rounded up, so that it can be read and is painted less often.
  const age = HELD_STEP_MS * Math.ceil(Math.max(now - Math.max(pictureAt, 0), 0) / HELD_STEP_MS);
  const shown = pictureAt === null ? "" : text.age(age);
  write(find("age"), paused ? text.soundPaused(paused) : alarms.audio ? shown : text.soundBlocked);
}

// Words of another computer without what says nothing to who reads them here: folders, and numbers of errors.
export function plain(words) {
  return words.replace(/\[(?:Errno|WinError) \d+\]\s*/g, "").replace(/(?:[A-Za-z]:)?[^\s:'"]*[\\/]([^\s\\/:'"]+)/g, "$1");
}
