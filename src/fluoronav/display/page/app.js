// The page: what has come is drawn at the next refresh of the screen, each overlay on its own frame.

import { AlarmLog } from "./alarmlog.js";
import { Alarms } from "./alarms.js";
import { Asking } from "./ask.js";
import { checkedHealth, checkedOverlay } from "./checked.js";
import {
  LOST_MS, MAX_LATENCIES, MAX_OVERLAYS, MAX_WAITING_PICTURES, NEW_COUNT_FRAMES, OLD_FRAMES, OLD_OVERLAY_OPACITY,
  WAIT_FOR_OVERLAY_MS, WINDOW_OVERLAY_MS,
} from "./constants.js";
import { addControls } from "./controls.js";
import { agesOf, faultOf, isHeard, showFault } from "./faults.js";
import { clock, Heading } from "./heading.js";
import { History } from "./history.js";
import { Layers } from "./layers.js";
import { Legend } from "./legend.js";
import { anew, plain, refuse, say, tick } from "./notices.js";
import { Numbers } from "./numbers.js";
import { Panel } from "./panel.js";
import { makePicture } from "./picture.js";
import { doubtOf, PipelineState } from "./pipeline_state.js";
import { recordingSays } from "./recording.js";
import { Refreshing } from "./refreshing.js";
import { Space } from "./space.js";
import { Stream } from "./stream.js";
import { text } from "./strings.js";
import { Thinned } from "./thinned.js";
import { User } from "./user.js";
import { View } from "./view.js";
import { write } from "./words.js";

const find = (id) => document.getElementById(id);

const picture = makePicture(find("picture"), new URLSearchParams(location.search).get("draw"));
const view = new View(picture);
const layers = new Layers(find("layers"));
const numbers = new Numbers();
const heading = new Heading();
const log = new AlarmLog(find("log"), () => heading.now(), acknowledge);
const alarms = new Alarms(log, acknowledge);
const panel = new Panel();
const asking = new Asking(panel);
const ask = (question) => asking.ask(question);
const user = new User(ask, (name) => write(find("role"), text.by(text.role[state.role], name)));
layers.alarms = () => alarms.proximity();
layers.view = view;
layers.legend = new Legend(find("view"));
const pipelineState = new PipelineState((id) => request("case.confirm", { case: id }));
const space = new Space();
space.meaning = (name) => layers.meanings.of(name);
space.region = () => view.region();
space.gpu = Boolean(picture.gl);
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
  came: null, // header of the newest picture that came
  camera: null, // the camera file's {rows, cols, ...}
  frozen: false,
  frozenAt: 0, // when what is frozen was shown
  held: null, // what was drawn when it froze: {overlay, received}
  moment: null, // the moment of the last half minute that is shown after stepping back
  told: false, // an overlay or alarm has come since the last refresh
  changed: false, // an overlay has come that belongs on the shown picture
  loupe: true,
  role: "watch",
  measuring: 0, // points to set: 2 for a length, 3 for an angle
  health: null, // the newest
  linkAt: -Infinity, // when the server last told whether it hears the pipeline
  aged: "", // what is drawn as held
  running: "", // id of the pipeline's case
  recording: "", // the file that the pipeline records to
  said: "", // the pipeline's last error that was shown
  plan: [],
  bones: new Set(), // names of structures that are known to be bone
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
window.fluoronav = { stats, state, alarms, layers, picture, view, space, history, user, heading };

