// The patient in space: 3D view, CT slices and the DRR. All of it comes after the first picture, and only when looked at.

import { unpacked } from "./packing.js";
import { text } from "./strings.js";

const find = (id) => document.getElementById(id);
// The picture comes first: where the GPU is a program that shares its cores, space gets a tenth of the time.
const EVERY_MS = 66, SHARE = 0.1, LONGEST_MS = 2000;
const DRR_SIDE = 512;
const PLAN = "#5cc8ff", SHAFT = "#ffb000";

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

  // Loads the case; `running` is the id that the pipeline reports.
  async load(running) {
    if (this.loading && this.running === running) return this.loading;
    this.running = running;
    this.loading = this.fetch(running).catch((error) => {
      this.note(text.noSpace(error.message));
      this.loading = null;
      this.retryAt = performance.now() + 5000;
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

  // Another case: a canvas keeps its context, so new ones take the place of the old.
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

  // Where the slices lie: at the first instrument's tip, or at the plan's target.
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
    this.next = now + Math.min(Math.max(EVERY_MS, took / SHARE), LONGEST_MS);
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
        const scale = DRR_SIDE / Math.max(camera.rows, camera.cols);
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
    const lines = this.plan().map((t) => [t.entry_ct, t.target_ct, PLAN]);
    for (const i of overlay?.instruments ?? [])
      if (i.tip_ct && i.axis_ct) lines.push([i.tip_ct.map((x, k) => x - 120 * i.axis_ct[k]), i.tip_ct, SHAFT]);
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
