// The case's CT on the browser's GPU: slices through a point, and the projection (DRR).

import { DRR_FROM_HU, SLICE_FIELD_MM, SLICE_WINDOW_HU } from "./constants.js";
import { context, program } from "./gl.js";

const HEAD = `#version 300 es
precision highp float;
precision highp sampler3D;
uniform sampler3D ct;
uniform vec3 origin, size; // LPS mm, of the first voxel's corner and of the whole box
in vec2 at;
out vec4 colour;
`;
const SLICE = `${HEAD}
uniform vec3 middle, right, down; // LPS mm; the square's middle and its sides
uniform vec2 window; // fractions of the voxel's range
void main() {
  vec3 p = (middle + (at.x - 0.5) * right + (at.y - 0.5) * down - origin) / size;
  bool inside = all(greaterThanEqual(p, vec3(0))) && all(lessThanEqual(p, vec3(1)));
  float value = inside ? texture(ct, p).r : 0.0;
  colour = vec4(vec3((value - window.x) / (window.y - window.x)), 1.0);
}`;
// Beer's law along the ray, over what is denser than soft tissue, so that bones look as in the frame.
const DRR = `${HEAD}
uniform vec3 source, corner, right, down; // LPS mm; corner, sides: of the picture's plane as seen from the source
uniform float dense;
void main() {
  vec3 ray = normalize(corner + at.x * right + at.y * down);
  vec3 a = (origin - source) / ray, b = (origin + size - source) / ray;
  vec3 low = min(a, b), high = max(a, b);
  float first = max(max(low.x, low.y), low.z), last = min(min(high.x, high.y), high.z);
  float sum = 0.0;
  const int STEPS = 160;
  float step = max(last - first, 0.0) / float(STEPS);
  for (int k = 0; k < STEPS; k++) {
    vec3 p = (source + (first + (float(k) + 0.5) * step) * ray - origin) / size;
    sum += max(texture(ct, p).r - dense, 0.0);
  }
  colour = vec4(vec3(last > first ? exp(-0.09 * sum * step) : 1.0), 1.0);
}`;

export class Ct {
  constructor(head, buffer, offset) {
    this.head = head;
    this.voxels = new Uint8Array(buffer, offset, head.size[0] * head.size[1] * head.size[2]);
    this.origin = head.origin_ct.map((x) => x - head.spacing_mm / 2);
    this.size = head.size.map((n) => n * head.spacing_mm);
  }

  fraction(hu) {
    return (hu - this.head.low_hu) / (this.head.high_hu - this.head.low_hu);
  }
}

class Renderer {
  constructor(canvas, ct, fragment) {
    this.canvas = canvas;
    this.ct = ct;
    this.fragment = fragment;
    this.gl = context(canvas, () => this.prepare());
    this.prepare();
  }

  prepare() {
    const { gl, ct } = this;
    this.program = program(gl, this.fragment);
    gl.bindTexture(gl.TEXTURE_3D, gl.createTexture());
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.R8, ...ct.head.size, 0, gl.RED, gl.UNSIGNED_BYTE, ct.voxels);
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_3D, side, gl.LINEAR);
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R])
      gl.texParameteri(gl.TEXTURE_3D, side, gl.CLAMP_TO_EDGE);
    this.set("origin", ct.origin);
    this.set("size", ct.size);
  }

  // Waits for the GPU, so that the caller can measure the time.
  finish() {
    const gl = this.gl;
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  }

  set(name, value) {
    const gl = this.gl;
    const at = gl.getUniformLocation(this.program, name);
    if (value.length === 3) gl.uniform3fv(at, value);
    else if (value.length === 2) gl.uniform2fv(at, value);
    else gl.uniform1f(at, value);
  }
}

// Right and down on the screen in LPS, as radiologists look at them, and the letters at the four sides.
const VIEWS = [
  { name: "axial", right: [1, 0, 0], down: [0, 1, 0], sides: "RLAP" },
  { name: "sagittal", right: [0, 1, 0], down: [0, 0, -1], sides: "APSI" },
  { name: "coronal", right: [1, 0, 0], down: [0, 0, -1], sides: "RLSI" },
];

