// The frame: counts as received, window and level applied when it is drawn, on the browser's GPU where it has one.
//
// A value is drawn by its fraction of full scale. Of counts the logarithm is taken, so that bone has the same contrast behind
// a thin and a thick patient, with more X-ray brighter. The enhanced picture's values have such a curve already.

import { MAX_WINDOW_STEP, WINDOW_EVERY_MS, WINDOW_SETTLES_MS } from "./constants.js";
import { context, hasGpu, program } from "./gl.js";
import { windowOf } from "./window.js";

// Integer textures are not filtered by the GPU, so four texels are blended here.
const FRAGMENT = `#version 300 es
precision highp float;
precision highp usampler2D;
uniform usampler2D frame;
uniform vec2 size;
uniform float low, high, full, inverse, curved;
in vec2 at;
out vec4 colour;
float counts(ivec2 p) { return float(texelFetch(frame, clamp(p, ivec2(0), ivec2(size) - 1), 0).r); }
void main() {
  vec2 p = at * size - 0.5;
  ivec2 i = ivec2(floor(p));
  vec2 f = fract(p);
  float value = mix(mix(counts(i), counts(i + ivec2(1, 0)), f.x), mix(counts(i + ivec2(0, 1)), counts(i + ivec2(1, 1)), f.x), f.y);
  value = clamp(mix(value, full - value, inverse), 0.0, full);
  float fraction = curved > 0.5 ? log(1.0 + value) / log(1.0 + full) : value / full;
  colour = vec4(vec3((fraction - low) / (high - low)), 1.0);
}`;

// `where`: "gpu" or "cpu"; by default what the browser has. WebGL in software takes twice as long as the CPU's own way.
export function makePicture(canvas, where) {
  return (where ?? (hasGpu() ? "gpu" : "cpu")) === "gpu" ? new GpuPicture(canvas) : new CpuPicture(canvas);
}

class PictureCanvas {
  constructor(canvas) {
    this.canvas = canvas;
    this.rows = this.cols = 0;
    this.window = null; // [low, high] in fractions of full scale, once a person has dragged
    this.range = null; // the same as it is chosen for the picture
    this.aimedAt = null; // when it was chosen
    this.next = 0;
  }

  // Takes a frame's pixels, scaled to the screen.
  take(header, buffer, offset) {
    const pixels = header.dtype === "u2" ? new Uint16Array(buffer, offset) : new Uint8Array(buffer, offset);
    this.upload(header, header.height, header.width, pixels);
  }

  // The same for pixels of any size.
  upload(header, rows, cols, pixels) {
    if (rows !== this.rows || cols !== this.cols || header.dtype !== this.dtype) {
      [this.rows, this.cols, this.dtype] = [rows, cols, header.dtype];
      this.resize();
    }
    const kind = `${header.dtype} ${header.bits} ${header.inverse} ${header.view}`;
    if (kind !== this.kindOf) {
      [this.kindOf, this.range, this.aimedAt] = [kind, null, null];
      this.full = 2 ** header.bits - 1;
      this.inverse = Boolean(header.inverse);
      this.fractions = fractionsOf(pixels.BYTES_PER_ELEMENT, this.full, this.inverse, !header.view);
      this.curved = !header.view;
    }
    this.pixels = pixels;
    this.keep(pixels);
  }

  // Moves the window smoothly towards the best one for what lies inside `paths`, outlines in pixels of the frame, which has
  // `frameCols` columns.
  aim(now, paths, frameCols) {
    if (this.aimedAt !== null && now < this.next) return;
    const { pixels, fractions, cols, rows } = this;
    const scale = cols / frameCols;
    const scaled = paths.map((path) => path.map(([x, y]) => [(x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5]));
    const wanted = windowOf((x, y) => fractions[pixels[y * cols + x]], rows, cols, scaled);
    const part = this.aimedAt === null ? 1 : Math.min(1 - Math.exp(-(now - this.aimedAt) / WINDOW_SETTLES_MS), MAX_WINDOW_STEP);
    this.range = this.aimedAt === null ? wanted : this.range.map((was, k) => was + part * (wanted[k] - was));
    [this.aimedAt, this.next] = [now, now + WINDOW_EVERY_MS];
  }

  // Fractions that are drawn black and white.
  blackAndWhite() {
    if (!this.window && !this.range) {
      this.aim(0, [], this.cols);
      this.aimedAt = null;
    }
    return this.window ?? this.range;
  }

  // A drag sideways changes the width, up and down the level, as in other viewers.
  drag(dx, dy) {
    const [low, high] = this.blackAndWhite();
    const width = Math.max((high - low) * (1 + dx / 300), 0.002);
    const level = (low + high) / 2 + (dy / 600) * (high - low);
    this.window = [level - width / 2, level + width / 2];
  }
}

class GpuPicture extends PictureCanvas {
  constructor(canvas) {
    super(canvas);
    this.mostPerPx = Infinity; // the screen's own pixels
    this.gl = context(canvas, () => this.prepare());
    this.prepare();
  }

