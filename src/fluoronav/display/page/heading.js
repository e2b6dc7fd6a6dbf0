// The head of the page: who lies there, what is done, and the time by the pipeline's clock.

import { CLOCK_SET_MS } from "./constants.js";
import { text } from "./strings.js";
import { write } from "./words.js";

const find = (id) => document.getElementById(id);

export class Heading {
  constructor() {
    this.offset_ms = 0; // the pipeline's clock minus this computer's
  }

  // {pseudonym, name, patient_id, birth_date}, as far as this screen may know them.
  patient(person) {
    const said = (key) => (typeof person[key] === "string" ? person[key] : "");
    write(find("patient-name"), said("name") || said("pseudonym"));
    write(find("patient-id"), said("patient_id"));
    write(find("birth"), said("birth_date") && text.born(said("birth_date")));
  }

  // What is done, as the case file says it, and at which level and side, as the plan names them.
  procedure({ procedure, plan }) {
    write(find("case"), procedure ?? "");
    write(find("site"), siteOf((plan ?? []).map((t) => t.name)));
  }

  // The pipeline's time of a health message, ns; the shortest delay of the last minutes tells its clock best.
  heard(t_ns) {
    const ms = t_ns / 1e6 - Date.now();
    const slower = this.known && ms < this.offset_ms && this.offset_ms - ms < CLOCK_SET_MS;
    this.offset_ms = slower ? this.offset_ms + (ms - this.offset_ms) * 0.01 : ms;
    this.known = true;
  }

  // The pipeline's time now, ms since 1970.
  now() {
    return Date.now() + this.offset_ms;
  }

  tick() {
    write(find("clock"), clock(this.now()));
  }
}

// A time of day, to the second.
export function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

// Level and side of planned paths by their names, such as "T8_left": "T8 left, right"; empty where no name holds a level.
export function siteOf(names) {
  const sides = new Map(); // level -> sides
  for (const name of names) {
    const level = /(?:^|[^A-Za-z])([CTLS]\d{1,2})(?![\dA-Za-z])/.exec(name)?.[1];
    const side = /(?:^|[^A-Za-z])(left|right)(?![A-Za-z])/i.exec(name)?.[1].toLowerCase();
    if (level) sides.set(level, new Set([...(sides.get(level) ?? []), ...(side ? [side] : [])]));
  }
  return [...sides].map(([level, those]) => [level, [...those].join(", ")].join(" ").trim()).join("; ");
}
