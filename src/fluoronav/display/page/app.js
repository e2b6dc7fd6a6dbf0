// The page: what has come is drawn at the next refresh of the screen, each overlay on its own frame.

import { Alarms } from "./alarms.js";
import { checkedHealth, checkedOverlay } from "./checked.js";
import {
  HELD_MS, HELD_STEP_MS, LOST_MS, LOUPE_ZOOM, MAX_LATENCIES, MAX_OVERLAYS, MAX_WAITING_PICTURES, NEW_COUNT_FRAMES, NOTE_MS,
  OLD_FRAMES, OLD_OVERLAY_OPACITY, REFUSAL_MS, RESTART_NOTE_MS, UNKNOWN_MS, WAIT_FOR_OVERLAY_MS, WINDOW_OVERLAY_MS,
} from "./constants.js";
import { addControls } from "./controls.js";
import { History } from "./history.js";
import { Layers } from "./layers.js";
import { Numbers } from "./numbers.js";
import { makePicture } from "./picture.js";
import { Space } from "./space.js";
import { Refreshing } from "./refreshing.js";
import { PipelineState } from "./pipeline_state.js";
import { Stream } from "./stream.js";
import { text } from "./strings.js";
import { Thinned } from "./thinned.js";
import { write } from "./words.js";

const find = (id) => document.getElementById(id);

const picture = makePicture(find("picture"), new URLSearchParams(location.search).get("draw"));
const layers = new Layers(find("layers"));
const numbers = new Numbers();
const alarms = new Alarms(find("alarms"), find("log").querySelector("ol"), acknowledge);
layers.alarms = () => alarms.proximity();
const pipelineState = new PipelineState((id) => request("case.confirm", { case: id }));
const space = new Space();
const history = new History();
const refreshing = new Refreshing(refresh);
const thinned = new Thinned(find("thinned"));
let redraw = false;

const state = {
  overlays: new Map(), // seq -> {overlay, received}
  newest: null, // the newest overlay
  newestAt: -Infinity,
  shown: null, // header of the picture that is shown
  waiting: [], // [header, buffer, offset, received]: pictures not yet drawn, the newest last
  pictureAt: -Infinity,
  overlayAt: -Infinity,
  link: { heard: true },
  frozen: false,
  held: null, // what was drawn when it froze: {overlay, received}
  moment: null, // the moment of the last half minute that is shown after stepping back
  told: false, // an overlay or alarm has come since the last refresh
  changed: false, // an overlay has come that belongs on the shown picture
  loupe: true,
  measuring: 0, // points to set: 2 for a length, 3 for an angle
  health: null, // the newest
  linkAt: -Infinity, // when the server last told whether it hears the pipeline
  aged: "", // what is drawn as held
  running: "", // id of the pipeline's case
  recording: "", // the file that the pipeline records to
  said: "", // the pipeline's last error that was shown
  plan: [],
  bones: new Set(), // names of structures that are known to be bone
  user: "",
  // A person has changed what is shown.
  get redraw() {
    return redraw;
  },
  set redraw(on) {
    redraw = on;
    if (on) refreshing.ask();
  },
};
// For benches and tests; overlayToPixels: from an overlay's arrival to the refresh that shows it, ms; pictures came, and
// of these were shown.
const stats = { drawn: 0, overlayToPixels: [], pictures: 0, overlays: 0, shown: 0, firstPictureAt: 0, shownSeq: null, overlaySeq: null, strength: 1 };
window.fluoronav = { stats, state, alarms, layers, picture, space, history };

