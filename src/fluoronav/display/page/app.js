// Puts the parts together: what has come is drawn at the next refresh of the screen, each overlay on its own frame.

import { Alarms } from "./alarms.js";
import { checkedHealth, checkedOverlay } from "./checked.js";
import { addControls } from "./controls.js";
import { History } from "./history.js";
import { Layers } from "./layers.js";
import { Numbers } from "./numbers.js";
import { makePicture } from "./picture.js";
import { Space } from "./space.js";
import { Standing } from "./standing.js";
import { Stream } from "./stream.js";
import { text } from "./strings.js";
import { write } from "./words.js";

const find = (id) => document.getElementById(id);
const LOST_MS = 450; // silence after which what is shown is called old
const KEPT_OVERLAYS = 32, WAIT_FOR_OVERLAY_MS = 120, MOST_WAITING = 8, OLD_FRAMES = 2;
const LOUPE_ZOOM = 4;
const HELD_MS = 300; // a pose that was measured longer ago is not called tracked
const UNKNOWN_MS = 3000; // silence of health, which comes once a second, after which nothing is known
const FORGOTTEN_MS = 3000; // after so long without an overlay the picture is no longer windowed by the last one's outlines
const REFUSAL_MS = 10000, ANEW_MS = 20000;

const picture = makePicture(find("picture"), new URLSearchParams(location.search).get("draw"));
const layers = new Layers(find("layers"));
const numbers = new Numbers();
const alarms = new Alarms(find("alarms"), find("log").querySelector("ol"), acknowledge);
layers.alarms = () => alarms.proximity();
const standing = new Standing((id) => request("case.confirm", { case: id }));
const space = new Space();
const history = new History();

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
  moment: null, // what is shown of the last half minute, once somebody has stepped back
  told: false, // an overlay has come, since the last refresh
  changed: false, // what belongs on the shown picture has: the overlay of a later one waits for that
  loupe: true,
  measuring: 0, // points to set: 2 for a length, 3 for an angle
  health: null, // the newest
  linkAt: -Infinity, // when the server last said what it hears
  aged: "", // what is drawn as held
  running: "", // id of the pipeline's case
  recording: "", // the file that the pipeline records to
  said: "", // the pipeline's last error that was told
  plan: [],
  bones: new Set(), // names of structures that are bone, as far as that is known
  user: "",
};
// For benches and tests: from an overlay's arrival to the frame that shows it, ms.
const stats = { drawn: 0, overlayToPixels: [], pictures: 0, firstPictureAt: 0, shownSeq: null, overlaySeq: null, strength: 1 };
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
    if (state.waiting.length > MOST_WAITING) state.waiting.shift();
    state.pictureAt = received;
    stats.pictures++;
    stream.taken();
  },
  overlay(header, _buffer, _offset, received) {
    const overlay = checkedOverlay(header);
    // Out of order: kept for its own frame, but the numbers stay those of the newest. A grabber that begins anew counts anew.
    const newest = state.newest?.seq ?? -1;
    if (overlay.seq >= newest || overlay.seq <= newest - 1000) [state.newest, state.newestAt] = [overlay, received];
    state.overlays.set(overlay.seq, { overlay, received });
    while (state.overlays.size > KEPT_OVERLAYS) state.overlays.delete(state.overlays.keys().next().value);
    state.overlayAt = received;
    state.told = true;
    // Else drawing it would hold up the picture that it belongs to.
    state.changed ||= !state.shown || overlay.seq <= state.shown.seq || overlay.seq < newest;
  },
  alert(header) {
    alarms.take(header);
    state.told = true;
  },
  alarms(header) {
    alarms.replace(header.open);
    state.told = true;
  },
  anew() {
    alarms.say(text.anew);
    notice("anew", text.anew, ANEW_MS);
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
  // What nothing warns of is bone, and vessels and nerves are warned of.
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
  saidUntil = performance.now() + 4000;
}

const notices = new Map(); // id of an element -> when it goes
function notice(id, words, ms) {
  write(find(id), words);
  find(id).hidden = false;
  notices.set(id, performance.now() + ms);
}

// A refusal is for the person who asked: it stands over the picture, in whole.
function refuse(words) {
  say(words);
  notice("refusal", words, REFUSAL_MS);
}

// Since when nothing has been heard of how the pipeline stands, ms; null where it never was.
function healthAge(now) {
  if (!state.health) return null;
  return (state.link.health_s ?? 0) * 1000 + Math.max(now - state.linkAt, 0);
}

