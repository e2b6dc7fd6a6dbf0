// The 3D view: surfaces of structures, screws, pieces of bone.

import * as cornerstone from "./cornerstone.js";
import { packed } from "./api.js";
import { started } from "./cuts.js";
import { along, cross, minus } from "./grid.js";
import { GRADES } from "./marks.js";

const { Enums, ToolEnums, ToolGroupManager, vtkActor, vtkCellArray, vtkDataArray, vtkMapper, vtkPoints, vtkPolyData } = cornerstone;
const NAME = "space", SIDES = 20;
const NEAR_MM = 55; // half the height of the picture of a screw; chosen: three vertebrae
const RENDER_EVERY_MS = 1500; // while surfaces come in: each picture of all takes long without a graphics processor
const QUICK_MS = 60; // a picture that takes longer is not drawn anew while a person changes the surgery; chosen
const OPACITY = { kerf: 0.5, resection: 0.45, ghost: 0.2 }; // of bodies of the surgery; pieces and implants are solid
const FROM = { A: [0, -1, 0], P: [0, 1, 0], L: [1, 0, 0], R: [-1, 0, 0], H: [0, 0, 1], F: [0, 0, -1] };

const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16) / 255);

function normalsOf(points, triangles) {
  const normals = new Float32Array(points.length);
  for (let t = 0; t < triangles.length; t += 3) {
    const [a, b, c] = [triangles[t] * 3, triangles[t + 1] * 3, triangles[t + 2] * 3];
    const [ux, uy, uz] = [points[b] - points[a], points[b + 1] - points[a + 1], points[b + 2] - points[a + 2]];
    const [vx, vy, vz] = [points[c] - points[a], points[c + 1] - points[a + 1], points[c + 2] - points[a + 2]];
    const [nx, ny, nz] = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
    for (const at of [a, b, c]) {
      normals[at] += nx;
      normals[at + 1] += ny;
      normals[at + 2] += nz;
    }
  }
  for (let k = 0; k < normals.length; k += 3) {
    const length = Math.hypot(normals[k], normals[k + 1], normals[k + 2]) || 1;
    normals[k] /= length;
    normals[k + 1] /= length;
    normals[k + 2] /= length;
  }
  return normals;
}

// What is seen through shows its near side alone: its far side would hide as much again.
function translucent(actor, opacity) {
  actor.getProperty().setOpacity(opacity);
  actor.getProperty().setBackfaceCulling(opacity < 1);
}

function actorOf(points, triangles, colour, opacity) {
  const cells = new Uint32Array((triangles.length / 3) * 4);
  for (let t = 0, c = 0; t < triangles.length; t += 3) {
    cells[c++] = 3;
    for (let k = 0; k < 3; k++) cells[c++] = triangles[t + k];
  }
  const data = vtkPolyData.newInstance();
  const place = vtkPoints.newInstance();
  place.setData(points, 3);
  data.setPoints(place);
  data.setPolys(vtkCellArray.newInstance({ values: cells }));
  data.getPointData().setNormals(vtkDataArray.newInstance({ name: "Normals", numberOfComponents: 3, values: normalsOf(points, triangles) }));
  const mapper = vtkMapper.newInstance({ scalarVisibility: false });
  mapper.setInputData(data);
  const actor = vtkActor.newInstance();
  actor.setMapper(mapper);
  actor.getProperty().setColor(...rgb(colour));
  translucent(actor, opacity);
  actor.getProperty().setSpecular(0.2);
  actor.getProperty().setAmbient(0.15);
  return actor;
}

// A closed cylinder from one point to another.
function cylinder(from, to, radius) {
  const axis = minus(to, from);
  const length = Math.hypot(...axis);
  const w = axis.map((x) => x / length);
  let u = cross(w, Math.abs(w[2]) < 0.9 ? [0, 0, 1] : [1, 0, 0]);
  u = u.map((x) => x / Math.hypot(...u));
  const v = cross(w, u);
  const points = [...from, ...to], triangles = [];
  for (let k = 0; k < SIDES; k++) {
    const angle = (2 * Math.PI * k) / SIDES;
    const out = along(u.map((x) => x * Math.cos(angle) * radius), v, Math.sin(angle) * radius);
    points.push(...along(from, out, 1), ...along(to, out, 1));
    const [a, b] = [2 + 2 * k, 2 + 2 * ((k + 1) % SIDES)];
    triangles.push(a, b, a + 1, b, b + 1, a + 1, 0, b, a, 1, a + 1, b + 1);
  }
  return [Float32Array.from(points), Uint32Array.from(triangles)];
}

export class Space {
  // While `held()` nothing is drawn.
  constructor(box, scene, held) {
    Object.assign(this, { box, scene, held });
    this.surfaces = new Map(); // label: {version, actor}
    this.screws = new Set();
    this.shownBodies = [];
    this.asked = 0;
  }

