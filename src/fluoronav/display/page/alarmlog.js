// The log of alarms: what repeats is one line with its number, so that it does not bury what matters.

import { LOG_GROUP_MS, MAX_LOG_LINES } from "./constants.js";
import { clock } from "./heading.js";
import { text } from "./strings.js";

export class AlarmLog {
  // `now()`: the pipeline's time, ms since 1970; `acknowledge(id)` is called for an open alarm.
  constructor(section, now, acknowledge) {
    this.list = section.querySelector("ol");
    this.opened = section.querySelector("ul");
    this.now = now;
    this.acknowledge = acknowledge;
    this.shown = "";
    this.groups = new Map(); // kind, instrument and structure -> the line that is still being added to
  }

  // One step in an alarm's life.
  note(alert) {
    const key = [alert.kind, alert.instrument, alert.structure, alert.priority].join("/");
    const at = alert.state === "raised" && alert.t_raised ? alert.t_raised / 1e6 : this.now();
    let group = this.groups.get(key);
    if (!group || at - group.last > LOG_GROUP_MS) {
      group = { first: at, ids: new Set(), line: this.line() };
      this.groups.set(key, group);
    }
    group.ids.add(alert.id);
    group.last = at;
    const [from, to] = [clock(group.first), clock(at)];
    const times = group.ids.size > 1 ? `${text.times(group.ids.size)}, ` : "";
    const state = text.alarmState[alert.state] ?? alert.state;
    group.line.textContent = `${from === to ? to : `${from} – ${to}`} ${text.priority[alert.priority]} ${times}${state}: ${alert.text}`;
    this.list.prepend(group.line);
    this.bound();
  }

  // Anything else that is to be remembered.
  say(words) {
    this.line().textContent = `${clock(this.now())} ${words}`;
    this.bound();
  }

  // The open alarms, the worst first: [{id, words, acknowledged}], each with a button of its own.
  open(alarms) {
    const shown = JSON.stringify(alarms);
    if (shown === this.shown) return;
    this.shown = shown;
    this.opened.replaceChildren(...alarms.map(({ id, words, acknowledged }) => {
      const line = document.createElement("li"), button = document.createElement("button");
      [button.textContent, button.className, button.hidden] = [text.acknowledge, "control", acknowledged];
      button.onclick = () => this.acknowledge(id);
      line.append(words, button);
      return line;
    }));
  }

  line() {
    const line = document.createElement("li");
    this.list.prepend(line);
    return line;
  }

  bound() {
    while (this.list.childElementCount > MAX_LOG_LINES) this.list.lastElementChild.remove();
    for (const [key, group] of this.groups) if (!group.line.isConnected) this.groups.delete(key);
  }
}
