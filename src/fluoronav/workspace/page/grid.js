// The grid of the CT: voxels [i, j, k], points in LPS mm, and how the three cuts lie in it.

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
export const along = (p, v, t) => [p[0] + v[0] * t, p[1] + v[1] * t, p[2] + v[2] * t];
export const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
export const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
export { dot };

// What lies to the right and below on the screen, as radiologists see it: the patient's left at the right.
const CUTS = {
  axial: { right: [1, 0, 0], down: [0, 1, 0] },
  sagittal: { right: [0, 1, 0], down: [0, 0, -1] },
  coronal: { right: [1, 0, 0], down: [0, 0, -1] },
};

// How far a direction may point to a second side before its letter is shown too (cosine; chosen: 15 degrees).
const SECOND_LETTER = 0.259;

export class Grid {
  constructor({ size, spacing_mm, origin_ct, direction }) {
    [this.size, this.spacing, this.origin] = [size, spacing_mm, origin_ct];
    this.axes = [0, 1, 2].map((a) => [direction[a], direction[3 + a], direction[6 + a]]); // LPS of the grid's x, y, z
    this.voxels = size[0] * size[1] * size[2];
    this.steps = [1, size[0], size[0] * size[1]]; // of the index, along x, y, z
  }

  point(voxel) {
    return this.axes.reduce((p, axis, a) => along(p, axis, voxel[a] * this.spacing[a]), this.origin);
  }

  // Voxel coordinates, not rounded. The grid's axes are perpendicular (the server refuses other scans).
  voxel(point) {
    const from = minus(point, this.origin);
    return this.axes.map((axis, a) => dot(from, axis) / this.spacing[a]);
  }

  // Index of the voxel that a point lies in; -1 outside.
  index(point) {
    const v = this.voxel(point).map(Math.round);
    return v.every((x, a) => x >= 0 && x < this.size[a]) ? v[0] + v[1] * this.steps[1] + v[2] * this.steps[2] : -1;
  }

  inside(point) {
    const v = this.voxel(point).map((x, a) => Math.min(Math.max(x, 0), this.size[a] - 1));
    return this.point(v);
  }

  get centre() {
    return this.point(this.size.map((n) => Math.floor((n - 1) / 2)));
  }

  // The grid's axis that lies nearest to each of the patient's (left, posterior, head): each axis once.
  get nearest() {
    const orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    const fit = (order) => order.reduce((sum, axis, p) => sum + Math.abs(this.axes[axis][p]), 0);
    return orders.reduce((best, order) => (fit(order) > fit(best) ? order : best));
  }

  // How a cut lies: along the grid's own axes, so that a drawn voxel is the voxel that is saved.
  cut(name) {
    const { right, down } = CUTS[name];
    const side = (wanted) => {
      const patient = wanted.findIndex((x) => x !== 0);
      const axis = this.nearest[patient];
      const sign = Math.sign(this.axes[axis][patient] * wanted[patient]) || 1;
      return { axis, sign, vector: this.axes[axis].map((x) => x * sign) };
    };
    const [r, d] = [side(right), side(down)];
    const normal = 3 - r.axis - d.axis;
    const up = d.vector.map((x) => -x);
    return { name, right: r, down: d, normal, up, towards: cross(r.vector, up), step: this.spacing[normal], axis: this.axes[normal] };
  }
}

// Letters of the side that a direction points to: L R, A P, H F; two where it lies between, the nearer first.
export function letters(vector) {
  const length = Math.hypot(...vector);
  return vector
    .map((x, a) => [Math.abs(x) / length, ["RL", "AP", "FH"][a][x > 0 ? 1 : 0]])
    .filter(([share]) => share > SECOND_LETTER)
    .sort((a, b) => b[0] - a[0])
    .map(([, letter]) => letter)
    .join("");
}
