// What lies over a cut: structures, cross, letters, measurements, screws, the brush.

import { letters } from "./grid.js";
import { drawCross, drawMarks, drawPlanes, drawScrews } from "./marks.js";
import { drawBodies } from "./pieces.js";

// Colours of a comparison: only in a, only in b, another structure (ABGR).
const DIFFERENCE = [0, 0xb0ff6a4d, 0xb03cb4ff, 0xb0e85cff];

export class Overlay {
  constructor(cut, grid, scene) {
    Object.assign(this, { cut, grid, scene });
    this.canvas = document.createElement("canvas");
    this.canvas.className = "overlay";
    cut.box.append(this.canvas);
    this.under = document.createElement("canvas"); // labels at the screen's resolution
  }

  soon() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => this.asked && this.draw());
  }

  draw() {
    this.asked = false;
    const { clientWidth: width, clientHeight: height } = this.cut.box;
    if (!width || !height || this.cut.slice === undefined) return;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      [this.canvas.width, this.canvas.height] = [this.under.width, this.under.height] = [width, height];
      this.pixels = this.under.getContext("2d").createImageData(width, height);
    }
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    this.#labels(context, width, height);
    drawBodies(context, this.cut, this.scene);
    drawMarks(context, this.cut, this.grid, this.scene);
    drawScrews(context, this.cut, this.scene);
    drawPlanes(context, this.cut, this.scene);
    drawCross(context, this.cut, this.scene, width, height);
    this.#letters(context, width, height);
    this.#brush(context);
    this.scene.drawn?.(this.cut);
  }

  // Index steps along the screen's columns and rows: the cuts lie along the grid.
  #steps(width, height) {
    const { viewport, right, down, normal, slice } = this.cut;
    const [a, b, c] = [[0, 0], [1, 0], [0, 1]].map((p) => this.grid.voxel(viewport.canvasToWorld(p)));
    const line = (n, axis, from, to) => {
      const [begin, step, size] = [from[axis], to[axis] - from[axis], this.grid.size[axis]];
      const offsets = new Int32Array(n);
      for (let k = 0; k < n; k++) {
        const at = Math.round(begin + step * (k + 0.5));
        offsets[k] = at >= 0 && at < size ? at * this.grid.steps[axis] : -1;
      }
      return offsets;
    };
    return { columns: line(width, right.axis, a, b), rows: line(height, down.axis, a, c), base: slice * this.grid.steps[normal] };
  }

  #labels(context, width, height) {
    const { labels, fills, edges, opacity, difference } = this.scene;
    if (!labels && !difference) return;
    const { columns, rows, base } = this.#steps(width, height);
    const out = new Uint32Array(this.pixels.data.buffer);
    let above = new Uint16Array(width), line = new Uint16Array(width);
    for (let y = 0, at = 0; y < height; y++) {
      const row = rows[y] < 0 ? -1 : rows[y] + base;
      for (let x = 0, left = 0; x < width; x++, at++) {
        const index = row < 0 || columns[x] < 0 ? -1 : row + columns[x];
        const differs = difference && index >= 0 ? difference[index] : 0;
        const label = labels && index >= 0 ? labels[index] : 0;
        // The border belongs to the structure on either side that is shown.
        out[at] = differs ? DIFFERENCE[differs] : label !== left ? edges[label] || edges[left] : label !== above[x] ? edges[label] || edges[above[x]] : fills[label];
        line[x] = left = label;
      }
      [above, line] = [line, above];
    }
    this.under.getContext("2d").putImageData(this.pixels, 0, 0);
    context.globalAlpha = difference ? 1 : opacity;
    context.drawImage(this.under, 0, 0);
    context.globalAlpha = 1;
  }

  #letters(context, width, height) {
    const { right, down, name } = this.cut;
    const back = (v) => v.map((x) => -x);
    context.font = "700 20px system-ui, sans-serif";
    context.fillStyle = "#ffd23f";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.shadowColor = "#000";
    context.shadowBlur = 4;
    const shown = { left: letters(back(right.vector)), right: letters(right.vector), top: letters(back(down.vector)), bottom: letters(down.vector) };
    context.fillText(shown.left, 18, height / 2);
    context.fillText(shown.right, width - 18, height / 2);
    context.fillText(shown.top, width / 2, 16);
    context.fillText(shown.bottom, width / 2, height - 14);
    context.textAlign = "left";
    context.font = "600 15px system-ui, sans-serif";
    context.fillStyle = "#e8eef2";
    context.fillText(`${name[0].toUpperCase()}${name.slice(1)}  ${this.cut.slice + 1} / ${this.grid.size[this.cut.normal]}`, 12, height - 16);
    context.shadowBlur = 0;
    this.cut.box.dataset.letters = `${shown.left} ${shown.right} ${shown.top} ${shown.bottom}`;
  }

  #brush(context) {
    const { pointer, drawing } = this.scene;
    if (!drawing || pointer?.cut !== this.cut) return;
    const [a, b] = [pointer.point, pointer.point.map((x, k) => x + this.cut.right.vector[k] * drawing.radius_mm)].map((p) => this.cut.viewport.worldToCanvas(p));
    context.strokeStyle = drawing.tool === "eraser" ? "#ff8a73" : "#fff";
    context.lineWidth = 1.5;
    context.beginPath();
    context.arc(a[0], a[1], Math.max(2, Math.hypot(b[0] - a[0], b[1] - a[1])), 0, 2 * Math.PI);
    context.stroke();
  }

  remove() {
    this.canvas.remove();
  }
}