const stream = new Stream({
  hello(header) {
    find("role").textContent = text.role[header.role];
    document.body.dataset.role = header.role;
    layers.camera = header.camera;
    state.case = null;
    alarms.forgetAll();
  },
  picture(header, buffer, offset, received) {
    state.waiting.push([header, buffer, offset, received]);
    if (state.waiting.length > MAX_WAITING_PICTURES) state.waiting.shift();
    state.pictureAt = received;
    stats.pictures++;
    stream.taken();
    // One that comes before its overlay is drawn with it.
    if (state.overlays.has(header.seq)) refreshing.ask();
  },
  overlay(header, _buffer, _offset, received) {
    const overlay = checkedOverlay(header);
    // An overlay out of order is kept for its own frame; numbers show the newest. A restarted grabber counts from 0.
    const newest = state.newest?.seq ?? -1;
    if (overlay.seq >= newest || overlay.seq <= newest - NEW_COUNT_FRAMES) [state.newest, state.newestAt] = [overlay, received];
    state.overlays.set(overlay.seq, { overlay, received });
    while (state.overlays.size > MAX_OVERLAYS) state.overlays.delete(state.overlays.keys().next().value);
    state.overlayAt = received;
    state.told = true;
    stats.overlays++;
    refreshing.ask();
    // The overlay of a later picture is drawn with that picture.
    state.changed ||= !state.shown || overlay.seq <= state.shown.seq || overlay.seq < newest;
  },
  alert(header) {
    alarms.take(header);
    state.told = true;
    refreshing.ask();
  },
  alarms(header) {
    alarms.replace(header.open);
    state.told = true;
    refreshing.ask();
  },
  anew() {
    alarms.say(text.anew);
    notice("anew", text.anew, RESTART_NOTE_MS);
  },
  health(header) {
    const health = checkedHealth(header);
    state.health = health;
    if (health.p50 !== null) write(find("latency"), text.latency(health.p50.toFixed(0)));
    state.mode = health.mode;
    state.running = health.case;
    state.recording = health.recording;
    controls.recording(state.recording);
    if (health.loading) say(text.loadingCase(health.loading));
    else if (health.error.startsWith("case.load") && health.error !== state.said) refuse(text.pipelineSays(health.error));
    state.said = health.error;
    if (health.case && health.case !== state.case) readCase(health.case);
  },
  link(header, _buffer, _offset, received) {
    state.link = header;
    state.linkAt = received;
    refreshing.ask();
  },
  pace(header) {
    thinned.keeps(header);
  },
});

async function readCase(id) {
  state.case = id;
  const reply = await stream.ask("case.info");
  if (!reply.ok || !reply.result) {
    state.case = null; // asked again with the next health
    return;
  }
  if (id !== state.case) return; // another case has come meanwhile
  find("case").textContent = reply.result.name;
  const plan = reply.result.plan ?? [];
  if (layers.camera) layers.camera.target_ct = plan[0]?.target_ct ?? null;
  layers.no_go = new Set(reply.result.no_go ?? []);
  // Structures without warning distances are bone: vessels and nerves have them.
  state.bones = new Set((reply.result.structures ?? []).filter((s) => s.caution_mm == null && s.danger_mm == null).map((s) => s.name));
  state.plan = plan.map((t) => t.name);
  controls.offerPlan(state.plan);
  controls.offerCases(reply.result.cases ?? []);
  state.redraw = true;
}

async function request(op, args) {
  if (!state.user) state.user = (prompt(text.askName) ?? "").trim();
  if (!state.user) return refuse(text.refused(text.noName));
  const reply = await stream.ask(op, args, state.user);
  if (!reply.ok) refuse(text.refused(reply.error?.text || reply.error?.code || ""));
  return reply;
}

function acknowledge(id) {
  return request("alert.acknowledge", { alert: id });
}

let saidUntil = 0;
function say(words) {
  find("age").textContent = words;
  saidUntil = performance.now() + NOTE_MS;
}

const notices = new Map(); // id of an element -> when it goes
function notice(id, words, ms) {
  write(find(id), words);
  find(id).hidden = false;
  notices.set(id, performance.now() + ms);
}

// A refusal is shown in full over the picture.
function refuse(words) {
  say(words);
  notice("refusal", words, REFUSAL_MS);
}

// Age of the newest health, ms; null where none has come.
function healthAge(now) {
  if (!state.health) return null;
  return (state.link.health_s ?? 0) * 1000 + Math.max(now - state.linkAt, 0);
}

