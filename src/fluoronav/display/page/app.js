// Puts the parts together: what has come is drawn at the next refresh of the screen, each overlay on its own frame.

import { Alarms } from "./alarms.js";
import { addControls } from "./controls.js";
import { History } from "./history.js";
import { Layers } from "./layers.js";
import { Numbers } from "./numbers.js";
import { makePicture } from "./picture.js";
import { Space } from "./space.js";
import { Stream } from "./stream.js";
import { text } from "./strings.js";
import { write } from "./words.js";

const find = (id) => document.getElementById(id);
const LOST_MS = 450; // silence after which what is shown is called old
const KEPT_OVERLAYS = 32, WAIT_FOR_OVERLAY_MS = 120, MOST_WAITING = 8, OLD_FRAMES = 2;
const LOUPE_ZOOM = 4;

const picture = makePicture(find("picture"), new URLSearchParams(location.search).get("draw"));
const layers = new Layers(find("layers"));
const numbers = new Numbers();
const alarms = new Alarms(find("alarms"), find("log").querySelector("ol"), acknowledge);
const space = new Space();
const history = new History();

const state = {
  overlays: new Map(), // seq -> {overlay, received}
  newest: null, // the newest overlay
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
  running: "", // id of the pipeline's case
  recording: "", // the file that the pipeline records to
  said: "", // the pipeline's last error that was told
  plan: [],
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
    // Out of order: kept for its own frame, but the numbers stay those of the newest. A grabber that begins anew counts anew.
    const newest = state.newest?.seq ?? -1;
    if (header.seq >= newest || header.seq <= newest - 1000) state.newest = header;
    state.overlays.set(header.seq, { overlay: header, received });
    while (state.overlays.size > KEPT_OVERLAYS) state.overlays.delete(state.overlays.keys().next().value);
    state.overlayAt = received;
    state.told = true;
    // Else drawing it would hold up the picture that it belongs to.
    state.changed ||= !state.shown || header.seq <= state.shown.seq || header.seq < newest;
  },
  alert: (header) => alarms.take(header),
  health(header) {
    write(find("mode"), text.mode[header.mode]);
    find("mode").className = header.mode;
    write(find("latency"), text.latency(header.latency_ms.p50.toFixed(0)));
    state.mode = header.mode;
    state.running = header.case;
    state.recording = header.recording ?? "";
    controls.recording(state.recording);
    if (header.loading) say(text.loadingCase(header.loading));
    else if (header.error?.startsWith("case.load") && header.error !== state.said) say(text.pipelineSays(header.error));
    state.said = header.error;
    if (header.case && header.case !== state.case) readCase(header.case);
  },
  link(header) {
    state.link = header;
  },
});

async function readCase(id) {
  state.case = id;
  const reply = await stream.ask("case.info");
  if (!reply.ok) {
    state.case = null; // asked again with the next health
    return;
  }
  find("case").textContent = reply.result.name;
  if (layers.camera) layers.camera.target_ct = reply.result.plan[0]?.target_ct ?? null;
  layers.no_go = new Set(reply.result.no_go ?? []);
  state.plan = reply.result.plan.map((t) => t.name);
  controls.offerPlan(state.plan);
  controls.offerCases(reply.result.cases ?? []);
  state.redraw = true;
}

async function request(op, args) {
  if (!state.user) state.user = (prompt(text.askName) ?? "").trim();
  if (!state.user) return say(text.refused(text.noName));
  const reply = await stream.ask(op, args, state.user);
  if (!reply.ok) say(text.refused(reply.error.text));
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

// What is wrong with what is shown: [title, detail], or null.
function lost(now) {
  if (now - stream.heardAt > LOST_MS) return [text.connectionLost, text.connectionDetail];
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
  picture.take(header, buffer, offset);
  history.keep(now, header, buffer, offset, state.overlays.get(header.seq)?.overlay ?? null);
  stats.firstPictureAt ||= now;
  return true;
}

function refresh() {
  requestAnimationFrame(refresh);
  const now = performance.now();
  const wrong = lost(now);
  const came = takePicture(now);
  const anew = came || state.changed || state.redraw;
  if (anew) draw();
  space.draw(now, shownOverlay(), layers.camera, anew || state.told, state.running);
  // Pictures may go on while guidance has ended: then the numbers must not stay.
  const unguided = Boolean(wrong) || now - state.overlayAt > LOST_MS;
  if (unguided || anew || state.told) numbers.show(state.newest ?? EMPTY, unguided);
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

const EMPTY = { status: "lost", registration: null, plan: [], distances: [] };

function draw() {
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
  layers.draw(entry?.overlay, rows, cols, stats.strength);
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
