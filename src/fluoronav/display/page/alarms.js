// Alarms as IEC 60601-1-8 would have them: colour, flashing, words, bursts of pulses, a pause of the sound, a log.

import { checkedAlert } from "./checked.js";
import { text } from "./strings.js";

const ORDER = { high: 0, medium: 1, low: 2 };
// Starts of the pulses (s), their length, pause between bursts; pitches by priority. High: two bursts of five.
const BURST = {
  high: { pulses: [0, 0.2, 0.4, 0.75, 0.95, 1.5, 1.7, 1.9, 2.25, 2.45], length: 0.12, every: 5, hertz: 660 },
  medium: { pulses: [0, 0.3, 0.6], length: 0.2, every: 8, hertz: 520 },
  low: { pulses: [0, 0.35], length: 0.2, every: 20, hertz: 390 },
};
const PAUSE_S = 120;
const MOST_LOGGED = 500;

export class Alarms {
  // `acknowledge(id)` is asked when somebody touches an alarm's button.
  constructor(element, log, acknowledge) {
    this.element = element;
    this.log = log;
    this.acknowledge = acknowledge;
    this.open = new Map();
    this.pausedUntil = 0;
    this.nextBurst = 0;
    this.bursts = []; // what sounded, for whoever checks: {priority, pulses, at}
    // Browsers let a page sound only after somebody has touched it.
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

  // Which alarms are open, all of them: what is not among them is over, however it came to that.
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
    // "changed" with the priority that somebody has acknowledged stays acknowledged; a rise asks anew.
    const seen = before?.acknowledged && alert.priority === before.priority && alert.state === "changed";
    const acknowledged = alert.state === "acknowledged" || Boolean(seen);
    this.open.set(alert.id, { ...alert, text: words, acknowledged });
    if (!acknowledged && (!before || before.acknowledged || ORDER[alert.priority] < ORDER[before.priority])) this.nextBurst = 0;
  }

  // What open alarms say of distances: [{instrument, structure, level, measured, text}].
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
    while (this.log.childElementCount > MOST_LOGGED) this.log.lastElementChild.remove();
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
    this.pausedUntil = performance.now() + PAUSE_S * 1000;
  }

  get pausedFor() {
    return Math.max(Math.ceil((this.pausedUntil - performance.now()) / 1000), 0);
  }

  // Called often; sounds the highest priority that nobody has acknowledged.
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
    // A tone with harmonics is found by the ear and heard through a mask.
    for (const [k, share] of [[1, 1], [2, 0.4], [3, 0.3], [4, 0.2]]) {
      const tone = this.audio.createOscillator();
      const level = this.audio.createGain();
      level.gain.value = share / 1.9;
      tone.frequency.value = hertz * k;
      tone.connect(level).connect(gain);
      tone.start(at);
      tone.stop(at + length + 0.02);
    }
  }
}
