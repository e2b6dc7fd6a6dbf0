// Draws the picture on the browser's GPU.

import { GRID_SIDE, SHOULDER } from "./constants.js";
import { context, program } from "./gl.js";

// Integer textures are not filtered by the GPU, so four texels are blended here, each of them the binomial mean of its
// neighbours in a noisy picture.
const FRAGMENT = `#version 300 es
precision highp float;
precision highp usampler2D;
uniform usampler2D frame;
uniform sampler2D background;
uniform vec2 size;
uniform vec4 region;
uniform float low, high, full, inverse, dark, soft, span, even, spread;
in vec2 at;
out vec4 colour;
float counts(ivec2 p) { return float(texelFetch(frame, clamp(p, ivec2(0), ivec2(size) - 1), 0).r); }
float fraction(float value) {
  value = clamp(mix(value, full - value, inverse), 0.0, full);
  return soft > 0.0 ? log((max(value - dark, 0.0) + soft) / soft) / span : value / full;
}
void main() {
  vec2 place = region.xy + at * region.zw;
  vec2 p = clamp(place * size - 0.5, vec2(0), size - 1.0);
  ivec2 i = ivec2(floor(p));
  vec2 f = fract(p);
  float row[8]; // of each line of texels: what the left and the right texel are made of
  for (int k = 0; k < 4; k++) {
    ivec2 q = i + ivec2(0, k - 1);
    float a = counts(q), b = counts(q + ivec2(1, 0));
    row[2 * k] = spread > 0.0 ? (counts(q - ivec2(1, 0)) + 2.0 * a + b) / 4.0 : a;
    row[2 * k + 1] = spread > 0.0 ? (a + 2.0 * b + counts(q + ivec2(2, 0))) / 4.0 : b;
  }
  float four[4];
  for (int k = 0; k < 4; k++) four[k] = fraction(spread > 0.0 ? (row[k] + 2.0 * row[k + 2] + row[k + 4]) / 4.0 : row[k + 2]);
  float value = mix(mix(four[0], four[1], f.x), mix(four[2], four[3], f.x), f.y);
  float t = (value - even * texture(background, place).r - low) / (high - low);
  float grey = t < ${SHOULDER.toFixed(3)} ? t : 1.0 - ${(1 - SHOULDER).toFixed(3)} * exp((${SHOULDER.toFixed(3)} - t) / ${(1 - SHOULDER).toFixed(3)});
  colour = vec4(vec3(grey), 1.0);
}`;
const NAMES = ["frame", "background", "size", "region", "low", "high", "full", "inverse", "dark", "soft", "span", "even", "spread"];

export class GpuPainter {
  constructor(picture) {
    this.picture = picture;
    this.mostPerPx = Infinity; // the screen's own pixels
    this.gl = context(picture.canvas, () => this.prepare());
    this.prepare();
  }

  prepare() {
    const { gl } = this;
    const used = program(gl, FRAGMENT);
    this.at = Object.fromEntries(NAMES.map((name) => [name, gl.getUniformLocation(used, name)]));
    gl.uniform1i(this.at.frame, 0);
    gl.uniform1i(this.at.background, 1);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.R16F, GRID_SIDE, GRID_SIDE);
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.LINEAR);
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    gl.activeTexture(gl.TEXTURE0);
    this.texture = null;
    this.version = -1;
    if (this.picture.pixels) this.keep(this.picture.pixels, true);
  }

  kind() {
    const { gl } = this;
    return this.picture.dtype === "u2" ? [gl.R16UI, gl.UNSIGNED_SHORT] : [gl.R8UI, gl.UNSIGNED_BYTE];
  }

  keep(pixels, resized) {
    const { gl, picture } = this;
    if (resized || !this.texture) {
      gl.deleteTexture(this.texture);
      this.texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D, this.texture);
      gl.texStorage2D(gl.TEXTURE_2D, 1, this.kind()[0], picture.cols, picture.rows);
      for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
    }
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, pixels.BYTES_PER_ELEMENT);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, picture.cols, picture.rows, gl.RED_INTEGER, this.kind()[1], pixels);
  }

  // The coarse brightness, after it has changed.
  take_background() {
    const { gl, picture } = this;
    if (this.version === picture.version) return;
    this.version = picture.version;
    gl.activeTexture(gl.TEXTURE1);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 4);
    const values = picture.background.values ?? new Float32Array(GRID_SIDE ** 2);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, GRID_SIDE, GRID_SIDE, gl.RED, gl.FLOAT, values);
    gl.activeTexture(gl.TEXTURE0);
  }

  draw() {
    const { gl, at, picture } = this;
    const { curve } = picture;
    const [black, white] = picture.blackAndWhite();
    this.take_background();
    gl.viewport(0, 0, picture.canvas.width, picture.canvas.height);
    gl.uniform2f(at.size, picture.cols, picture.rows);
    gl.uniform4f(at.region, ...picture.region);
    const numbers = {
      low: black, high: white, full: picture.full, inverse: picture.inverse ? 1 : 0, dark: curve.dark, soft: curve.soft ?? 0,
      span: curve.span, even: picture.even, spread: picture.view ? 0 : 1,
    };
    for (const [name, value] of Object.entries(numbers)) gl.uniform1f(at[name], value);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }
}
