// The cards of numbers beside the picture.

import { BULLSEYE_MM, FAR_LATERAL_MM, FULL_DEPTH_MM, RING_MM, SHOWN_CONTACT_S, STAMP_STEP_MS } from "./constants.js";
import { text } from "./strings.js";
import { mark, write } from "./words.js";

const find = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return parent.appendChild(element);
}

export class Numbers {
  constructor() {
    for (const id of ["depth", "bullseye", "nearest"]) find(id).querySelector("h2").textContent = text[id];
    const eye = find("bullseye").querySelector("svg");
    for (const mm of RING_MM) {
      svg("circle", { r: radius(mm), class: "ring" }, eye);
      svg("text", { x: 2, y: -radius(mm) + 9, class: "ring" }, eye).textContent = text.mm(mm);
    }
    svg("path", { d: "M-58 0H58M0-58V58", class: "ring" }, eye);
    this.ring = svg("circle", { class: "beside" }, eye);
    svg("circle", { r: 2, class: "middle" }, eye);
    this.dot = svg("circle", { r: 4.5, class: "tip" }, eye);
  }

  // `ages`: what is held for too long, {registration, instruments: Map of id to ms}; `open`: open alarms of distances;
  // `doubt`: why nobody may guide by the numbers, or empty; `since`: how long ago the overlay came, ms.
  show(overlay, lost, ages, open, doubt, since) {
    this.doubt = lost ? "" : doubt;
    this.since = since;
    this.registration(overlay, lost, ages.registration);
    this.plan(overlay, lost, ages);
    this.nearest(overlay, lost, ages, open);
  }

  // Where a card's number comes from and how old it is, or why it is not to be guided by.
  stamp(card, instrument) {
    card.classList.toggle("doubt", Boolean(this.doubt));
    const age = Math.max(instrument?.age_ms ?? 0, 0) + this.since;
    const source = text.origin[instrument?.origin];
    write(card.querySelector(".stamp"), !instrument ? "" : this.doubt || text.stamp(source, STAMP_STEP_MS * Math.ceil(age / STAMP_STEP_MS)));
  }

  registration(overlay, lost, held) {
    const card = find("registration");
    const r = lost ? null : overlay.registration;
    const placed = r && (overlay.status === "tracking" || overlay.status === "degraded");
    const unsure = placed && (r.tre_mm === null || r.tre_image_mm === null);
    let status = lost ? "lost" : overlay.status;
    if (placed && held !== null) status = "aged";
    else if (unsure) status = "degraded";
    mark(card, "data-status", status);
    write(card.querySelector(".state"), status === "aged" ? text.held(held) : text.status[status]);
    write(card.querySelector(".detail"), !placed ? text.noRegistration
      : status === "aged" ? text.heldDetail
      : unsure ? text.unknownError : text.within(r.tre_image_mm.toFixed(1), r.tre_mm.toFixed(1)));
    write(card.querySelector(".motion"), placed && status !== "aged" ? motionOf(overlay.breathing) : "");
    const unaccepted = Boolean(placed) && r.accepted === false;
    const note = card.querySelector(".note");
    if (note.hidden === unaccepted) note.hidden = !unaccepted;
    write(note, unaccepted ? text.notAccepted : "");
    find("tool-check")?.classList.toggle("wanted", unaccepted);
  }

  plan(overlay, lost, ages) {
    const p = lost ? null : overlay.plan.find((q) => q.depth_left_mm !== null && q.lateral_mm !== null);
    const depth = find("depth");
    const eye = find("bullseye");
    depth.classList.toggle("none", !p);
    eye.classList.toggle("none", !p);
    const old = p ? this.age(overlay, ages, null) : null;
    for (const card of [depth, eye]) card.classList.toggle("aged", old !== null);
    const placed = overlay.instruments.find((i) => i.tip_ct);
    for (const card of [depth, eye]) this.stamp(card, p ? (placed ?? {}) : null);
    if (!p) {
      for (const card of [depth, eye]) write(card.querySelector(".number"), "–");
      write(eye.querySelector(".detail"), text.noPlan);
      return;
    }
    const left = p.depth_left_mm;
    depth.classList.toggle("past", left < 0);
    write(depth.querySelector(".number"), left < 0 ? text.pastTarget((-left).toFixed(1)) : text.shaftAhead(left.toFixed(1)));
    const part = Math.min(Math.max(1 - left / FULL_DEPTH_MM, 0), 1);
    depth.querySelector("i").style.width = `${(100 * part).toFixed(1)}%`;
    // A dot on the tip's side of the path, seen along the path with the head up; a ring where only the distance is known.
    const size = radius(Math.min(p.lateral_mm, BULLSEYE_MM));
    const [x, y] = p.beside_mm ?? [0, 0];
    const scale = size / Math.max(Math.hypot(x, y), 1e-6);
    eye.classList.toggle("sided", Boolean(p.beside_mm));
    mark(this.dot, "cx", (x * scale).toFixed(2));
    mark(this.dot, "cy", (-y * scale).toFixed(2));
    mark(this.ring, "r", (size).toFixed(2));
    mark(eye, "data-beside", p.lateral_mm > FAR_LATERAL_MM ? "far" : "near");
    write(eye.querySelector(".number"), text.lateral(p.lateral_mm.toFixed(1), p.angle_deg === null ? "?" : p.angle_deg.toFixed(1)));
    write(eye.querySelector(".detail"), old !== null ? text.old(old) : text.lateralDetail);
  }

