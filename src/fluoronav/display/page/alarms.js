// Alarms by IEC 60601-1-8: colour, flashing, text, bursts of pulses, a pause of the sound.

import { checkedAlert } from "./checked.js";
import { BURST, LATCH_MS, MAX_ROWS, RESOUND_MS, SAME_TARGET_MS, SOUND_PAUSE_S } from "./constants.js";
import { text } from "./strings.js";
import { reasonless, write, writeFitting } from "./words.js";

const find = (id) => document.getElementById(id);
const ORDER = { high: 0, medium: 1, low: 2 };
const keyOf = (a) => [a.kind, a.instrument, a.structure].join("/");

export class Alarms {
  // `log` is told what happens; `acknowledge(id)` is called when an alarm is acknowledged.
  constructor(log, acknowledge) {
    this.element = find("rows");
    this.log = log;
    this.acknowledge = acknowledge;
    this.open = new Map();
    this.distances = []; // the newest, as the card of the nearest structure shows them
    this.pausedUntil = 0;
    this.nextBurst = 0;
    this.burstOf = new Map(); // what an alarm is of -> when it last began to sound
    this.bursts = []; // for tests: {priority, pulses, at}
    this.target = ""; // the alarm that the button acknowledges
    find("acknowledge").textContent = text.acknowledge;
    find("acknowledge").onclick = () => this.press();
    // Browsers allow sound only after the page was touched.
    addEventListener("pointerdown", () => this.unlock(), { once: true });
    addEventListener("resize", () => this.show());
  }

  unlock() {
    this.audio ??= new AudioContext();
    this.audio.resume();
  }

  take(said) {
    const alert = checkedAlert(said);
    const before = this.open.get(alert.id);
    if (alert.state === "cleared") this.end(alert.id);
    else this.keep(alert, before, alert.state === "acknowledged" ? (before?.text ?? alert.text) : alert.text);
    if (alert.state !== "changed" || alert.priority !== before?.priority || alert.text !== before?.text) this.log.note(alert);
    this.show();
  }

  // Takes the complete list of open alarms: one that is not in it is over.
  replace(list) {
    const alerts = list.map(checkedAlert);
    const ids = new Set(alerts.map((a) => a.id));
    for (const [id, alert] of this.open)
      if (!ids.has(id) && !alert.over) {
        this.end(id);
        this.log.note({ ...alert, state: "dropped" });
      }
    for (const alert of alerts) {
      const before = this.open.get(alert.id);
      this.keep(alert, before, alert.text);
      if (!before || before.priority !== alert.priority || before.text !== alert.text) this.log.note(alert);
    }
    this.show();
  }

  keep(alert, before, words) {
    // A change at the acknowledged priority stays acknowledged; a higher priority does not.
    const still = before?.acknowledged && !before.over && alert.priority === before.priority && alert.state === "changed";
    const acknowledged = alert.state === "acknowledged" || Boolean(still);
    // One that comes again takes the place of the one that has just ended.
    for (const [id, old] of this.open) if (old.over && keyOf(old) === keyOf(alert)) this.open.delete(id);
    this.open.set(alert.id, { ...alert, text: words, acknowledged, shownAt: before?.shownAt ?? performance.now() });
    if (!acknowledged && (!before || before.acknowledged || ORDER[alert.priority] < ORDER[before.priority])) this.begin(alert, before);
  }

  // Sounds at once, unless this is one that comes and goes: that goes on in the rhythm that it has.
  begin(alert, before) {
    const now = performance.now(), key = `${keyOf(alert)}/${alert.priority}`;
    if (before || now - (this.burstOf.get(key) ?? -Infinity) > RESOUND_MS) {
      this.nextBurst = 0;
      this.burstOf.set(key, now);
    }
  }

  // An alarm of the stream itself stays readable for a moment after its end, since it may come and go many times a second.
  end(id) {
    const alert = this.open.get(id);
    const left = alert ? alert.shownAt + LATCH_MS - performance.now() : 0;
    if (left > 0 && alert.kind !== "proximity") {
      this.open.set(id, { ...alert, over: true, acknowledged: true });
      setTimeout(() => this.open.get(id)?.over && this.open.delete(id) && this.show(), left);
    } else this.open.delete(id);
  }

  // The open alarms of distances: [{instrument, structure, level, measured, text}].
  proximity() {
    return [...this.open.values()].filter((a) => a.kind === "proximity").map((a) => ({
      instrument: a.instrument, structure: a.structure, level: a.priority === "high" ? "danger" : "caution",
      measured: a.distance_mm !== null, text: a.text,
    }));
  }

  // Takes the newest measured distances; an alarm says the same number as the card.
  follow(distances) {
    this.distances = distances;
    for (const alert of this.open.values()) if (alert.kind === "proximity") return this.show();
  }

  measured(alert) {
    if (alert.kind !== "proximity") return null;
    return this.distances.find((d) => d.instrument === alert.instrument && d.structure === alert.structure && d.distance_mm !== null) ?? null;
  }

  words(alert) {
    const d = this.measured(alert), structure = alert.structure.replaceAll("_", " ");
    if (d) return text.near(d.instrument, d.distance_mm.toFixed(1), structure);
    const held = this.gone(alert) && alert.distance_mm !== null; // said when it was still seen
    return held ? text.gone(alert.instrument, alert.distance_mm.toFixed(1), structure) : alert.text;
  }