// What is held at a moment for longer than it may be called measured, ms in steps that are read.
function agesOf(entry, now) {
  const since = entry && Number.isFinite(entry.received) ? Math.max(now - entry.received, 0) : 0;
  const held = (part) => {
    const ms = part?.age_ms == null ? 0 : Math.max(part.age_ms, 0) + since;
    return ms > HELD_MS ? 50 * Math.ceil(ms / 50) : null;
  };
  const those = (list, key) => new Map(list.map((x) => [x[key], held(x)]).filter(([, ms]) => ms !== null));
  if (!entry) return { registration: null, instruments: new Map(), objects: new Set() };
  const { registration, instruments, objects, outlines } = entry.overlay;
  const bodies = those(objects, "name");
  // Which structures an object of another name has is not said: then any may be one of them.
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
  // The overlay of a raw frame comes some ms after it, maybe when the next frame is there: the newest frame that has its
  // overlay is shown. Where none comes the newest is shown without, or the picture would stand still and look alive.
  let k = state.waiting.findLastIndex(([header]) => state.overlays.has(header.seq));
  if (k < 0 && now - state.waiting[0][3] > WAIT_FOR_OVERLAY_MS) k = state.waiting.length - 1;
  if (k < 0) return false;
  const [header, buffer, offset] = state.waiting[k];
  state.waiting.splice(0, k + 1);
  state.shown = header;
  const overlay = state.overlays.get(header.seq)?.overlay ?? null;
  picture.take(header, buffer, offset);
  // A picture that has no overlay of its own, or none yet, shows what the last one showed.
  const aimed = overlay ?? (now - state.overlayAt < FORGOTTEN_MS ? state.newest : null);
  picture.aim(now, aimed ? bones(aimed) : [], header.cols);
  history.keep(now, header, buffer, offset, overlay);
  stats.firstPictureAt ||= now;
  return true;
}

// Outlines of what is to be seen: bones where it is known which those are.
function bones({ outlines }) {
  const allowed = outlines.filter((o) => !layers.no_go.has(o.structure));
  const known = allowed.filter((o) => state.bones.has(o.structure));
  return (known.length ? known : allowed).flatMap((o) => o.paths);
}

function refresh() {
  requestAnimationFrame(refresh);
  const now = performance.now();
  const wrong = lost(now);
  const came = takePicture(now);
  const ages = agesOf(state.newest && { overlay: state.newest, received: state.newestAt }, now);
  const aged = JSON.stringify([ages.registration !== null, [...ages.instruments.keys()], [...ages.objects.keys()]]);
  const anew = came || state.changed || state.redraw || aged !== state.aged;
  state.aged = aged;
  if (anew) draw(now);
  space.draw(now, shownOverlay(), layers.camera, anew || state.told, state.running);
  // Pictures may go on while guidance has ended: then the numbers must not stay.
  const unguided = Boolean(wrong) || now - state.overlayAt > LOST_MS;
  numbers.show(state.newest ?? EMPTY, unguided, ages, alarms.proximity());
  standing.show(state.health, unguided ? null : state.newest, !wrong || wrong[0] === text.waiting || wrong[0] === text.stale);
  state.redraw = state.changed = state.told = false;
  showLost(wrong, now);
}

// Of the moment that is looked at; else the newest, which the numbers are of, too.
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
  // Without its own overlay a frame shows the last one before it, faded, and says how old that is.
  if (!entry && seq !== null && !state.frozen)
    for (const [k, e] of state.overlays) if (k < seq && (!entry || k > entry.overlay.seq)) entry = e;
  if (!state.frozen) state.held = entry;
  const age = entry && seq !== null ? seq - entry.overlay.seq : 0;
  stats.strength = age > OLD_FRAMES ? 0.35 : 1;
  const [rows, cols] = state.shown ? [state.shown.rows, state.shown.cols] : [1024, 1024];
  layers.draw(entry?.overlay, rows, cols, stats.strength, agesOf(entry, state.frozen ? entry?.received : now));
  if (state.loupe && entry) loupe(entry.overlay, rows, cols);
  else find("loupe").hidden = true;
  const ago = state.moment ? (performance.now() - state.moment.at) / 1000 : 0;
  find("view").dataset.note = state.frozen ? text.frozen(ago.toFixed(1)) : age > OLD_FRAMES ? text.overlayOld(age) : "";
  if (entry && !state.frozen && entry.overlay.seq !== stats.overlaySeq) {
    stats.overlayToPixels.push(performance.now() - entry.received);
    if (stats.overlayToPixels.length > 20000) stats.overlayToPixels.shift();
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
    // In steps, rounded up: read by people, and each change is painted.
    const age = 50 * Math.ceil(Math.max(now - Math.max(state.pictureAt, 0), 0) / 50);
    write(find("age"), paused ? text.soundPaused(paused) : alarms.audio ? text.age(age) : text.soundBlocked);
  }
}

// The canvases take the screen's own pixels, the picture as far as it can draw them.
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
const controls = addControls({ state, layers, picture, alarms, space, history, request, say, showMoment });
requestAnimationFrame(refresh);
