// The case's CT on the browser's GPU, and its projection (DRR).

import { DRR_FROM_HU } from "./constants.js";
import { context, program } from "./gl.js";

export const HEAD = `#version 300 es
precision highp float;
precision highp sampler3D;
uniform sampler3D ct;
uniform vec3 origin, size; // LPS mm, of the first voxel's corner and of the whole box
in vec2 at;
out vec4 colour;
`;
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

export class Renderer {
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

export class Drr extends Renderer {
  constructor(canvas, ct) {
    super(canvas, ct, DRR);
  }

  prepare() {
    super.prepare();
    this.set("dense", [this.ct.fraction(DRR_FROM_HU)]);
  }

  // As the camera would see the patient from a pose (16 floats, row-major), in a `region` of the frame: left, top, width, height in
  // parts of it.
  draw(T, camera, region = [0, 0, 1, 1]) {
    const gl = this.gl;
    const back = (v) => [0, 1, 2].map((k) => T[k] * v[0] + T[4 + k] * v[1] + T[8 + k] * v[2]); // camera to patient
    const [[fx, , cx], [, fy, cy]] = camera.K;
    this.set("source", back([-T[3], -T[7], -T[11]]));
    const [left, top, wide, high] = region;
    this.set("corner", back([(left * camera.cols - 0.5 - cx) / fx, (top * camera.rows - 0.5 - cy) / fy, 1]));
    this.set("right", back([(wide * camera.cols) / fx, 0, 0]));
    this.set("down", back([0, (high * camera.rows) / fy, 0]));
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }
}
