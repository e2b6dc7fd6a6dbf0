// The frame: counts as they came, window and level applied when it is drawn; on the browser's GPU where it has one.
//
// A count is shown by its share of full scale: of counts on the logarithm, which is attenuation with more X-ray brighter, so
// that bone has the same contrast behind a thin and a thick patient; the enhanced picture's values have such a curve already.

import { context, hasGpu, program } from "./gl.js";
import { windowOf } from "./window.js";

// The window follows what it is taken from, and does not flicker: no step is larger than a share of the way.
const AIMED_EVERY_MS = 150, SETTLES_MS = 500, LARGEST_STEP = 0.25;

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
  float share = curved > 0.5 ? log(1.0 + value) / log(1.0 + full) : value / full;
  colour = vec4(vec3((share - low) / (high - low)), 1.0);
}`;

// `where`: "gpu" or "cpu"; by default what the browser has. A program that stands in for a GPU takes twice as long.
export function makePicture(canvas, where) {
  return (where ?? (hasGpu() ? "gpu" : "cpu")) === "gpu" ? new GpuPicture(canvas) : new CpuPicture(canvas);
}

class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.rows = this.cols = 0;
    this.window = null; // [low, high] as shares of full scale, once somebody has dragged
    this.range = null; // the same as it is chosen for what is shown, once something is
    this.aimedAt = null; // when it was chosen by what had come
    this.next = 0;
  }

  // Takes a frame's pixels, which may be fewer than the frame's own: as many as the screen shows.
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
      this.shares = sharesOf(pixels.BYTES_PER_ELEMENT, this.full, this.inverse, !header.view);
      this.curved = !header.view;
    }
    this.pixels = pixels;
    this.keep(pixels);
  }

  // Follows what the picture shows, smoothly; `paths` are outlines of what is to be seen, in pixels of the frame `frameCols`
  // wide.
  aim(now, paths, frameCols) {
    if (this.aimedAt !== null && now < this.next) return;
    const { pixels, shares, cols, rows } = this;
    const scale = cols / frameCols;
    const scaled = paths.map((path) => path.map(([x, y]) => [(x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5]));
    const wanted = windowOf((x, y) => shares[pixels[y * cols + x]], rows, cols, scaled);
    const part = this.aimedAt === null ? 1 : Math.min(1 - Math.exp(-(now - this.aimedAt) / SETTLES_MS), LARGEST_STEP);
    this.range = this.aimedAt === null ? wanted : this.range.map((was, k) => was + part * (wanted[k] - was));
    [this.aimedAt, this.next] = [now, now + AIMED_EVERY_MS];
  }

  // Shares that are drawn black and white.
  blackAndWhite() {
    if (!this.window && !this.range) {
      this.aim(0, [], this.cols);
      this.aimedAt = null;
    }
    return this.window ?? this.range;
  }

  // Sideways widens the window, up and down moves it, as on every viewer.
  drag(dx, dy) {
    const [low, high] = this.blackAndWhite();
    const width = Math.max((high - low) * (1 + dx / 300), 0.002);
    const level = (low + high) / 2 + (dy / 600) * (high - low);
    this.window = [level - width / 2, level + width / 2];
  }
}

class GpuPicture extends Picture {
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

class CpuPicture extends Picture {
  constructor(canvas) {
    super(canvas);
    this.mostPerPx = 1; // the frame's own pixels: what is finer would be made up, and cost the more
    this.context = canvas.getContext("2d", { alpha: false });
  }

  resize() {
    this.image = null;
  }

  keep() {}

  // For each column (or row) of the canvas: the pixel of the frame to its left, and how far beyond it.
  places(count, pixels) {
    const before = new Int32Array(count), share = new Float32Array(count);
    for (let k = 0; k < count; k++) {
      const at = Math.min(Math.max(((k + 0.5) * pixels) / count - 0.5, 0), pixels - 1);
      before[k] = Math.min(Math.floor(at), Math.max(pixels - 2, 0));
      share[k] = at - before[k];
    }
    return [before, share];
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
    blend(this.pixels, this.shares, this.rows, this.cols, this.x, this.y, black, 255 / (white - black), this.grey);
    this.context.putImageData(this.image, 0, 0);
  }
}

// Bilinear, as the shader does it.
function blend(pixels, shares, rows, cols, [left, right], [above, below], black, scale, out) {
  const width = left.length, next = cols > 1 ? 1 : 0, under = rows > 1 ? cols : 0;
  for (let i = 0, n = 0; i < above.length; i++) {
    const line = above[i] * cols, lower = below[i];
    for (let j = 0; j < width; j++, n++) {
      const p = line + left[j], share = right[j];
      const top = pixels[p] + share * (pixels[p + next] - pixels[p]);
      const low = pixels[p + under] + share * (pixels[p + under + next] - pixels[p + under]);
      const value = top + lower * (low - top), whole = value | 0;
      const from = shares[whole];
      let grey = (from + (value - whole) * (shares[whole + 1] - from) - black) * scale + 0.5;
      grey = grey < 0 ? 0 : grey > 255 ? 255 : grey | 0;
      out[n] = 0xff000000 | (grey * 0x010101);
    }
  }
}

// The share of every value that a pixel may have, and one more, so that what lies between two values may be looked up.
function sharesOf(bytes, full, inverse, curved) {
  const out = new Float32Array(2 ** (8 * bytes) + 1);
  for (let k = 0; k < out.length; k++) {
    const value = Math.min(Math.max(inverse ? full - k : k, 0), full);
    out[k] = curved ? Math.log1p(value) / Math.log1p(full) : value / full;
  }
  return out;
}