export class Slices extends Renderer {
  constructor(canvas, marks, ct) {
    super(canvas, ct, SLICE);
    this.marks = marks;
  }

  prepare() {
    super.prepare();
    this.set("window", SLICE_WINDOW_HU.map((hu) => this.ct.fraction(hu)));
  }

  // Three slices through a point of the patient; `lines` are [from, to, colour] in LPS mm.
  draw(point_ct, lines) {
    const gl = this.gl;
    const side = Math.floor(this.canvas.width / VIEWS.length);
    this.set("middle", point_ct);
    VIEWS.forEach((view, k) => {
      gl.viewport(k * side, 0, side, this.canvas.height);
      for (const way of ["right", "down"]) this.set(way, view[way].map((x) => x * SLICE_FIELD_MM));
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    });
    this.mark(point_ct, lines, side);
  }

  // A point of the patient in pixels of a slice of `side` pixels that is centred at `middle`.
  at(view, point, middle, side) {
    const off = point.map((x, k) => x - middle[k]);
    const along = (way) => off[0] * way[0] + off[1] * way[1] + off[2] * way[2];
    return [side * (0.5 + along(view.right) / SLICE_FIELD_MM), side * (0.5 + along(view.down) / SLICE_FIELD_MM)];
  }

  mark(middle, lines, side) {
    const c = this.marks.getContext("2d");
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, this.marks.width, this.marks.height);
    c.font = `${Math.round(side / 11)}px sans-serif`;
    c.textAlign = "center";
    c.textBaseline = "middle";
    VIEWS.forEach((view, k) => {
      c.setTransform(1, 0, 0, 1, k * side, 0);
      c.save();
      c.beginPath();
      c.rect(0, 0, side - 2, side);
      c.clip();
      for (const [from, to, colour] of lines) {
        c.strokeStyle = colour;
        c.lineWidth = 2;
        c.beginPath();
        c.moveTo(...this.at(view, from, middle, side));
        c.lineTo(...this.at(view, to, middle, side));
        c.stroke();
      }
      c.strokeStyle = "rgb(255 255 255 / 45%)";
      c.lineWidth = 1;
      for (const [a, b] of [[[0, 0.5], [0.42, 0.5]], [[0.58, 0.5], [1, 0.5]], [[0.5, 0], [0.5, 0.42]], [[0.5, 0.58], [0.5, 1]]]) {
        c.beginPath();
        c.moveTo(a[0] * side, a[1] * side);
        c.lineTo(b[0] * side, b[1] * side);
        c.stroke();
      }
      c.fillStyle = "#e8eef2";
      const [left, right, up, down] = view.sides;
      for (const [letter, x, y] of [[left, 0.06, 0.5], [right, 0.94, 0.5], [up, 0.5, 0.07], [down, 0.5, 0.93]])
        c.fillText(letter, x * side, y * side);
      c.restore();
    });
  }
}

export class Drr extends Renderer {
  constructor(canvas, ct) {
    super(canvas, ct, DRR);
  }

  prepare() {
    super.prepare();
    this.set("dense", [this.ct.fraction(DRR_FROM_HU)]);
  }

  // As the camera would see the patient from a pose (16 floats, row-major).
  draw(T, camera) {
    const gl = this.gl;
    const back = (v) => [0, 1, 2].map((k) => T[k] * v[0] + T[4 + k] * v[1] + T[8 + k] * v[2]); // camera to patient
    const [[fx, , cx], [, fy, cy]] = camera.K;
    this.set("source", back([-T[3], -T[7], -T[11]]));
    this.set("corner", back([(-0.5 - cx) / fx, (-0.5 - cy) / fy, 1]));
    this.set("right", back([camera.cols / fx, 0, 0]));
    this.set("down", back([0, camera.rows / fy, 0]));
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }
}