const stream = new Stream({
  hello(header) {
    state.role = document.body.dataset.role = header.role;
    write(find("role"), user.name ? text.by(text.role[header.role], user.name) : text.role[header.role]);
    layers.camera = state.camera = header.camera;
    user.lasts_ms = 60000 * (header.user_min || Infinity);
    state.case = null;
    alarms.forgetAll();
  },
  picture(header, buffer, offset, received) {
    state.waiting.push([header, buffer, offset, received]);
    if (state.waiting.length > MAX_WAITING_PICTURES) state.waiting.shift();
    [state.came, state.pictureAt] = [header, received];
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
    log.say(text.anew);
    anew(text.anew);
  },
  health(header) {
    const health = checkedHealth(header);
    state.health = health;
    if (health.t !== null) heading.heard(health.t);
    if (health.p50 !== null) write(find("latency"), text.latency(health.p50.toFixed(0)));
    state.mode = health.mode;
    state.running = health.case;
    recordingSays(state, health.recording, controls, refuse);
    if (health.loading) say(text.loadingCase(health.loading));
    else if (health.error.startsWith("case.load") && health.error !== state.said) refuse(text.pipelineSays(plain(health.error)));
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
  // A reply that came after the page had said that there was none.
  late(op, reply) {
    refuse(text.late(text.ops[op] ?? op, reply.ok ? (text.done[op] ?? text.ok) : text.refused(reply.error?.text ?? "")));
  },
});

async function readCase(id) {
  state.case = id;
  const [reply, person] = await Promise.all([stream.ask("case.info"), stream.ask("patient.info")]);
  if (!reply.ok || !reply.result) {
    state.case = null; // asked again with the next health
    return;
  }
  if (id !== state.case) return; // another case has come meanwhile
  heading.patient(person.result ?? {});
  heading.procedure(reply.result);
  const plan = reply.result.plan ?? [];
  if (layers.camera) layers.camera.target_ct = plan[0]?.target_ct ?? null;
  layers.meanings.take(reply.result);
  space.other.forget();
  space.other.plan = plan;
  // Structures without warning distances are bone: vessels and nerves have them.
  state.bones = new Set((reply.result.structures ?? []).filter((s) => s.caution_mm == null && s.danger_mm == null).map((s) => s.name));
  state.plan = plan.map((t) => t.name);
  controls.offerPlan(plan);
  controls.offerCases(reply.result.cases ?? []);
  state.redraw = true;
}

async function request(op, args) {
  const name = await user.get();
  if (!name) return refuse(text.refused(text.noName));
  const what = text.ops[op] ?? op;
  say(text.asked(what));
  const reply = await stream.ask(op, args, name);
  if (reply.ok) say(text.done[op] ?? text.asked(what));
  else refuse(reply.error?.code === "unreachable" ? `${what}: ${reply.error.text}` : text.refused(plain(reply.error?.text || reply.error?.code || "")));
  return reply;
}

function acknowledge(id) {
  return request("alert.acknowledge", { alert: id });
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
  [state.shown, state.frozenAt] = [header, now];
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
  const wrong = faultOf(now, state, stream);
  if (hidden) {
    state.waiting = [];
    return conclude(wrong, now);
  }
  const came = takePicture(now);
  const current = shownNow();
  const ages = agesOf(current.entry, current.now);
  const aged = JSON.stringify([ages.registration !== null, [...ages.instruments.keys()], [...ages.objects.keys()]]);
  const drawn = came || state.changed || state.redraw || aged !== state.aged;
  state.aged = aged;
  if (drawn) draw(now);
  // Pictures may go on after guidance has ended: then the numbers must go.
  const unguided = state.frozen ? !current.entry : Boolean(wrong) || now - state.overlayAt > LOST_MS;
  const overlay = unguided ? EMPTY : current.entry.overlay;
  space.draw(now, unguided ? null : overlay, layers.camera, drawn || state.told, state.running);
  alarms.follow(Boolean(wrong) || now - state.overlayAt > LOST_MS ? [] : (state.newest?.distances ?? []));
  const doubt = doubtOf(state.health, overlay, current.when);
  numbers.show(overlay, unguided, ages, state.frozen ? [] : alarms.proximity(), doubt, Math.max(current.now - (current.entry?.received ?? 0), 0));
  pipelineState.show(state.health, unguided ? null : overlay, isHeard(wrong), current.when);
  state.redraw = state.changed = state.told = false;
  controls.registering.tick();
  conclude(wrong, now);
  thinned.show(now, stats.shown, stats.overlays, state.frozen, view.coarse);
  if (came) refreshing.whenPainted(asked, (ms) => stream.drawn(ms));
}

// What the whole screen is of: {entry: {overlay, received}, now, when}. While it is frozen time stands still in it, and `when`
// says of when it is.
function shownNow() {
  const now = performance.now();
  if (!state.frozen) return { entry: state.newest && { overlay: state.newest, received: state.newestAt }, now, when: "" };
  const { moment, held } = state;
  const entry = moment ? moment.overlay && { overlay: moment.overlay, received: moment.at } : held;
  const at = moment ? moment.at : state.frozenAt;
  const when = text.frozenAt(clock(heading.now() - (now - at)), ((now - at) / 1000).toFixed(0));
  return { entry, now: entry ? Math.max(at, entry.received) : at, when };
}

// Freezes the whole screen, or lets it go on.
function freeze(on) {
  [state.frozen, state.moment] = [on, null];
  state.redraw = true;
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
  let entry = state.frozen ? shownNow().entry : state.overlays.get(seq);
  // A frame without its own overlay shows the last one before it, faded, with its age.
  if (!entry && seq !== null && !state.frozen)
    for (const [k, e] of state.overlays) if (k < seq && (!entry || k > entry.overlay.seq)) entry = e;
  if (!state.frozen) state.held = entry;
  const age = entry && seq !== null ? seq - entry.overlay.seq : 0;
  stats.strength = age > OLD_FRAMES ? OLD_OVERLAY_OPACITY : 1;
  const [rows, cols] = state.shown ? [state.shown.rows, state.shown.cols] : [1024, 1024];
  const ages = agesOf(entry, state.frozen ? shownNow().now : now);
  layers.draw(entry?.overlay, rows, cols, stats.strength, ages);
  if (!state.frozen) space.other.take(now, find("picture"), view.region(), entry?.overlay, age > 0 || ages.registration !== null, clock(heading.now()));
  view.loupe(state.loupe ? entry?.overlay : null, rows, cols);
  if (!state.frozen) find("view").dataset.note = age > OLD_FRAMES ? text.overlayOld(age) : "";
  if (entry && !state.frozen && entry.overlay.seq !== stats.overlaySeq) {
    stats.overlayToPixels.push(performance.now() - entry.received);
    if (stats.overlayToPixels.length > MAX_LATENCIES) stats.overlayToPixels.shift();
  }
  stats.drawn++;
  stats.shownSeq = seq;
  stats.overlaySeq = entry?.overlay.seq ?? null;
}

// What holds whether the page is seen or hidden: faults, alarm sounds, notices, the clock.
function conclude(wrong, now) {
  showFault(wrong);
  alarms.sound(Boolean(wrong) && (state.pictureAt > -Infinity || state.overlayAt > -Infinity));
  tick(now, alarms, state.frozen ? null : state.pictureAt);
  heading.tick();
  if (state.frozen) find("view").dataset.note = text.frozen(shownNow().when);
}

function fit() {
  const [rows, cols] = state.shown ? [state.shown.rows, state.shown.cols] : [1, 1];
  const side = view.fit(rows, cols);
  if (state.shown && side !== stream.side) stream.shows(side);
}

Object.assign(window.fluoronav, { stream, request });
asking.noByDefault = text.no;
const controls = addControls({
  state, layers, picture, view, alarms, space, history, panel, ask, user, request, say, freeze, warn: refuse, showMoment, stream,
  current: () => shownNow().entry?.overlay ?? null,
});
panel.opened = (name) => name === "register" && controls.registering.open();
panel.closed = (name) => (name === "register" ? controls.registering.close() : name === "ask" && asking.closed());
refreshing.ask();