  // Whether an alarm is of an instrument that is not seen any more: it says so, and does not flash.
  gone(alert) {
    if (alert.kind !== "proximity" || this.measured(alert)) return false;
    return alert.distance_mm === null || [...this.open.values()].some((a) => a.kind === "instrument_lost" && a.instrument === alert.instrument && !a.over);
  }

  show() {
    const sorted = [...this.open.values()].sort((a, b) => ORDER[a.priority] - ORDER[b.priority] || a.acknowledged - b.acknowledged);
    const kept = new Map([...this.element.children].map((row) => [row.dataset.id, row]));
    sorted.slice(0, MAX_ROWS).forEach((alert, k) => {
      const row = kept.get(alert.id) ?? this.row(alert.id);
      kept.delete(alert.id);
      if (this.element.children[k] !== row) this.element.insertBefore(row, this.element.children[k] ?? null);
    });
    for (const row of kept.values()) row.remove();
    const more = find("more"), left = Math.max(sorted.length - MAX_ROWS, 0);
    more.hidden = !left;
    write(more, left ? `+${left}` : "");
    this.aim(sorted.find((a) => !a.acknowledged));
    // Last, since the buttons beside them take some of their width.
    sorted.slice(0, MAX_ROWS).forEach((alert, k) => this.fill(this.element.children[k], alert));
    this.log.open(sorted.map((a) => ({ id: a.id, words: `${text.priority[a.priority]} ${this.words(a)}`, acknowledged: a.acknowledged })));
  }

  fill(row, alert) {
    const gone = this.gone(alert);
    const kind = `alarm ${alert.priority}${alert.acknowledged ? " acknowledged" : ""}${gone ? " gone" : ""}${alert.over ? " over" : ""}`;
    if (row.className !== kind) row.className = kind;
    write(row.querySelector(".priority"), text.priority[alert.priority]);
    const words = this.words(alert), said = (some) => (alert.over ? text.over(some) : some);
    row.title = words;
    const unmeasured = alert.kind === "proximity" && alert.distance_mm === null && !this.measured(alert);
    // Two rows have one line each.
    const where = [this.element.children.length, find("acknowledge").hidden, find("more").hidden].join(" ");
    const shorter = said(unmeasured ? text.unmeasured(alert.instrument, alert.structure.replaceAll("_", " ")) : reasonless(words));
    writeFitting(row.querySelector(".text"), said(words), shorter, where);
  }

  row(id) {
    const row = document.createElement("div");
    row.dataset.id = id;
    row.innerHTML = '<span class="priority"></span><span class="text"></span>';
    return row;
  }

  // The button acknowledges the worst alarm that is not acknowledged, and has its colour.
  aim(alert) {
    const button = find("acknowledge"), id = alert?.id ?? "";
    if (id !== this.target) [this.aimedAt, this.target] = [this.target ? performance.now() : -Infinity, id];
    button.hidden = !alert;
    button.dataset.priority = alert?.priority ?? "";
  }

  // A press just after the alarm under the finger became another one acknowledges neither.
  press() {
    if (this.target && performance.now() - this.aimedAt > SAME_TARGET_MS) this.acknowledge(this.target);
  }

  forgetAll() {
    this.open.clear();
    this.show();
  }

  pause() {
    this.pausedUntil = performance.now() + SOUND_PAUSE_S * 1000;
  }

  get pausedFor() {
    return Math.max(Math.ceil((this.pausedUntil - performance.now()) / 1000), 0);
  }

  // Called at each refresh; sounds the highest priority that is not acknowledged.
  sound(lost) {
    const now = performance.now();
    const sounding = [...this.open.values()].filter((a) => !a.acknowledged).map((a) => a.priority);
    if (lost) {
      sounding.push("high");
      if (!this.lost) this.begin({ kind: "lost", priority: "high" });
    }
    this.lost = lost;
    const priority = Object.keys(ORDER).find((p) => sounding.includes(p));
    if (!priority) return;
    if (now < this.nextBurst || this.pausedFor) return;
    const burst = BURST[priority];
    this.nextBurst = now + 1000 * burst.every;
    this.bursts.push({ priority, pulses: burst.pulses.length, at: now });
    if (this.audio?.state === "running") for (const start of burst.pulses) this.pulse(start, burst);
  }

  pulse(start, { length, hertz }) {
    const at = this.audio.currentTime + 0.02 + start;
    const gain = this.audio.createGain();
    gain.gain.setValueAtTime(0, at);
    gain.gain.linearRampToValueAtTime(0.3, at + 0.015);
    gain.gain.setValueAtTime(0.3, at + length - 0.02);
    gain.gain.linearRampToValueAtTime(0, at + length);
    gain.connect(this.audio.destination);
    // Harmonics make a tone easier to locate, and audible over noise.
    for (const [k, part] of [[1, 1], [2, 0.4], [3, 0.3], [4, 0.2]]) {
      const tone = this.audio.createOscillator();
      const level = this.audio.createGain();
      level.gain.value = part / 1.9;
      tone.frequency.value = hertz * k;
      tone.connect(level).connect(gain);
      tone.start(at);
      tone.stop(at + length + 0.02);
    }
  }
}
