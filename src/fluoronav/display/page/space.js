// The patient in space: 3D view, CT slices and the DRR. They are loaded after the first picture, when they are first shown.

import {
  DRR_SIDE_PX, MAX_SPACE_PAUSE_MS, PLAN_COLOUR, SHAFT_COLOUR, SHAFT_MM, SPACE_EVERY_MS, SPACE_RETRY_MS, SPACE_TIME_FRACTION,
} from "./constants.js";
import { unpacked } from "./packing.js";
import { text } from "./strings.js";

const find = (id) => document.getElementById(id);

export class Space {
  constructor() {
    this.shown = false;
    this.case = null; // the head of the case that is loaded
    this.loading = null; // its promise
    this.next = 0;
    this.drr_on = false;
    this.chosen = null; // names of the trajectories that are in use; null: all
    this.drawn = { slices: 0, drr: 0 };
    this.note("");
  }

  note(words) {
    find("space-note").textContent = words;
  }

  // Loads the case; `running` is the id of the pipeline's case.
  async load(running) {
    if (this.loading && this.running === running) return this.loading;
    this.running = running;
    this.loading = this.fetch(running).catch((error) => {
      this.note(text.noSpace(error.message));
      this.loading = null;
      this.retryAt = performance.now() + SPACE_RETRY_MS;
    });
    return this.loading;
  }

  async fetch(running) {
    this.note(text.loadingSpace);
    this.forget();
    const reply = await fetch("/case");
    if (!reply.ok) throw new Error(await reply.text());
    const head = await reply.json();
    if (head.case !== running) throw new Error(text.otherCase(head.case, running));
    const [{ Scene3d }, { Ct, Drr, Slices }, surfaces, box] = await Promise.all([
      import("./scene.js"), import("./volume.js"), parts("/case/surfaces"), parts("/case/ct"),
    ]);
    const ct = new Ct(box.head, box.buffer, box.offset);
    const behind = head.target_ct.map((x, k) => x + [0, 100, 0][k]);
    this.scene = new Scene3d(find("scene"), head.target_ct, head.plan[0]?.entry_ct ?? behind);
    this.scene.surfaces(surfaces.head, surfaces.buffer, surfaces.offset);
    this.slices = new Slices(find("slices"), find("slices-marks"), ct);
    this.drr = new Drr(find("drr"), ct);
    this.case = head;
    this.scene.plan(this.plan());
    this.note("");
  }

  // For another case: a canvas keeps its context, so the canvases are replaced.
  forget() {
    this.case = null;
    if (!this.scene) return;
    this.scene.end();
    for (const id of ["scene", "slices", "slices-marks", "drr"]) {
      const old = find(id), anew = old.cloneNode(false);
      old.getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();
      old.replaceWith(anew);
    }
    this.scene = this.slices = this.drr = null;
    this.drawn.slices = 0;
    this.chosen = null;
  }

  plan() {
    return (this.case?.plan ?? []).filter((t) => !this.chosen || this.chosen.includes(t.name));
  }

  choose(names) {
    this.chosen = names;
    if (this.case) this.scene?.plan(this.plan());
  }

  // The point of the slices: the first instrument's tip, or the plan's target.
  middle(overlay) {
    return overlay?.instruments.find((i) => i.tip_ct)?.tip_ct ?? this.plan()[0]?.target_ct ?? this.case.target_ct;
  }

  // Called at each refresh of the screen.
  draw(now, overlay, camera, anew, running) {
    if ((this.shown || this.drr_on) && running && (!this.loading || this.running !== running) && now > (this.retryAt ?? 0))
      this.load(running);
    if (!this.case) return;
    this.anew ||= anew;
    if (now < this.next) return;
    this.redraw(overlay, camera);
    const took = performance.now() - now;
    this.next = now + Math.min(Math.max(SPACE_EVERY_MS, took / SPACE_TIME_FRACTION), MAX_SPACE_PAUSE_MS);
  }

  redraw(overlay, camera) {
    if (this.shown) {
      if (this.anew && overlay) this.scene.follow(overlay, camera, this.case.tools);
      this.scene.draw();
      if (this.anew || !this.drawn.slices) this.draw_slices(overlay);
    }
    const T = overlay?.registration?.T_camera_ct;
    const canvas = find("drr");
    canvas.hidden = !(this.drr_on && T);
    if (!canvas.hidden && (this.anew || this.drr_new)) {
      if (!canvas.sized) {
        const scale = DRR_SIDE_PX / Math.max(camera.rows, camera.cols);
        [canvas.width, canvas.height, canvas.sized] = [Math.round(camera.cols * scale), Math.round(camera.rows * scale), true];
      }
      this.drr.draw(T, camera);
      this.drr.finish();
      this.drawn.drr++;
    }
    this.drr_new = false;
    this.anew = false;
  }

  draw_slices(overlay) {
    const canvas = find("slices"), marks = find("slices-marks");
    const side = Math.round((canvas.clientWidth * devicePixelRatio) / 3);
    if (!side) return;
    if (canvas.width !== 3 * side || canvas.height !== side)
      for (const c of [canvas, marks]) [c.width, c.height] = [3 * side, side];
    const lines = this.plan().map((t) => [t.entry_ct, t.target_ct, PLAN_COLOUR]);
    for (const i of overlay?.instruments ?? [])
      if (i.tip_ct && i.axis_ct) lines.push([i.tip_ct.map((x, k) => x - SHAFT_MM * i.axis_ct[k]), i.tip_ct, SHAFT_COLOUR]);
    this.slices.draw(this.middle(overlay), lines);
    this.slices.finish();
    this.drawn.slices++;
  }
}

async function parts(address) {
  const reply = await fetch(address);
  if (!reply.ok) throw new Error(await reply.text());
  return unpacked(await reply.arrayBuffer());
}
