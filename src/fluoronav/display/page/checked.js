// Received messages with every value of its type: a wrong value must not break the page, or be drawn at a wrong place.

import { MAX_AGE_MS, MAX_NUMBER, MAX_TIME_NS } from "./constants.js";

const STATUS = ["searching", "tracking", "degraded", "lost", "no_model"];
const LEVELS = ["clear", "caution", "danger"];
export const MODES = ["live", "shadow"], STATES = ["starting", "ready", "running", "degraded", "failed"];

export function number(x, max = MAX_NUMBER) {
  return typeof x === "number" && Math.abs(x) <= max ? x : null; // never true of NaN
}

function numbers(list, count) {
  return Array.isArray(list) && list.length === count && list.every((x) => number(x) !== null) ? list : null;
}

const words = (x) => (typeof x === "string" ? x : "");
const things = (list) => (Array.isArray(list) ? list.filter((x) => x && typeof x === "object") : []);
const points = (list) => (Array.isArray(list) ? list.filter((p) => numbers(p, 2)) : []);

function registration(r) {
  const T_camera_ct = numbers(r?.T_camera_ct, 16);
  if (!T_camera_ct) return null;
  return { ...r, T_camera_ct, sigma: numbers(r.sigma, 6), tre_mm: number(r.tre_mm), tre_image_mm: number(r.tre_image_mm),
    age_ms: number(r.age_ms, MAX_AGE_MS), accepted: r.accepted };
}

function breathing(b) {
  if (!b || typeof b !== "object") return null;
  return { state: words(b.state), chest: b.of === "chest", amplitude_mm: number(b.amplitude_mm), period_s: number(b.period_s),
    slip_mm: Math.max(number(b.slip_mm) ?? 0, 0) };
}

function instrument(i) {
  const shaft = points(i.shaft_px);
  return { ...i, id: words(i.id), tip_px: numbers(i.tip_px, 2), tail_px: numbers(i.tail_px, 2), tip_ct: numbers(i.tip_ct, 3),
    axis_ct: numbers(i.axis_ct, 3), sigma_mm: number(i.sigma_mm), shaft_px: shaft.length > 1 ? shaft : null,
    age: number(i.age) ?? 1, age_ms: number(i.age_ms, MAX_AGE_MS) };
}

function wordsByName(x) {
  return x && typeof x === "object" && !Array.isArray(x) ? Object.fromEntries(Object.entries(x).map(([name, said]) => [name, words(said)])) : {};
}

function distance(d) {
  // A distance without its bound is not used: alarms are decided by the bound.
  const known = number(d.distance_mm) !== null && number(d.lower_mm) !== null;
  return { ...d, instrument: words(d.instrument), structure: words(d.structure), distance_mm: known ? d.distance_mm : null,
    lower_mm: known ? d.lower_mm : null, level: LEVELS.includes(d.level) ? d.level : "caution", contact_s: number(d.contact_s) };
}

function progress(p) {
  return { ...p, entry_px: numbers(p.entry_px, 2), target_px: numbers(p.target_px, 2), angle_deg: number(p.angle_deg),
    lateral_mm: number(p.lateral_mm), depth_left_mm: number(p.depth_left_mm), beside_mm: numbers(p.beside_mm, 2) };
}

export function checkedOverlay(o) {
  const found = registration(o.registration);
  const status = STATUS.includes(o.status) ? o.status : "lost";
  const needs = status === "tracking" || status === "degraded";
  return {
    ...o,
    status: needs && !found ? "lost" : status,
    registration: found,
    breathing: breathing(o.breathing),
    objects: things(o.objects).map((x) => ({ name: words(x.name), age_ms: number(x.age_ms, MAX_AGE_MS) })),
    instruments: things(o.instruments).map(instrument),
    distances: things(o.distances).map(distance),
    plan: things(o.plan).map(progress),
    outlines: things(o.outlines).map((x) => ({
      structure: words(x.structure), color: words(x.color), paths: (Array.isArray(x.paths) ? x.paths : []).map(points).filter((p) => p.length > 1),
    })),
    mode: MODES.includes(o.mode) ? o.mode : "shadow",
    replayed: o.replayed === true,
  };
}

// An unknown mode or state never becomes one in which the screen guides.
export function checkedHealth(h) {
  const session = h.session && typeof h.session === "object" ? h.session : {};
  return {
    case: words(h.case), case_name: words(h.case_name), mode: MODES.includes(h.mode) ? h.mode : "shadow",
    state: STATES.includes(h.state) ? h.state : "degraded", reason: words(h.reason), error: words(h.error),
    loading: words(h.loading), recording: words(h.recording), resting: wordsByName(h.resting), t: number(h.t, MAX_TIME_NS), p50: number(h.latency_ms?.p50),
    confirmed: session.confirmed !== false, restored: session.restored === true, unauthenticated: h.unauthenticated === true,
  };
}

export function checkedAlert(a) {
  return { ...a, t_raised: number(a.t_raised, MAX_TIME_NS), text: words(a.text), kind: words(a.kind), instrument: words(a.instrument), structure: words(a.structure),
    distance_mm: number(a.distance_mm), lower_mm: number(a.lower_mm) };
}
