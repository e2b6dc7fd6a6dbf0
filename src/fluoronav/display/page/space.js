// The patient in space: 3D view, CT slices and the DRR. They are loaded after the first picture, when they are first shown.

import {
  DRR_SIDE_PX, MAX_SPACE_PAUSE_MS, SPACE_EVERY_MS, SPACE_MAX_PX, SPACE_RETRY_MS, SPACE_TIME_FRACTION,
} from "./constants.js";
import { OtherView } from "./other_view.js";
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
    this.preset = "space"; // or "slices", "probe", "other"
    this.meaning = () => "bone"; // of a structure's name
    this.region = () => [0, 0, 1, 1]; // what is shown of the frame, in parts of it
    this.gpu = true; // otherwise fewer pixels are drawn
    this.other = new OtherView(find("other"));
    this.drawn = { slices: 0, drr: 0, probe: 0, other: 0 };
    this.note("");
    // At once: until it is drawn anew, a canvas of another shape is stretched.
    addEventListener("resize", () => ([this.anew, this.drr_new, this.next] = [true, true, 0]));
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
    const [{ Scene3d }, { Ct, Drr }, slicing, surfaces, box] = await Promise.all([
      import("./scene.js"), import("./volume.js"), import("./slices.js"), parts("/case/surfaces"), parts("/case/ct"),
    ]);
    this.slicing = slicing;
    const ct = new Ct(box.head, box.buffer, box.offset);
    const behind = head.target_ct.map((x, k) => x + [0, 100, 0][k]);
    this.scene = new Scene3d(find("scene"), head.target_ct, head.plan[0]?.entry_ct ?? behind);
    this.scene.most = this.most;
    this.scene.surfaces(surfaces.head, surfaces.buffer, surfaces.offset, this.meaning);
    this.slices = new slicing.Slices(find("slices"), find("slices-marks"), ct);
    this.ct = ct;
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
    for (const id of ["scene", "slices", "slices-marks", "drr", "probe"]) {
      find("probe-marks")?.remove();
      const old = find(id), anew = old.cloneNode(false);
      old.getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();
      old.replaceWith(anew);
    }
    this.scene = this.slices = this.drr = this.probe = null;
    this.drawn.slices = this.drawn.probe = 0;
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

  get most() {
    return this.gpu ? Infinity : SPACE_MAX_PX;
  }

  // Called at each refresh of the screen.
  draw(now, overlay, camera, anew, running) {
    if ((this.shown || this.drr_on) && running && (!this.loading || this.running !== running) && now > (this.retryAt ?? 0))
      this.load(running);
    this.anew ||= anew;
    if (this.preset !== this.drawn_preset) [this.drawn_preset, this.anew, this.next] = [this.preset, true, now];
    if (now < this.next) return;
    this.redraw(now, overlay, camera);
    const took = performance.now() - now;
    this.next = now + Math.min(Math.max(SPACE_EVERY_MS, took / SPACE_TIME_FRACTION), MAX_SPACE_PAUSE_MS);
  }

  redraw(now, overlay, camera) {
    if (this.shown && this.preset === "other" && (this.anew || now > this.other.due)) {
      this.other.draw(now, overlay, camera);
      this.drawn.other++;
    }
    if (this.case) {
      if (this.shown) this.draw_case(overlay, camera);
      this.draw_drr(overlay, camera);
    }
    this.drr_new = this.anew = false;
  }

  draw_case(overlay, camera) {
    if (this.preset === "space") {
      this.scene.colour(this.meaning);
      if (this.anew && overlay) this.scene.follow(overlay, camera, this.case.tools);
      this.scene.draw();
    }
    if ((this.preset === "space" || this.preset === "slices") && (this.anew || !this.drawn.slices)) this.draw_slices(overlay);
    if (this.preset === "probe" && this.anew) this.draw_probe(overlay);
  }

  draw_drr(overlay, camera) {
    const T = overlay?.registration?.T_camera_ct;
    const canvas = find("drr");
    canvas.hidden = !(this.drr_on && T);
    if (canvas.hidden || !(this.anew || this.drr_new)) return;
    if (!canvas.sized) {
      const scale = DRR_SIDE_PX / Math.max(camera.rows, camera.cols);
      [canvas.width, canvas.height, canvas.sized] = [Math.round(camera.cols * scale), Math.round(camera.rows * scale), true];
    }
    canvas.region = this.region();
    this.drr.draw(T, camera, canvas.region);
    this.drr.finish();
    this.drawn.drr++;
  }

  draw_slices(overlay) {
    if (!this.slices.fit(this.most)) return;
    this.slices.draw(this.slicing.slicesAt(this.middle(overlay)), this.slicing.linesOf(this.plan(), overlay?.instruments ?? []));
    this.slices.finish();
    this.drawn.slices++;
  }

  // Slices along the first instrument whose direction is known.
  draw_probe(overlay) {
    if (!this.probe) {
      const marks = find("probe").cloneNode(false);
      marks.id = "probe-marks";
      find("probe").after(marks);
      this.probe = new this.slicing.Slices(find("probe"), marks, this.ct);
    }
    if (!this.probe.fit(this.most)) return;
    const found = (overlay?.instruments ?? []).map((i) => this.slicing.slicesOf(i)).find(Boolean);
    if (found) this.probe.draw(found, this.slicing.linesOf(this.plan(), overlay.instruments));
    else this.probe.say(text.noDirection);
    this.probe.finish();
    this.probe_views = found ?? null;
    this.drawn.probe++;
  }
}

async function parts(address) {
  const reply = await fetch(address);
  if (!reply.ok) throw new Error(await reply.text());
  return unpacked(await reply.arrayBuffer());
}
