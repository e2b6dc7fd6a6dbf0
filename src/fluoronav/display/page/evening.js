// What the window cannot do: a spine is dark behind the heart and bright beside it. The picture's coarse brightness is taken
// on a grid, and a part of its differences is subtracted when the picture is drawn. Edges of bone are finer than the grid.

import { GRID_SIDE, GRID_SMOOTH_CELLS, OUTSIDE_CELL, SAMPLES_PER_CELL } from "./constants.js";

export class Background {
  constructor() {
    this.values = null; // GRID_SIDE x GRID_SIDE differences from the mean, in fractions of full scale
    this.kernel = kernelOf(GRID_SMOOTH_CELLS);
  }

  // Moves by a `part` of the way towards the coarse brightness of a picture; `noise` is not exceeded outside the field.
  follow(fraction, rows, cols, noise, part) {
    const sums = new Float64Array(GRID_SIDE ** 2), counts = new Float64Array(GRID_SIDE ** 2);
    const per_side = GRID_SIDE * SAMPLES_PER_CELL;
    let sum = 0, count = 0;
    for (let i = 0; i < per_side; i++) {
      const y = Math.floor(((i + 0.5) * rows) / per_side), row = Math.floor(i / SAMPLES_PER_CELL) * GRID_SIDE;
      for (let j = 0; j < per_side; j++) {
        const value = fraction(Math.floor(((j + 0.5) * cols) / per_side), y);
        if (value <= noise) continue;
        const cell = row + Math.floor(j / SAMPLES_PER_CELL);
        sums[cell] += value;
        counts[cell]++;
        sum += value;
        count++;
      }
    }
    const mean = count ? sum / count : 0;
    const [above, below] = [this.smooth(sums), this.smooth(counts)];
    const anew = this.values === null;
    this.values ??= new Float32Array(GRID_SIDE ** 2);
    for (let k = 0; k < this.values.length; k++) {
      let wanted = below[k] > 1e-6 ? above[k] / below[k] - mean : 0;
      // Outside the field nothing is lifted: it would show the detector's noise.
      if (counts[k] < OUTSIDE_CELL * SAMPLES_PER_CELL ** 2) wanted = Math.max(wanted, 0);
      this.values[k] += (anew ? 1 : part) * (wanted - this.values[k]);
    }
  }

  // The difference at a place, `x` and `y` in parts of the picture's sides; bilinear, as on the GPU.
  at(x, y) {
    if (!this.values) return 0;
    const [c, right] = place(x), [r, lower] = place(y);
    const value = (row) => this.values[row * GRID_SIDE + c] * (1 - right) + this.values[row * GRID_SIDE + Math.min(c + 1, GRID_SIDE - 1)] * right;
    return value(r) * (1 - lower) + value(Math.min(r + 1, GRID_SIDE - 1)) * lower;
  }

  smooth(cells) {
    return this.along(this.along(cells, 1, GRID_SIDE), GRID_SIDE, 1);
  }

  along(cells, step, next) {
    const out = new Float64Array(cells.length), reach = this.kernel.length - 1;
    for (let line = 0; line < GRID_SIDE; line++)
      for (let k = 0; k < GRID_SIDE; k++)
        for (let d = -reach; d <= reach; d++)
          if (k + d >= 0 && k + d < GRID_SIDE) out[line * next + k * step] += this.kernel[Math.abs(d)] * cells[line * next + (k + d) * step];
    return out;
  }
}

// The cell before a place and the part of the way to the next.
export function place(x) {
  const at = Math.min(Math.max(x * GRID_SIDE - 0.5, 0), GRID_SIDE - 1);
  const cell = Math.min(Math.floor(at), GRID_SIDE - 2);
  return [cell, at - cell];
}

function kernelOf(sigma) {
  return Array.from({ length: Math.ceil(3 * sigma) + 1 }, (_, k) => Math.exp(-0.5 * (k / sigma) ** 2));
}
