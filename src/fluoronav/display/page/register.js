// Checking the registration before it is accepted: the DRR over the picture, three points of bone touched, the residual.

import { button, holdButton } from "./bar.js";
import { LANDMARK_APART, LANDMARK_MARGIN, LANDMARKS, LARGE_RESIDUAL_MM } from "./constants.js";
import { text } from "./strings.js";
import { write } from "./words.js";

const find = (id) => document.getElementById(id);

// A point of the patient in pixels of the frame, and the pixels there to a millimetre; null behind the source.
export function projected(T, camera, p) {
  const at = [0, 1, 2].map((k) => T[4 * k] * p[0] + T[4 * k + 1] * p[1] + T[4 * k + 2] * p[2] + T[4 * k + 3]);
  if (at[2] <= 0) return null;
  const [x, y] = [0, 1].map((k) => (camera.K[k][k] * at[k]) / at[2] + camera.K[k][2]);
  return { px: [x, y], perMm: camera.focal_px / at[2] };
}

// The first points that lie inside the picture and apart from one another, as many as are touched.
export function chosen(landmarks, T, camera) {
  const inside = (x, size) => x > LANDMARK_MARGIN * size && x < (1 - LANDMARK_MARGIN) * size;
  const out = [];
  for (const landmark of landmarks) {
    const at = projected(T, camera, landmark.point_ct)?.px;
    if (!at || !inside(at[0], camera.cols) || !inside(at[1], camera.rows)) continue;
    const near = ({ px }) => Math.hypot(px[0] - at[0], px[1] - at[1]) < LANDMARK_APART * camera.cols;
    if (!out.some(near)) out.push({ ...landmark, px: at });
    if (out.length === LANDMARKS) break;
  }
  return out;
}

export class Registering {
  // `app.current()`: the overlay that is shown.
  constructor(app) {
    this.app = app;
    this.points = []; // {name, point_ct, touched_px, projected_px, mm}
    this.landmarks = null; // of the case; null until they are there
    const pane = find("register");
    const told = pane.appendChild(document.createElement("div"));
    told.className = "told";
    this.words = told.appendChild(document.createElement("p"));
    this.list = told.appendChild(document.createElement("ol"));
    this.residual = pane.appendChild(document.createElement("p"));
    this.residual.className = "residual";
    const decide = pane.appendChild(document.createElement("div"));
    decide.className = "group";
    button(app, decide, "again", () => this.begin());
    this.accept = button(app, decide, "accept", () => this.accepted());
    this.unchecked = holdButton(app, decide, "unchecked", () => this.accepted());
    const apart = pane.appendChild(document.createElement("div"));
    apart.className = "apart";
    holdButton(app, apart, "reject", () => this.rejected());
    this.show();
  }

  // The step is opened: the DRR lies over the picture until the first point is touched.
  async open() {
    this.opened = true;
    this.begin();
    this.app.blend(true);
    if (this.of === this.app.state.running && this.landmarks?.length) return;
    this.of = this.app.state.running;
    const head = await fetch("/case").then((reply) => (reply.ok ? reply.json() : null)).catch(() => null);
    this.landmarks = head?.case === this.app.state.running ? (head.landmarks ?? []) : [];
    this.begin();
  }

  close() {
    this.opened = false;
    this.app.blend(false);
    this.points = [];
    this.mark();
  }

  begin() {
    this.points = [];
    this.mark();
    this.show();
  }

  placed() {
    const overlay = this.app.current();
    return overlay && (overlay.status === "tracking" || overlay.status === "degraded") ? overlay.registration : null;
  }

  // Takes a touched place, in pixels of the frame; returns whether it is used.
  touched(at) {
    const { state } = this.app;
    const registration = this.placed();
    if (!this.opened || !registration || !this.landmarks?.length) return false;
    this.wanted ??= chosen(this.landmarks, registration.T_camera_ct, state.camera);
    const next = this.wanted[this.points.length];
    if (!next) return false;
    this.app.blend(false);
    const seen = projected(registration.T_camera_ct, state.camera, next.point_ct);
    if (!seen) return false;
    const mm = Math.hypot(at[0] - seen.px[0], at[1] - seen.px[1]) / seen.perMm;
    this.points.push({ name: next.name, touched_px: at, projected_px: seen.px, mm });
    this.mark();
    this.show();
    return true;
  }

  mark() {
    this.app.layers.landmarks = this.points;
    this.app.state.redraw = true;
  }

  // Root of the mean square, mm; null until all points are touched.
  rms() {
    if (this.points.length < LANDMARKS) return null;
    return Math.sqrt(this.points.reduce((sum, p) => sum + p.mm ** 2, 0) / this.points.length);
  }

  // Called at each refresh while the step is open.
  tick() {
    if (!this.opened) return;
    if (!this.placed() && this.points.length) this.begin(); // what was touched was of a pose that is no more
    this.show();
  }

  show() {
    const registration = this.placed();
    if (!this.points.length) this.wanted = registration && this.landmarks ? chosen(this.landmarks, registration.T_camera_ct, this.app.state.camera) : null;
    const few = this.landmarks && registration && (this.wanted?.length ?? 0) < LANDMARKS;
    const rms = this.rms();
    const next = this.wanted?.[this.points.length];
    write(this.words, !registration ? text.check.unregistered : !this.landmarks ? text.loadingSpace : few ? text.check.few
      : rms === null ? text.check.touch(next.name, this.points.length + 1, LANDMARKS) : text.check.decide);
    const lines = few ? [] : (this.wanted ?? []).map((w, k) => text.check.line(w.name, this.points[k]?.mm.toFixed(1)));
    if (lines.join() !== this.lines) {
      this.lines = lines.join();
      this.list.replaceChildren(...lines.map((words) => Object.assign(document.createElement("li"), { textContent: words })));
    }
    write(this.residual, rms === null ? "" : text.check.residual(rms.toFixed(1)));
    this.residual.classList.toggle("large", rms !== null && rms > LARGE_RESIDUAL_MM);
    this.accept.disabled = rms === null || !registration;
    this.unchecked.hidden = !few;
  }

  async accepted() {
    const rms = this.rms();
    const check = rms === null ? {} : { residual_mm: rms, landmarks: this.points.map(({ name, mm }) => ({ name, mm })) };
    const reply = await this.app.request("registration.accept", check);
    if (reply?.ok) this.app.panel.open("");
  }

  async rejected() {
    const reply = await this.app.request("registration.reject", {});
    if (reply?.ok) this.app.panel.open("");
  }
}