  // The longest time for which an input of a number is held, ms: the registration, and the instrument `id` (null: any
  // instrument with a position); null where all inputs are measured.
  age(overlay, ages, id) {
    const placed = overlay.instruments.filter((i) => i.tip_ct && (id === null || i.id === id)).map((i) => i.id);
    const all = [ages.registration, ...placed.map((name) => ages.instruments.get(name) ?? null)].filter((ms) => ms !== null);
    return all.length ? Math.max(...all) : null;
  }

  nearest(overlay, lost, ages, open) {
    const card = find("nearest");
    const { level, measured, unmeasured } = lost ? { level: "none" } : nearestOf(overlay.distances, open);
    const d = unmeasured ?? measured;
    const old = d && !unmeasured ? this.age(overlay, ages, d.instrument) : null;
    card.classList.toggle("aged", old !== null);
    this.stamp(card, d ? (overlay.instruments.find((i) => i.id === d.instrument) ?? {}) : null);
    mark(card, "data-level", (old !== null || this.doubt) && level === "clear" ? "none" : level);
    const number = card.querySelector(".number");
    number.classList.toggle("words", Boolean(unmeasured));
    write(number, unmeasured ? text.notMeasured : d ? text.mm(d.distance_mm.toFixed(1)) : "–");
    write(card.querySelector(".detail"), unmeasured ? text.distance(d.instrument, d.structure.replaceAll("_", " "))
      : d ? this.detail(d, old, open) : text.noInstrument);
  }

  detail(d, old, open) {
    const contact = d.contact_s !== null && d.contact_s < SHOWN_CONTACT_S ? `, ${text.contact(d.contact_s.toFixed(1))}` : "";
    const aged = old !== null ? `, ${text.old(old)}` : "";
    const other = open.find((a) => !a.measured && !isOf(a, d));
    const too = other ? text.notMeasuredToo((other.structure ?? "").replaceAll("_", " ")) : "";
    return `${text.distance(d.instrument, d.structure.replaceAll("_", " "))}, ${text.atLeast(d.lower_mm.toFixed(1))}${contact}${aged}${too}`;
  }
}

// How far the patient has moved, and else how the patient breathes.
export function motionOf(b) {
  if (!b) return "";
  if (b.slip_mm > 0) return text.slipped(b.slip_mm.toFixed(1));
  const periodic = b.state === "breathing" && b.amplitude_mm !== null && b.period_s !== null;
  return periodic ? text.breathing(b.amplitude_mm.toFixed(b.amplitude_mm < 1 ? 1 : 0), b.period_s.toFixed(1), b.chest) : text.motion[b.state] ?? "";
}

const RANK = { none: 0, clear: 1, caution: 2, danger: 3 };
const isOf = (alarm, d) => alarm.instrument === d.instrument && alarm.structure === d.structure;

// The distance to show, and its level: the higher of the distance's and an open alarm's level. A missing measurement never
// lowers it. Shown is the nearest measured distance, unless one at a higher level is no longer measured.
export function nearestOf(distances, open) {
  const levelOf = (d) => [d.level, ...open.filter((a) => isOf(a, d)).map((a) => a.level)].reduce((a, b) => (RANK[b] > RANK[a] ? b : a));
  const known = distances.filter((d) => d.distance_mm !== null);
  const measured = known.reduce((a, b) => (!a || b.lower_mm < a.lower_mm ? b : a), null);
  const level = known.map(levelOf).reduce((a, b) => (RANK[b] > RANK[a] ? b : a), "none");
  const missing = [
    ...open.map((a) => ({ instrument: a.instrument ?? "", structure: a.structure ?? "", level: a.level })),
    ...distances.filter((d) => d.distance_mm === null && d.level !== "clear"),
  ].filter((a) => !known.some((d) => isOf(a, d)));
  const unmeasured = missing.reduce((a, b) => (!a || RANK[b.level] > RANK[a.level] ? b : a), null);
  return unmeasured && RANK[unmeasured.level] > RANK[level] ? { level: unmeasured.level, unmeasured } : { level, measured };
}

// By the square root, so that a millimetre near the middle is large.
function radius(mm) {
  return 55 * Math.sqrt(mm / BULLSEYE_MM);
}
