// The 3D view: structures, plan, instruments and the C-arm in the patient's frame (LPS, mm).

import {
  AmbientLight, BufferAttribute, BufferGeometry, CylinderGeometry, DirectionalLight, DoubleSide, Group, LineBasicMaterial,
  LineSegments, Matrix4, Mesh, MeshLambertMaterial, OrbitControls, PerspectiveCamera, Scene, SphereGeometry, Vector3,
  WebGLRenderer,
} from "./three.js";
import {
  BEAM_LENGTH, BONE_SHADE, GUARDED_COLOUR, MIN_SHAFT_RADIUS_MM, NO_GO_COLOUR, PLAN_COLOUR, SHAFT_COLOUR, SHAFT_MM, TARGET_SHADE,
} from "./constants.js";
import { edgesOf } from "./directions.js";

const BEAM_COLOUR = 0x93a1ab;
const SEE_THROUGH = { transparent: true, opacity: 0.4, depthWrite: false };
const SURFACES = {
  bone: { color: BONE_SHADE },
  target: { color: TARGET_SHADE },
  nerve: { color: GUARDED_COLOUR, ...SEE_THROUGH, opacity: 0.5 },
  vessel: { color: GUARDED_COLOUR, ...SEE_THROUGH, opacity: 0.15 },
  no_go: { color: NO_GO_COLOUR, ...SEE_THROUGH, wireframe: true },
};

export class Scene3d {
  // `towards_ct`: a point on the side to look from until there is a beam to look along, where the instruments enter.
  constructor(canvas, target_ct, towards_ct) {
    this.canvas = canvas;
    this.marks = canvas.cloneNode(false); // letters
    this.marks.id = "scene-letters";
    canvas.after(this.marks);
    this.button = canvas.parentElement.querySelector("button"); // lies over the lower left corner
    this.along = true; // as the picture: from the source
    this.renderer = new WebGLRenderer({ canvas, antialias: true, preserveDrawingBuffer: true });
    this.scene = new Scene();
    this.camera = new PerspectiveCamera(35, 1, 1, 5000);
    this.camera.up.set(0, 0, 1); // towards the head
    this.target = new Vector3(...target_ct);
    // From where the instruments enter, and a little from the side and from above.
    const towards = new Vector3(...towards_ct).sub(this.target).setLength(330);
    this.camera.position.copy(this.target).add(towards).add(new Vector3(-towards.y, towards.x, 0).multiplyScalar(0.45));
    this.camera.position.z += 110;
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.target.copy(this.target);
    this.controls.addEventListener("change", () => (this.changed = true));
    this.controls.addEventListener("start", () => (this.along = false));
    this.controls.update();
    const light = new DirectionalLight(0xffffff, 2.2);
    this.camera.add(light);
    this.scene.add(this.camera, new AmbientLight(0xffffff, 0.9));
    this.instruments = new Group();
    this.planned = new Group();
    this.beam = new LineSegments(new BufferGeometry(), new LineBasicMaterial({ color: BEAM_COLOUR }));
    this.beam.geometry.setAttribute("position", new BufferAttribute(new Float32Array(3 * 24), 3));
    this.beam.frustumCulled = false;
    this.scene.add(this.instruments, this.planned, this.beam);
    this.shafts = new Map();
    this.pixel = new Uint8Array(4);
    this.changed = true;
    this.most = Infinity; // pixels of the longer side
    this.drawn = 0;
  }

  // `meaning(name)` says what a structure is: see meanings.js.
  surfaces(head, buffer, offset, meaning) {
    this.meshes = [];
    for (const s of head.surfaces) {
      const points = new Float32Array(buffer, offset, 3 * s.points);
      offset += points.byteLength;
      const triangles = new Uint32Array(buffer, offset, 3 * s.triangles);
      offset += triangles.byteLength;
      const geometry = new BufferGeometry();
      geometry.setAttribute("position", new BufferAttribute(points, 3));
      geometry.setIndex(new BufferAttribute(triangles, 1));
      geometry.computeVertexNormals();
      const mesh = new Mesh(geometry);
      mesh.name = s.name;
      this.meshes.push(mesh);
      this.scene.add(mesh);
    }
    this.colour(meaning);
  }