  prepare() {
    const gl = this.gl;
    const used = program(gl, FRAGMENT);
    this.at = Object.fromEntries(["size", "low", "high", "full", "inverse", "curved"].map((name) => [name, gl.getUniformLocation(used, name)]));
    this.rows = this.cols = 0;
  }

  kind() {
    const gl = this.gl;
    return this.dtype === "u2" ? [gl.R16UI, gl.UNSIGNED_SHORT] : [gl.R8UI, gl.UNSIGNED_BYTE];
  }

  resize() {
    const gl = this.gl;
    gl.deleteTexture(this.texture);
    this.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, this.kind()[0], this.cols, this.rows);
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
  }

  keep(pixels) {
    const gl = this.gl;
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, pixels.BYTES_PER_ELEMENT);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, this.cols, this.rows, gl.RED_INTEGER, this.kind()[1], pixels);
  }

  draw() {
    if (!this.rows) return;
    const gl = this.gl;
    const [black, white] = this.blackAndWhite();
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.uniform2f(this.at.size, this.cols, this.rows);
    gl.uniform1f(this.at.low, black);
    gl.uniform1f(this.at.high, white);
    gl.uniform1f(this.at.full, this.full);
    gl.uniform1f(this.at.inverse, this.inverse ? 1 : 0);
    gl.uniform1f(this.at.curved, this.curved ? 1 : 0);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }
}

class CpuPicture extends PictureCanvas {
  constructor(canvas) {
    super(canvas);
    this.mostPerPx = 1; // the frame's own pixels: finer ones would only cost time
    this.context = canvas.getContext("2d", { alpha: false });
  }

  resize() {
    this.image = null;
  }

  keep() {}

  // For each column (or row) of the canvas: the pixel of the frame before it, and the fraction of the way to the next.
  places(count, pixels) {
    const before = new Int32Array(count), fraction = new Float32Array(count);
    for (let k = 0; k < count; k++) {
      const at = Math.min(Math.max(((k + 0.5) * pixels) / count - 0.5, 0), pixels - 1);
      before[k] = Math.min(Math.floor(at), Math.max(pixels - 2, 0));
      fraction[k] = at - before[k];
    }
    return [before, fraction];
  }

  draw() {
    if (!this.rows) return;
    const { width, height } = this.canvas;
    if (this.image?.width !== width || this.image.height !== height) {
      this.image = this.context.createImageData(width, height);
      this.grey = new Uint32Array(this.image.data.buffer);
      this.x = this.places(width, this.cols);
      this.y = this.places(height, this.rows);
    }
    const [black, white] = this.blackAndWhite();
    const scale = 255 / (white - black);
    if (width === this.cols && height === this.rows) copy(this.pixels, this.greys(black, scale), this.grey);
    else blend(this.pixels, this.fractions, this.rows, this.cols, this.x, this.y, black, scale, this.grey);
    this.context.putImageData(this.image, 0, 0);
  }

  // The grey of every value of a pixel.
  greys(black, scale) {
    const key = `${this.kindOf} ${black} ${scale}`;
    if (key === this.greysOf) return this.grey_of;
    const { fractions } = this;
    this.grey_of ??= new Uint32Array(2 ** 16);
    for (let k = 0; k < fractions.length - 1; k++) this.grey_of[k] = greyOf((fractions[k] - black) * scale);
    this.greysOf = key;
    return this.grey_of;
  }
}

function greyOf(value) {
  const grey = value + 0.5;
  return 0xff000000 | ((grey < 0 ? 0 : grey > 255 ? 255 : grey | 0) * 0x010101);
}

// A picture of the canvas's size, which is what the server sends: a pixel is a pixel.
function copy(pixels, greys, out) {
  for (let k = 0; k < out.length; k++) out[k] = greys[pixels[k]];
}

// Bilinear interpolation, as in the shader.
function blend(pixels, fractions, rows, cols, [left, right], [above, below], black, scale, out) {
  const width = left.length, next = cols > 1 ? 1 : 0, under = rows > 1 ? cols : 0;
  for (let i = 0, n = 0; i < above.length; i++) {
    const line = above[i] * cols, lower = below[i];
    for (let j = 0; j < width; j++, n++) {
      const p = line + left[j], part = right[j];
      const top = pixels[p] + part * (pixels[p + next] - pixels[p]);
      const low = pixels[p + under] + part * (pixels[p + under + next] - pixels[p + under]);
      const value = top + lower * (low - top), whole = value | 0;
      const from = fractions[whole];
      out[n] = greyOf((from + (value - whole) * (fractions[whole + 1] - from) - black) * scale);
    }
  }
}

// The fraction of full scale of every value of a pixel, and of one more, so that it can be interpolated.
function fractionsOf(bytes, full, inverse, curved) {
  const out = new Float32Array(2 ** (8 * bytes) + 1);
  for (let k = 0; k < out.length; k++) {
    const value = Math.min(Math.max(inverse ? full - k : k, 0), full);
    out[k] = curved ? Math.log1p(value) / Math.log1p(full) : value / full;
  }
  return out;
}
