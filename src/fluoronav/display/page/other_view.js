// The last picture of another view of the C-arm, beside the live one. It is kept when the beam turns; the instrument is drawn
// into it where it is now, since both views are registered to the same patient.

import { OTHER_VIEW_DEG, OTHER_VIEW_PX, PLAN_COLOUR, SHAFT_COLOUR, SHAFT_MM, SNAPSHOT_EVERY_MS, SOFTWARE_LAYER_PX } from "./constants.js";
import { betweenBeams, edgesOf, viewOf } from "./directions.js";
import { text } from "./strings.js";

export class OtherView {
  constructor(canvas) {
    this.canvas = canvas;
    this.plan = []; // the case's trajectories
    this.spare = [document.createElement("canvas"), document.createElement("canvas")];
    this.forget();
  }

  // For another patient, or when the registration was rejected.
  forget() {
    this.latest = this.kept = null; // {image, T, region, at, when}
    this.next = 0;
    this.due = 0;
  }

  // Takes the picture that is drawn; `when` is the time of day. Frames without a measured pose are not kept.
  take(now, picture, region, overlay, held, when) {
    const T = overlay?.registration?.T_camera_ct;
    if (!T || held || overlay.status !== "tracking") return;
    if (this.latest && betweenBeams(T, this.latest.T) > OTHER_VIEW_DEG) {
      if (this.kept) this.spare.push(this.kept.image);
      [this.kept, this.latest, this.next] = [this.latest, null, 0];
    }
    if (now < this.next) return;
    this.next = now + SNAPSHOT_EVERY_MS;
    const image = this.latest?.image ?? this.spare.pop() ?? document.createElement("canvas");
    const scale = OTHER_VIEW_PX / Math.max(picture.width, picture.height);
    [image.width, image.height] = [Math.round(picture.width * scale), Math.round(picture.height * scale)];
    image.getContext("2d").drawImage(picture, 0, 0, image.width, image.height);
    this.latest = { image, T, region, at: now, when };
  }

  // Draws what is kept, with the instruments of an overlay (null: unknown); `camera` as in the server's hello.
  draw(now, overlay, camera) {
    const { canvas, kept } = this;
    const scale = Math.min(devicePixelRatio, SOFTWARE_LAYER_PX / Math.max(canvas.clientWidth, canvas.clientHeight, 1));
    const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
    this.due = now + SNAPSHOT_EVERY_MS; // its age goes on
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const c = canvas.getContext("2d");
    c.setTransform(1, 0, 0, 1, 0, 0);
    [c.fillStyle, c.lineJoin] = ["#000", "round"];
    c.fillRect(0, 0, width, height);
    const unit = width / 650;
    this.words = (said, x, y, size, align = "center", colour = "#ffffff") => {
      [c.font, c.textAlign, c.textBaseline] = [`700 ${size * unit}px sans-serif`, align, "middle"];
      [c.strokeStyle, c.fillStyle, c.lineWidth] = ["rgb(0 0 0 / 75%)", colour, (size / 7) * unit];
      c.strokeText(said, x, y);
      c.fillText(said, x, y);
    };
    if (!kept) {
      text.noOtherView.forEach((line, k) => this.words(line, width / 2, height / 2 + 34 * k * unit, 24, "center", "#a3b0ba"));
      return;
    }
    const side = Math.min(width, (height * kept.image.width) / kept.image.height), tall = (side * kept.image.height) / kept.image.width;
    const [x, y] = [(width - side) / 2, (height - tall) / 2];
    c.drawImage(kept.image, x, y, side, tall);
    if (camera) this.marks(c, overlay, camera, { x, y, side, tall, unit });
    this.letters(kept.T, { x, y, side, tall, unit });
    this.words(text.otherView(viewOf(kept.T), kept.when), x + 12 * unit, y + 26 * unit, 24, "start", "#ffd23f");
    this.words(text.otherAge(Math.max(now - kept.at, 0) / 1000), x + 12 * unit, y + 58 * unit, 24, "start", "#ffd23f");
  }

  // A point of the patient in the kept picture, in pixels of the frame; null behind the source.
  project(point_ct, camera) {
    const { T } = this.kept, [x, y, z] = [0, 4, 8].map((k) => T[k] * point_ct[0] + T[k + 1] * point_ct[1] + T[k + 2] * point_ct[2] + T[k + 3]);
    return z > 0 ? [(camera.K[0][0] * x) / z + camera.K[0][2], (camera.K[1][1] * y) / z + camera.K[1][2]] : null;
  }

  marks(c, overlay, camera, { x, y, side, tall, unit }) {
    const [left, top, wide, high] = this.kept.region;
    const place = (point_ct) => {
      const at = this.project(point_ct, camera);
      return at && [x + (((at[0] + 0.5) / camera.cols - left) / wide) * side, y + (((at[1] + 0.5) / camera.rows - top) / high) * tall];
    };
    c.save();
    c.beginPath();
    c.rect(x, y, side, tall);
    c.clip();
    const line = (from, to, colour, width, dash = []) => {
      const ends = [place(from), place(to)];
      if (!ends[0] || !ends[1]) return;
      c.setLineDash(dash.map((n) => n * unit));
      for (const [stroke, wide] of [["rgb(0 0 0 / 75%)", width + 2], [colour, width]]) {
        [c.strokeStyle, c.lineWidth] = [stroke, wide * unit];
        c.beginPath();
        c.moveTo(...ends[0]);
        c.lineTo(...ends[1]);
        c.stroke();
      }
      c.setLineDash([]);
    };
    for (const t of this.plan.filter((t) => t.entry_ct)) line(t.entry_ct, t.target_ct, PLAN_COLOUR, 3, [12, 7]);
    for (const i of overlay?.instruments ?? []) {
      if (!i.tip_ct) continue;
      if (i.axis_ct) line(i.tip_ct.map((v, k) => v - SHAFT_MM * i.axis_ct[k]), i.tip_ct, SHAFT_COLOUR, 4);
      const at = place(i.tip_ct);
      if (!at) continue;
      c.fillStyle = SHAFT_COLOUR;
      c.beginPath();
      c.arc(...at, 6 * unit, 0, 7);
      c.fill();
    }
    c.restore();
    this.tips = (overlay?.instruments ?? []).filter((i) => i.tip_ct).map((i) => place(i.tip_ct)); // for tests
  }

  letters(T, { x, y, side, tall, unit }) {
    const { left, right, top, bottom } = edgesOf(T), inset = 30 * unit;
    for (const [letter, at] of [[left, [x + inset, y + tall / 2]], [right, [x + side - inset, y + tall / 2]], [top, [x + side / 2, y + inset]], [bottom, [x + side / 2, y + tall - inset]]])
      if (letter) this.words(letter, ...at, 44);
  }
}