  show() {
    const engine = started();
    engine.enableElement({ viewportId: NAME, type: Enums.ViewportType.VOLUME_3D, element: this.box, defaultOptions: { background: [0.03, 0.04, 0.05] } });
    this.viewport = engine.getViewport(NAME);
    ToolGroupManager.destroyToolGroup(NAME);
    this.tools = ToolGroupManager.createToolGroup(NAME);
    this.tools.addViewport(NAME, "workspace");
    for (const tool of ["TrackballRotate", "Zoom", "Pan"]) this.tools.addTool(tool);
    const { Primary, Secondary, Auxiliary } = ToolEnums.MouseBindings;
    this.tools.setToolActive("TrackballRotate", { bindings: [{ mouseButton: Primary }] });
    this.tools.setToolActive("Zoom", { bindings: [{ mouseButton: Secondary }, { numTouchPoints: 2 }] });
    this.tools.setToolActive("Pan", { bindings: [{ mouseButton: Auxiliary }] });
    this.box.addEventListener("wheel", (event) => {
      event.preventDefault();
      const camera = this.viewport.getVtkActiveCamera();
      camera.setParallelScale(camera.getParallelScale() * (event.deltaY > 0 ? 1.1 : 1 / 1.1));
      this.viewport.render();
    });
  }

  // Loads and shows the surfaces of these structures, one after the other; `path(structure)` is of a revision or of the session.
  async structures(path, wanted) {
    const mine = ++this.asked;
    const labels = new Set(wanted.map((s) => s.label));
    for (const label of [...this.surfaces.keys()]) if (!labels.has(label)) this.#drop(label);
    for (const { label, colour, opacity, version } of wanted) {
      const address = `${path({ label })}/surfaces/${label}`;
      const have = this.surfaces.get(label);
      if (have?.version === version) {
        translucent(have.actor, opacity);
        have.actor.getProperty().setColor(...rgb(colour));
        continue;
      }
      const { head, payload } = await packed(address);
      while (this.held()) await new Promise((done) => setTimeout(done, 300));
      if (mine !== this.asked) return;
      this.#drop(label);
      if (!head.points) continue;
      const points = new Float32Array(payload, 0, head.points * 3);
      const triangles = new Uint32Array(payload, head.points * 12, head.triangles * 3);
      const actor = actorOf(points, triangles, colour, opacity);
      this.surfaces.set(label, { version, actor });
      this.viewport.addActor({ uid: `surface-${label}`, actor });
      if (performance.now() - (this.rendered ?? 0) < RENDER_EVERY_MS) continue;
      if (!this.aimed) this.from("A");
      this.viewport.render();
      this.rendered = performance.now();
    }
    if (!this.aimed) this.from("A");
    this.aimed ||= this.surfaces.size > 0;
    this.viewport.render();
  }

  #drop(label) {
    if (!this.surfaces.delete(label)) return;
    this.viewport.removeActors([`surface-${label}`]);
  }

  drawScrews() {
    if (!this.viewport) return;
    this.viewport.removeActors([...this.screws]);
    this.screws.clear();
    if (this.scene.layers.screws)
      for (const screw of this.scene.screws()) {
        const colour = screw.id === this.scene.chosen ? "#ffffff" : screw.colour ?? GRADES[screw.grade] ?? "#ffb000";
        const actor = actorOf(...cylinder(screw.entry_ct, screw.tip_ct, screw.diameter_mm / 2), colour, 1);
        const uid = `screw-${screw.id}`;
        this.screws.add(uid);
        this.viewport.addActor({ uid, actor });
      }
    this.viewport.render();
  }

  // Shows the bodies of the planned surgery; while a person changes it only where pictures are quick, else when the hand rests.
  drawBodies(bodies, changing = false) {
    if (!this.viewport || (changing && (this.picture_ms ?? Infinity) > QUICK_MS)) return;
    if (this.shownBodies.length) this.viewport.removeActors(this.shownBodies);
    this.shownBodies = [];
    if (this.scene.layers.surgery)
      for (const [k, { points, triangles, colour, kind }] of bodies.entries()) {
        const uid = `surgery-${k}`;
        this.viewport.addActor({ uid, actor: actorOf(points, triangles, colour, OPACITY[kind] ?? 1) });
        this.shownBodies.push(uid);
      }
    const begun = performance.now();
    this.viewport.render();
    requestAnimationFrame(() => requestAnimationFrame(() => (this.picture_ms = performance.now() - begun)));
  }

  // Looks at the patient from a side.
  from(letter) {
    const towards = FROM[letter];
    this.viewport.setCamera({ viewPlaneNormal: towards, viewUp: Math.abs(towards[2]) ? [0, -1, 0] : [0, 0, 1] });
    this.viewport.resetCamera({ resetPan: true, resetZoom: true, resetToCenter: true });
    this.viewport.setCamera({ viewPlaneNormal: towards, viewUp: Math.abs(towards[2]) ? [0, -1, 0] : [0, 0, 1] });
    if (this.middle) this.near(this.middle);
    this.viewport.render();
  }

  // Looks at a point from near, from where it looks now; undefined: at everything from the next side on.
  near(point) {
    this.middle = point;
    if (!point || !this.viewport) return;
    const { focalPoint, position } = this.viewport.getCamera();
    this.viewport.setCamera({ focalPoint: point, position: along(point, minus(position, focalPoint), 1), parallelScale: NEAR_MM });
  }

  close() {
    ToolGroupManager.destroyToolGroup(NAME);
    if (this.viewport) started().disableElement(NAME);
  }
}
