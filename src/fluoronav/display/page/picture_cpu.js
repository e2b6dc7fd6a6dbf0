// Draws the picture by the page itself, in whole numbers: a level is a fraction of full scale in 4096ths.

import { GRID_SIDE } from "./constants.js";
import { tone } from "./curve.js";
import { place } from "./evening.js";

const LEVELS = 4096;
const BELOW = 4 * LEVELS, SPAN = 9 * LEVELS; // what is left and right of the levels 0 to 4096, after evening

export class CpuPainter {
  constructor(picture) {
    this.picture = picture;
    this.mostPerPx = 1; // the frame's own pixels: finer ones would only cost time
    this.context = picture.canvas.getContext("2d", { alpha: false });
    this.greys = new Uint32Array(SPAN);
    this.levels = new Int16Array(2 ** 16);
    this.key = this.laid = this.curve = "";
  }

  keep(pixels, resized) {
    if (resized || !this.level) {
      this.level = new Int16Array(pixels.length); // of each pixel of the picture, after smoothing
      this.laid = "";
    }
    this.fresh = true;
  }

  draw() {
    const { picture, context } = this;
    const { width, height } = picture.canvas;
    this.prepare(width, height);
    if (this.fresh) this.level_all();
    this.fresh = false;
    if (this.copies) copy(this.level, width, height, this.grid, this.down, this.greys, this.grey);
    else blend(this.level, picture.cols, this.x, this.y, this.grid, this.down, this.greys, this.grey);
    context.putImageData(this.image, 0, 0);
  }

  // Tables, made again only when what they depend on has changed.
  prepare(width, height) {
    const { picture } = this;
    const [black, white] = picture.blackAndWhite();
    const window = `${black} ${white}`;
    if (window !== this.key) {
      this.key = window;
      for (let k = 0; k < SPAN; k++) this.greys[k] = greyOf(tone(((k - BELOW) / LEVELS - black) / (white - black)));
    }
    if (this.curve !== picture.fractions) {
      this.curve = picture.fractions;
      for (let k = 0; k < picture.fractions.length - 1; k++) this.levels[k] = Math.round(picture.fractions[k] * LEVELS);
      this.fresh = true;
    }
    const laid = `${width} ${height} ${picture.region}`;
    if (laid !== this.laid) this.lay(laid, width, height);
    const evened = `${laid} ${picture.version} ${picture.even}`;
    if (evened !== this.evened) this.even(evened);
  }

  lay(laid, width, height) {
    const { picture } = this;
    this.laid = laid;
    this.image = this.context.createImageData(width, height);
    this.grey = new Uint32Array(this.image.data.buffer);
    const [left, top, wide, high] = picture.region;
    this.x = places(width, picture.cols, left, wide);
    this.y = places(height, picture.rows, top, high);
    this.copies = width === picture.cols && height === picture.rows && wide === 1 && high === 1;
    this.across = Array.from({ length: width }, (_, k) => place(left + ((k + 0.5) / width) * wide));
    this.down = Array.from({ length: height }, (_, k) => place(top + ((k + 0.5) / height) * high));
    this.grid = Array.from({ length: GRID_SIDE }, () => new Float32Array(width));
  }

  // The coarse brightness at each column of the canvas, for each row of the grid, in levels.
  even(evened) {
    const { picture } = this;
    this.evened = evened;
    const values = picture.background.values, by = picture.even * LEVELS;
    this.grid.forEach((line, row) => {
      for (let k = 0; k < line.length; k++) {
        const [cell, right] = this.across[k], from = row * GRID_SIDE + cell;
        line[k] = BELOW - (values ? by * (values[from] + right * (values[from + 1] - values[from])) : 0);
      }
    });
  }

  level_all() {
    const { picture, level, levels } = this;
    const { pixels, rows, cols } = picture;
    if (picture.view || cols < 3 || rows < 3) for (let k = 0; k < pixels.length; k++) level[k] = levels[pixels[k]];
    else smooth(pixels, rows, cols, levels, level);
  }
}

function greyOf(part) {
  return 0xff000000 | (Math.min(Math.max(Math.round(255 * part), 0), 255) * 0x010101);
}

// The levels of the binomial means of counts.
function smooth(pixels, rows, cols, levels, out) {
  const column = new Uint32Array(cols);
  for (let y = 0; y < rows; y++) {
    const at = y * cols, above = y > 0 ? at - cols : at, below = y < rows - 1 ? at + cols : at;
    for (let x = 0; x < cols; x++) column[x] = pixels[above + x] + 2 * pixels[at + x] + pixels[below + x];
    out[at] = levels[(3 * column[0] + column[1]) >> 4];
    let a = column[0], b = column[1];
    for (let x = 1; x < cols - 1; x++) {
      const c = column[x + 1];
      out[at + x] = levels[(a + 2 * b + c) >> 4];
      a = b;
      b = c;
    }
    out[at + cols - 1] = levels[(a + 3 * b) >> 4];
  }
}

// For each column (or row) of the canvas: the pixel of the picture before it, and 256ths of the way to the next.
function places(count, pixels, from, part) {
  const before = new Int32Array(count), way = new Int32Array(count);
  for (let k = 0; k < count; k++) {
    const at = Math.min(Math.max((from + ((k + 0.5) / count) * part) * pixels - 0.5, 0), pixels - 1);
    before[k] = Math.min(Math.floor(at), Math.max(pixels - 2, 0));
    way[k] = Math.round(256 * (at - before[k]));
  }
  return [before, way];
}

// A picture of the canvas's size, which is what the server sends: a pixel is a pixel.
function copy(level, width, height, grid, down, greys, out) {
  for (let y = 0, k = 0; y < height; y++) {
    const [cell, lower] = down[y], above = grid[cell], below = grid[cell + 1];
    for (let x = 0; x < width; x++, k++) out[k] = greys[(level[k] + above[x] + lower * (below[x] - above[x])) | 0];
  }
}

// Bilinear interpolation, as in the shader.
function blend(level, cols, [left, right], [over, lower], grid, down, greys, out) {
  const width = left.length, next = cols > 1 ? 1 : 0, under = level.length > cols ? cols : 0;
  for (let i = 0, n = 0; i < over.length; i++) {
    const line = over[i] * cols, part = lower[i];
    const [cell, deeper] = down[i], above = grid[cell], below = grid[cell + 1];
    for (let j = 0; j < width; j++, n++) {
      const p = line + left[j], q = p + under, to = right[j];
      const top = level[p] * 256 + to * (level[p + next] - level[p]), low = level[q] * 256 + to * (level[q + next] - level[q]);
      const value = (top * 256 + part * (low - top)) / 65536;
      out[n] = greys[(value + above[j] + deeper * (below[j] - above[j])) | 0];
    }
  }
}
