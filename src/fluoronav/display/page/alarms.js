// Alarms by IEC 60601-1-8: colour, flashing, text, bursts of pulses, a pause of the sound, a log.

import { checkedAlert } from "./checked.js";
import { BURST, MAX_LOG_LINES, SOUND_PAUSE_S } from "./constants.js";
import { text } from "./strings.js";

const ORDER = { high: 0, medium: 1, low: 2 };

export class Alarms {
  // `acknowledge(id)` is called when an alarm's button is pressed.
  constructor(element, log, acknowledge) {
    this.element = element;
    this.log = log;
    this.acknowledge = acknowledge;
    this.open = new Map();
    this.pausedUntil = 0;
    this.nextBurst = 0;
    this.bursts = []; // for tests: {priority, pulses, at}
    // Browsers allow sound only after the page was touched.
    addEventListener("pointerdown", () => this.unlock(), { once: true });
  }

  unlock() {
    this.audio ??= new AudioContext();
    this.audio.resume();
  }

  take(said) {
    const alert = checkedAlert(said);
    const before = this.open.get(alert.id);
    if (alert.state === "cleared") this.open.delete(alert.id);
    else this.keep(alert, before, alert.state === "acknowledged" ? (before?.text ?? alert.text) : alert.text);
    if (alert.state !== "changed" || alert.priority !== before?.priority || alert.text !== before?.text) this.note(alert);
    this.show();
  }

  // Takes the complete list of open alarms: one that is not in it is over.
  replace(list) {
    const alerts = list.map(checkedAlert);
    const ids = new Set(alerts.map((a) => a.id));
    for (const [id, alert] of this.open)
      if (!ids.has(id)) {
        this.open.delete(id);
        this.note({ ...alert, state: text.dropped });
      }
    for (const alert of alerts) {
      const before = this.open.get(alert.id);
      this.keep(alert, before, alert.text);
      if (!before || before.priority !== alert.priority || before.text !== alert.text) this.note(alert);
    }
    this.show();
  }

  keep(alert, before, words) {
    // A change at the acknowledged priority stays acknowledged; a higher priority does not.
    const still = before?.acknowledged && alert.priority === before.priority && alert.state === "changed";
    const acknowledged = alert.state === "acknowledged" || Boolean(still);
    this.open.set(alert.id, { ...alert, text: words, acknowledged });
    if (!acknowledged && (!before || before.acknowledged || ORDER[alert.priority] < ORDER[before.priority])) this.nextBurst = 0;
  }

  // The open alarms of distances: [{instrument, structure, level, measured, text}].
  proximity() {
    return [...this.open.values()].filter((a) => a.kind === "proximity").map((a) => ({
      instrument: a.instrument, structure: a.structure, level: a.priority === "high" ? "danger" : "caution",
      measured: a.distance_mm !== null, text: a.text,
    }));
  }

  note(alert) {
    this.say(`${text.priority[alert.priority]} ${alert.state}: ${alert.text}`);
  }

  say(words) {
    const line = document.createElement("li");
    line.textContent = `${new Date().toLocaleTimeString()} ${words}`;
    this.log.prepend(line);
    while (this.log.childElementCount > MAX_LOG_LINES) this.log.lastElementChild.remove();
  }

  show() {
    const sorted = [...this.open.values()].sort((a, b) => ORDER[a.priority] - ORDER[b.priority]);
    const kept = new Map([...this.element.children].map((row) => [row.dataset.id, row]));
    sorted.forEach((alert, k) => {
      const row = kept.get(alert.id) ?? this.row(alert.id);
      kept.delete(alert.id);
      row.className = `alarm ${alert.priority}${alert.acknowledged ? " acknowledged" : ""}`;
      row.querySelector(".priority").textContent = text.priority[alert.priority];
      row.querySelector(".text").textContent = alert.text;
      row.querySelector("button").hidden = Boolean(alert.acknowledged);
      if (this.element.children[k] !== row) this.element.insertBefore(row, this.element.children[k] ?? null);
    });
    for (const row of kept.values()) row.remove();
  }

  row(id) {
    const row = document.createElement("div");
    row.dataset.id = id;
    row.innerHTML = '<span class="priority"></span><span class="text"></span><button></button>';
    const button = row.querySelector("button");
    button.textContent = text.acknowledge;
    button.onclick = () => this.acknowledge(id);
    return row;
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
    if (lost) sounding.push("high");
    const priority = Object.keys(ORDER).find((p) => sounding.includes(p));
    if (!priority) {
      this.nextBurst = 0;
      return;
    }
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
