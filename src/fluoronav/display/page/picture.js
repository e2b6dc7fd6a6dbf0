// The frame on the browser's GPU: counts as they came, window and level in the shader.

import { context, program } from "./gl.js";

// Integer textures are not filtered by the GPU, so four texels are blended here.
const FRAGMENT = `#version 300 es
precision highp float;
precision highp usampler2D;
uniform usampler2D frame;
uniform vec2 size;
uniform float low, high;
in vec2 at;
out vec4 colour;
float counts(ivec2 p) { return float(texelFetch(frame, clamp(p, ivec2(0), ivec2(size) - 1), 0).r); }
void main() {
  vec2 p = at * size - 0.5;
  ivec2 i = ivec2(floor(p));
  vec2 f = fract(p);
  float value = mix(mix(counts(i), counts(i + ivec2(1, 0)), f.x), mix(counts(i + ivec2(0, 1)), counts(i + ivec2(1, 1)), f.x), f.y);
  colour = vec4(vec3((value - low) / (high - low)), 1.0);
}`;

export class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = context(canvas, () => this.prepare());
    this.rows = this.cols = 0;
    this.window = null; // [low, high] as shares of full scale, once somebody has dragged
    this.range = [0, 1];
    this.prepare();
  }

  prepare() {
    const gl = this.gl;
    const used = program(gl, FRAGMENT);
    this.at = Object.fromEntries(["size", "low", "high"].map((name) => [name, gl.getUniformLocation(used, name)]));
    this.rows = this.cols = 0;
  }

  // Takes a frame's pixels to the GPU.
  take(header, buffer, offset) {
    const pixels = header.dtype === "u2" ? new Uint16Array(buffer, offset) : new Uint8Array(buffer, offset);
    this.upload(header, header.rows, header.cols, pixels);
  }

  // The same for pixels of another size than the frame's.
  upload(header, rows, cols, pixels) {
    const gl = this.gl;
    const wide = header.dtype === "u2";
    const kind = wide ? [gl.R16UI, gl.UNSIGNED_SHORT] : [gl.R8UI, gl.UNSIGNED_BYTE];
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, wide ? 2 : 1);
    if (rows !== this.rows || cols !== this.cols || this.internal !== kind[0]) {
      [this.rows, this.cols, this.internal] = [rows, cols, kind[0]];
      gl.deleteTexture(this.texture);
      this.texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D, this.texture);
      gl.texStorage2D(gl.TEXTURE_2D, 1, kind[0], this.cols, this.rows);
      for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
      this.measured = 0;
    }
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, this.cols, this.rows, gl.RED_INTEGER, kind[1], pixels);
    this.full = 2 ** header.bits - 1;
    this.inverse = header.inverse;
    if (!(this.measured++ % 30)) this.range = rangeOf(pixels, this.full);
  }

  draw() {
    if (!this.rows) return;
    const gl = this.gl;
    const [low, high] = this.window ?? this.range;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.uniform2f(this.at.size, this.cols, this.rows);
    gl.uniform1f(this.at.low, (this.inverse ? high : low) * this.full);
    gl.uniform1f(this.at.high, (this.inverse ? low : high) * this.full);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  // Sideways widens the window, up and down moves it, as on every viewer.
  drag(dx, dy) {
    const [low, high] = this.window ?? this.range;
    const width = Math.max((high - low) * (1 + dx / 300), 0.002);
    const level = (low + high) / 2 + (dy / 600) * (high - low);
    this.window = [level - width / 2, level + width / 2];
  }
}

// The 1st and the 99th percentile of a sample, as shares of full scale.
function rangeOf(pixels, full) {
  const sample = [];
  for (let k = 0; k < pixels.length; k += 97) sample.push(pixels[k]);
  sample.sort((a, b) => a - b);
  const at = (share) => sample[Math.floor(share * (sample.length - 1))] / full;
  const [low, high] = [at(0.01), at(0.99)];
  return high > low ? [low, high] : [low, low + 0.01];
}