  // Gives the surfaces the colours of what they are; again when another level is planned.
  colour(meaning) {
    for (const mesh of this.meshes) {
      const is = meaning(mesh.name);
      if (is === mesh.userData.is) continue;
      mesh.userData.is = is;
      mesh.material = new MeshLambertMaterial({ side: DoubleSide, ...SURFACES[is] });
      this.changed = true;
    }
  }

  end() {
    this.controls.dispose();
    this.renderer.dispose();
    this.marks.remove();
  }

  plan(trajectories) {
    this.planned.clear();
    for (const t of trajectories) {
      const [entry, target] = [new Vector3(...t.entry_ct), new Vector3(...t.target_ct)];
      const path = rod(t.radius_mm, PLAN_COLOUR, { transparent: true, opacity: 0.45, depthWrite: false });
      lay(path, entry, target);
      const end = new Mesh(new SphereGeometry(t.radius_mm * 1.2, 16, 12), new MeshLambertMaterial({ color: PLAN_COLOUR }));
      end.position.copy(target);
      this.planned.add(path, end);
    }
    this.changed = true;
  }

  // Takes the instruments' and the C-arm's poses of an overlay.
  follow(overlay, camera, tools) {
    const shown = new Set();
    for (const i of overlay.instruments) {
      if (!i.tip_ct || !i.axis_ct) continue;
      shown.add(i.id);
      const tool = tools.find((t) => t.id === i.id);
      let shaft = this.shafts.get(i.id);
      if (!shaft) {
        shaft = rod(Math.max((tool?.diameter_mm ?? 2) / 2, MIN_SHAFT_RADIUS_MM), SHAFT_COLOUR);
        shaft.name = i.id;
        this.shafts.set(i.id, shaft);
        this.instruments.add(shaft);
      }
      const tip = new Vector3(...i.tip_ct);
      const length = Math.min(tool?.length_mm ?? SHAFT_MM, SHAFT_MM);
      lay(shaft, tip.clone().addScaledVector(new Vector3(...i.axis_ct), -length), tip);
    }
    for (const [id, shaft] of this.shafts)
      if (!shown.has(id)) {
        this.instruments.remove(shaft);
        this.shafts.delete(id);
      }
    this.follow_beam(overlay.registration?.T_camera_ct, camera);
    this.changed = true;
  }

  follow_beam(T, camera) {
    this.T = T && camera ? T : null;
    this.K = camera;
    if (!this.T) {
      this.beam.visible = false;
      return;
    }
    const T_ct_camera = new Matrix4().set(...T).invert();
    const depth = this.target.clone().applyMatrix4(new Matrix4().set(...T)).z * BEAM_LENGTH;
    const source = new Vector3().applyMatrix4(T_ct_camera);
    const [[fx, , cx], [, fy, cy]] = camera.K;
    const corners = [[0, 0], [camera.cols, 0], [camera.cols, camera.rows], [0, camera.rows]].map(([x, y]) =>
      new Vector3(((x - 0.5 - cx) / fx) * depth, ((y - 0.5 - cy) / fy) * depth, depth).applyMatrix4(T_ct_camera));
    const ends = corners.flatMap((p, k) => [source, p, p, corners[(k + 1) % 4]]);
    this.beam.geometry.attributes.position.array.set(ends.flatMap((p) => [p.x, p.y, p.z]));
    this.beam.geometry.attributes.position.needsUpdate = true;
  }

  // Looks along the beam, as the picture does: the same side is left, and the same place is the middle.
  look_along_beam() {
    this.along = this.changed = true;
  }

