// The brush: which voxels a stroke changes.

// The tools that draw, and what each does with a voxel: the label that it gets.
export class Stroke {
  // `settings`: {tool: "brush" | "eraser" | "threshold", label, radius_mm, ball, low_hu, high_hu, keep}; `cut` as of Grid.cut.
  constructor(grid, hu, labels, settings, cut) {
    Object.assign(this, { grid, hu, labels, settings, cut });
    this.before = new Map();
  }

  // Draws from one point to the next, without gaps.
  to(point) {
    const last = this.last ?? point;
    const length = Math.hypot(...point.map((x, a) => x - last[a]));
    const steps = Math.max(1, Math.ceil(length / (this.settings.radius_mm / 2)));
    for (let s = this.last ? 1 : steps; s <= steps; s++) this.#dab(last.map((x, a) => x + ((point[a] - x) * s) / steps));
    this.last = point;
  }

  #dab(point) {
    const { grid, settings: { radius_mm, ball }, cut } = this;
    if (grid.index(point) < 0) return;
    const centre = grid.voxel(point);
    const reach = grid.spacing.map((mm, a) => (ball || a !== cut.normal ? radius_mm / mm : 0));
    const low = centre.map((x, a) => Math.max(0, reach[a] ? Math.ceil(x - reach[a]) : Math.round(x)));
    const high = centre.map((x, a) => Math.min(grid.size[a] - 1, reach[a] ? Math.floor(x + reach[a]) : Math.round(x)));
    const near = centre.map(Math.round); // a brush smaller than a voxel draws the voxel under it
    for (let k = Math.min(low[2], near[2]); k <= Math.max(high[2], near[2]); k++)
      for (let j = Math.min(low[1], near[1]); j <= Math.max(high[1], near[1]); j++)
        for (let i = Math.min(low[0], near[0]); i <= Math.max(high[0], near[0]); i++) {
          const away = [i, j, k].map((x, a) => (reach[a] ? (x - centre[a]) * grid.spacing[a] : 0));
          const under = i === near[0] && j === near[1] && k === near[2];
          if (under || away[0] ** 2 + away[1] ** 2 + away[2] ** 2 <= radius_mm ** 2) this.#voxel(i + j * grid.steps[1] + k * grid.steps[2]);
        }
  }

  #voxel(index) {
    const { labels, hu, before, settings: { tool, label, low_hu, high_hu, keep } } = this;
    const was = labels[index];
    if (tool === "eraser") {
      if (was === 0 || (keep && was !== label)) return;
    } else {
      if (was === label || (keep && was !== 0)) return;
      if (tool === "threshold" && (hu[index] < low_hu || hu[index] > high_hu)) return;
    }
    if (!before.has(index)) before.set(index, was);
    labels[index] = tool === "eraser" ? 0 : label;
  }
}