// What is held for longer than HELD_MS, with its age in ms, in steps.
function agesOf(entry, now) {
  const since = entry && Number.isFinite(entry.received) ? Math.max(now - entry.received, 0) : 0;
  const held = (part) => {
    const ms = part?.age_ms == null ? 0 : Math.max(part.age_ms, 0) + since;
    return ms > HELD_MS ? HELD_STEP_MS * Math.ceil(ms / HELD_STEP_MS) : null;
  };
  const those = (list, key) => new Map(list.map((x) => [x[key], held(x)]).filter(([, ms]) => ms !== null));
  if (!entry) return { registration: null, instruments: new Map(), objects: new Set() };
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

// What is wrong with what is shown: [title, detail], or null.
function lost(now) {
  if (now - stream.heardAt > LOST_MS) return [text.connectionLost, text.connectionDetail];
  if (state.health && !state.link.heard) return [text.pipelineLost, text.pipelineDetail];
  if (healthAge(now) > UNKNOWN_MS) return [text.unknown, text.unknownDetail(Math.floor(healthAge(now) / 1000))];
  if (state.overlayAt === -Infinity && state.pictureAt === -Infinity) return [text.waiting, text.waitingDetail];
  if (!state.link.heard) return [text.pipelineLost, text.pipelineDetail];
  const silent = now - Math.max(state.pictureAt, state.overlayAt);
  if (silent > LOST_MS) return [text.stale, text.staleDetail(Math.round(silent / 100) * 100)];
  return null;
}

function takePicture(now) {
  if (state.frozen) state.waiting = [];
  if (!state.waiting.length) return false;
  // The overlay of a raw frame comes some ms after it, maybe after the next frame: the newest frame with its overlay is shown.
  // Where no overlay comes the newest frame is shown without, since a picture that stands still would look live.
  let k = state.waiting.findLastIndex(([header]) => state.overlays.has(header.seq));
  if (k < 0 && now - state.waiting[0][3] > WAIT_FOR_OVERLAY_MS) k = state.waiting.length - 1;
  if (k < 0) return false;
  const [header, buffer, offset] = state.waiting[k];
  state.waiting.splice(0, k + 1);
  state.shown = header;
  stats.shown++;
  const overlay = state.overlays.get(header.seq)?.overlay ?? null;
  picture.take(header, buffer, offset);
  // A picture without its own overlay is windowed by the last one.
  const aimed = overlay ?? (now - state.overlayAt < WINDOW_OVERLAY_MS ? state.newest : null);
  picture.aim(now, aimed ? bones(aimed) : [], header.cols);
  history.keep(now, header, buffer, offset, overlay);
  stats.firstPictureAt ||= now;
  return true;
}

// Outlines of the bones; where these are unknown, of everything but no-go regions.
function bones({ outlines }) {
  const allowed = outlines.filter((o) => !layers.no_go.has(o.structure));
  const known = allowed.filter((o) => state.bones.has(o.structure));
  return (known.length ? known : allowed).flatMap((o) => o.paths);
}

// `hidden`: the page is behind another, and only sounds; `asked`: when this refresh was asked for.
function refresh(hidden, asked) {
  const now = performance.now();
  const wrong = lost(now);
  if (hidden) {
    state.waiting = [];
    return showLost(wrong, now);
  }
  const came = takePicture(now);
  const ages = agesOf(state.newest && { overlay: state.newest, received: state.newestAt }, now);
  const aged = JSON.stringify([ages.registration !== null, [...ages.instruments.keys()], [...ages.objects.keys()]]);
  const anew = came || state.changed || state.redraw || aged !== state.aged;
  state.aged = aged;
  if (anew) draw(now);
  space.draw(now, shownOverlay(), layers.camera, anew || state.told, state.running);
  // Pictures may go on after guidance has ended: then the numbers must go.
  const unguided = Boolean(wrong) || now - state.overlayAt > LOST_MS;
  numbers.show(state.newest ?? EMPTY, unguided, ages, alarms.proximity());
  pipelineState.show(state.health, unguided ? null : state.newest, !wrong || wrong[0] === text.waiting || wrong[0] === text.stale);
  state.redraw = state.changed = state.told = false;
  showLost(wrong, now);
  thinned.show(now, stats.shown, stats.overlays, state.frozen);
  if (came) refreshing.whenPainted(asked, (ms) => stream.drawn(ms));
}

// The overlay of the moment that is shown; else the newest, as in the numbers.
function shownOverlay() {
  if (state.moment) return state.moment.overlay;
  return performance.now() - state.overlayAt < LOST_MS ? state.newest : null;
}

function showMoment(k) {
  state.moment = history.moments[k] ?? null;
  if (!state.moment) return;
  const { header, rows, cols, pixels } = state.moment;
  state.shown = header;
  picture.upload(header, rows, cols, pixels);
  state.redraw = true;
}

const EMPTY = { status: "lost", registration: null, instruments: [], plan: [], distances: [] };

function draw(now) {
  fit();
  picture.draw();
  const seq = state.shown?.seq ?? null;
  let entry = state.moment ? state.moment.overlay && { overlay: state.moment.overlay, received: NaN }
    : state.frozen ? state.held : state.overlays.get(seq);
  // A frame without its own overlay shows the last one before it, faded, with its age.
  if (!entry && seq !== null && !state.frozen)
    for (const [k, e] of state.overlays) if (k < seq && (!entry || k > entry.overlay.seq)) entry = e;
  if (!state.frozen) state.held = entry;
  const age = entry && seq !== null ? seq - entry.overlay.seq : 0;
  stats.strength = age > OLD_FRAMES ? OLD_OVERLAY_OPACITY : 1;
  const [rows, cols] = state.shown ? [state.shown.rows, state.shown.cols] : [1024, 1024];
  layers.draw(entry?.overlay, rows, cols, stats.strength, agesOf(entry, state.frozen ? entry?.received : now));
  if (state.loupe && entry) loupe(entry.overlay, rows, cols);
  else find("loupe").hidden = true;
  const ago = state.moment ? (performance.now() - state.moment.at) / 1000 : 0;
  find("view").dataset.note = state.frozen ? text.frozen(ago.toFixed(1)) : age > OLD_FRAMES ? text.overlayOld(age) : "";
  if (entry && !state.frozen && entry.overlay.seq !== stats.overlaySeq) {
    stats.overlayToPixels.push(performance.now() - entry.received);
    if (stats.overlayToPixels.length > MAX_LATENCIES) stats.overlayToPixels.shift();
  }
  stats.drawn++;
  stats.shownSeq = seq;
  stats.overlaySeq = entry?.overlay.seq ?? null;
}

function showLost(wrong, now) {
  const box = find("lost");
  const words = wrong ? wrong.join("\n") : "";
  if (box.dataset.words !== words) {
    box.dataset.words = words;
    box.hidden = !wrong;
    box.replaceChildren();
    for (const [k, line] of (wrong ?? []).entries()) {
      const p = document.createElement(k ? "p" : "h1");
      p.textContent = line;
      box.append(p);
    }
  }
  document.body.classList.toggle("lost", Boolean(wrong));
  const started = state.pictureAt > -Infinity || state.overlayAt > -Infinity;
  alarms.sound(Boolean(wrong) && started);
  for (const [id, until] of notices)
    if (now > until) {
      find(id).hidden = true;
      notices.delete(id);
    }
  if (now > saidUntil) {
    const paused = alarms.pausedFor;
    // In steps, rounded up, so that it can be read and is painted less often.
    const age = HELD_STEP_MS * Math.ceil(Math.max(now - Math.max(state.pictureAt, 0), 0) / HELD_STEP_MS);
    write(find("age"), paused ? text.soundPaused(paused) : alarms.audio ? text.age(age) : text.soundBlocked);
  }
}

// The canvases have the screen's own pixels; the picture at most as many as it can draw.
function fit() {
  const box = find("view").getBoundingClientRect();
  const [rows, cols] = state.shown ? [state.shown.rows, state.shown.cols] : [1, 1];
  const scale = Math.min(box.width / cols, box.height / rows);
  const drr = find("drr");
  [drr.style.width, drr.style.height] = [`${cols * scale}px`, `${rows * scale}px`];
  for (const canvas of [find("picture"), find("layers")]) {
    const perPx = Math.min(scale * devicePixelRatio, canvas.id === "picture" ? picture.mostPerPx : Infinity);
    const [width, height] = [Math.round(cols * perPx), Math.round(rows * perPx)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    canvas.style.width = `${cols * scale}px`;
    canvas.style.height = `${rows * scale}px`;
  }
  const side = Math.max(find("picture").width, find("picture").height);
  if (state.shown && side !== stream.side) stream.shows(side);
}

function loupe(overlay, rows, cols) {
  const canvas = find("loupe");
  const tip = overlay.instruments.find((i) => i.tip_px)?.tip_px;
  canvas.hidden = !tip;
  if (!tip) return;
  const c = canvas.getContext("2d");
  const side = (canvas.width / LOUPE_ZOOM) * (cols / find("layers").width); // in pixels of the frame
  c.fillRect(0, 0, canvas.width, canvas.height);
  for (const from of [find("picture"), find("layers")]) {
    const [perCol, perRow] = [from.width / cols, from.height / rows];
    const [x, y] = [(tip[0] + 0.5 - side / 2) * perCol, (tip[1] + 0.5 - side / 2) * perRow];
    c.drawImage(from, x, y, side * perCol, side * perRow, 0, 0, canvas.width, canvas.height);
  }
}

window.fluoronav.stream = stream;
const controls = addControls({ state, layers, picture, alarms, space, history, request, say, warn: refuse, showMoment });
refreshing.ask();
