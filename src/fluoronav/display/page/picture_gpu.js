// Draws the picture on the browser's GPU.

import { GRID_SIDE, SHOULDER } from "./constants.js";
import { context, program } from "./gl.js";

// Integer textures are not filtered by the GPU, so four texels are blended here. Four places half a pixel away are averaged in
// a noisy picture, which is the binomial mean.
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
float between(vec2 p) {
  ivec2 i = ivec2(floor(p));
  vec2 f = fract(p);
  return mix(mix(counts(i), counts(i + ivec2(1, 0)), f.x), mix(counts(i + ivec2(0, 1)), counts(i + ivec2(1, 1)), f.x), f.y);
}
void main() {
  vec2 place = region.xy + at * region.zw;
  vec2 p = place * size - 0.5;
  float value = spread > 0.0 ? 0.25 * (between(p + vec2(-0.5)) + between(p + vec2(0.5, -0.5)) + between(p + vec2(-0.5, 0.5)) + between(p + vec2(0.5))) : between(p);
  value = clamp(mix(value, full - value, inverse), 0.0, full);
  float fraction = soft > 0.0 ? log((max(value - dark, 0.0) + soft) / soft) / span : value / full;
  float t = (fraction - even * texture(background, place).r - low) / (high - low);
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