  // Puts the eye into the X-ray source, with the picture's axes and its field; otherwise leaves it where a person put it.
  aim() {
    const { camera, T, K } = this, follows = this.along && T;
    this.beam.visible = Boolean(T) && !follows;
    camera.aspect = this.canvas.clientWidth / this.canvas.clientHeight;
    if (!follows) return camera.updateProjectionMatrix();
    const back = new Matrix4().set(T[0], T[1], T[2], 0, -T[4], -T[5], -T[6], 0, -T[8], -T[9], -T[10], 0, 0, 0, 0, 1).transpose();
    camera.position.set(...[0, 1, 2].map((k) => -(T[k] * T[3] + T[4 + k] * T[7] + T[8 + k] * T[11])));
    camera.quaternion.setFromRotationMatrix(back);
    const [[fx, , cx], [, fy, cy]] = K.K;
    const high = Math.max(K.rows, K.cols / camera.aspect) / 2, wide = high * camera.aspect; // of what is shown, half, px
    camera.fov = (360 / Math.PI) * Math.atan(high / fy);
    camera.updateProjectionMatrix();
    const e = camera.projectionMatrix.elements;
    [e[0], e[8], e[9]] = [fx / wide, -(cx + 0.5 - K.cols / 2) / wide, (cy + 0.5 - K.rows / 2) / high];
    camera.projectionMatrixInverse.copy(camera.projectionMatrix).invert();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const size = `${width} ${height} ${devicePixelRatio}`;
    if (size !== this.size && width && height) {
      this.size = size;
      this.renderer.setPixelRatio(Math.min(devicePixelRatio, this.most / Math.max(width, height)));
      this.renderer.setSize(width, height, false);
      this.changed = true;
    }
    if (!this.changed || !width) return;
    this.changed = false;
    this.aim();
    this.renderer.render(this.scene, this.camera);
    this.letters();
    const gl = this.renderer.getContext();
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, this.pixel); // waits for the GPU, so that its time is known
    this.drawn++;
  }

  // The patient's directions at the edges, as in the picture.
  letters() {
    const { marks, camera } = this, { width, height } = this.canvas;
    if (marks.width !== width || marks.height !== height) [marks.width, marks.height] = [width, height];
    camera.updateMatrixWorld();
    const e = camera.matrixWorld.elements; // its columns are the camera's axes in the patient: right, up, back
    this.edges = edgesOf([e[0], e[1], e[2], 0, -e[4], -e[5], -e[6], 0]);
    const c = marks.getContext("2d"), size = Math.max(width, height) / 18, inset = 0.8 * size;
    c.clearRect(0, 0, width, height);
    [c.font, c.textAlign, c.textBaseline, c.lineJoin] = [`700 ${size}px sans-serif`, "center", "middle", "round"];
    [c.fillStyle, c.strokeStyle, c.lineWidth] = ["#ffffff", "rgb(0 0 0 / 75%)", size / 7];
    const low = height - inset - this.covered(width / 2 - size / 2);
    this.places = { left: [inset, height / 2], right: [width - inset, height / 2], top: [width / 2, inset], bottom: [width / 2, low] };
    for (const [edge, at] of Object.entries(this.places)) {
      c.strokeText(this.edges[edge], ...at);
      c.fillText(this.edges[edge], ...at);
    }
  }

  // The height of what the button covers at the lower edge, if it reaches to column `x`; pixels of the canvas.
  covered(x) {
    const [box, button] = [this.canvas, this.button].map((element) => element.getBoundingClientRect());
    const scale = this.canvas.width / box.width;
    return (button.right - box.left) * scale > x ? (box.bottom - button.top) * scale : 0;
  }

  // Where a point of the patient is on the canvas, CSS pixels; for tests.
  project(point_ct) {
    this.aim();
    this.camera.updateMatrixWorld();
    const p = new Vector3(...point_ct).project(this.camera);
    return [((p.x + 1) / 2) * this.canvas.clientWidth, ((1 - p.y) / 2) * this.canvas.clientHeight];
  }
}

function rod(radius, color, more = {}) {
  return new Mesh(new CylinderGeometry(radius, radius, 1, 20), new MeshLambertMaterial({ color, ...more }));
}

// Lays a rod of length 1 from one point to another.
function lay(mesh, from, to) {
  const way = to.clone().sub(from);
  mesh.position.copy(from).addScaledVector(way, 0.5);
  mesh.scale.set(1, way.length(), 1);
  mesh.quaternion.setFromUnitVectors(new Vector3(0, 1, 0), way.normalize());
}
