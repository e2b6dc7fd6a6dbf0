// The window of a picture: chosen so that the bones have contrast.

import {
  CORNER_SIDE, DARK_CORNER, FIELD_SAMPLES_PER_SIDE, INNER_RADIUS, MIN_SAMPLES, MIN_WINDOW, PRESET_WINDOWS, SAMPLES_PER_SIDE, SOFT_PART,
} from "./constants.js";
import { Curve } from "./curve.js";

// The curve for counts: `counts(x, y)` is a pixel's value, the more X-ray the higher, `outside` as of `outsideOf`, `paths` are
// outlines of bones in pixels of the picture.
export function curveOf(counts, rows, cols, paths, full, { dark, noise }) {
  const { values } = sampled(counts, rows, cols, paths, noise);
  const median = values.length ? quantile(values, 0.5) : full / 2;
  return new Curve(full, dark, Math.max(SOFT_PART * (median - dark), 1));
}

// [black, white] for a function that gives the fraction of full scale of a pixel; `noise` is not exceeded outside the field.
export function windowOf(fraction, rows, cols, paths, noise, preset = "bone") {
  const { values, bones } = sampled(fraction, rows, cols, paths, noise);
  const under = values.length < MIN_SAMPLES ? [0, 1] : values;
  const { black, white, below, above } = PRESET_WINDOWS[preset];
  const field = [black, white].some(([of]) => of === "field") ? wholeField(fraction, rows, cols, noise) : under;
  const at = ([of, part]) => quantile(of === "field" && field.length >= MIN_SAMPLES ? field : under, part);
  const [low, high] = [at(black), at(white)];
  const width = Math.max(high - low, MIN_WINDOW), middle = (low + high) / 2;
  return [middle - width * (0.5 + below), middle + width * (0.5 + (bones ? above : below))];
}

// {dark, noise}: the value outside the field, and what noise does not exceed there, -1 where no corner is dark. `corners`:
// how bright each corner is, in parts of the inner field; upper left, upper right, lower left, lower right.
export function outsideOf(counts, rows, cols) {
  const bright = quantile(innerField(counts, rows, cols).sort(ascending), 0.9);
  const size = Math.max(Math.floor(CORNER_SIDE * Math.min(rows, cols)), 1);
  const out = { dark: 0, noise: -1, corners: [] };
  for (const [top, left] of [[0, 0], [0, cols - size], [rows - size, 0], [rows - size, cols - size]]) {
    const values = [];
    for (let y = top; y < top + size; y++) for (let x = left; x < left + size; x++) values.push(counts(x, y));
    values.sort(ascending);
    const [half, most] = [quantile(values, 0.5), quantile(values, 0.8)];
    out.corners.push(half / Math.max(bright, 1e-9));
    if (half < DARK_CORNER * bright && most > out.noise) [out.dark, out.noise] = [half, most];
  }
  return out;
}

const ascending = (a, b) => a - b;
const quantile = (sorted, part) => sorted[Math.round(part * (sorted.length - 1))];

// What lies under the outlines, or in the inner field where that is too little; sorted.
function sampled(value, rows, cols, paths, noise) {
  const exposed = (values) => values.filter((v) => v > noise).sort(ascending);
  const found = exposed(paths.flatMap((path) => under(value, rows, cols, path)));
  return found.length >= MIN_SAMPLES ? { values: found, bones: true } : { values: exposed(innerField(value, rows, cols)), bones: false };
}

// Values inside an outline, by the even-odd rule.
function under(value, rows, cols, path) {
  const out = [];
  let top = Infinity, bottom = -Infinity;
  for (const [, y] of path) [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
  [top, bottom] = [Math.max(top, 0), Math.min(bottom, rows - 1)];
  const step = Math.max((bottom - top) / SAMPLES_PER_SIDE, 1);
  for (let y = top + step / 2; y < bottom; y += step) {
    const crossings = [];
    path.forEach(([x1, y1], k) => {
      const [x2, y2] = path[(k + 1) % path.length];
      if (y1 > y !== y2 > y) crossings.push(x1 + ((y - y1) * (x2 - x1)) / (y2 - y1));
    });
    crossings.sort(ascending);
    for (let k = 0; k + 1 < crossings.length; k += 2)
      for (let x = Math.max(crossings[k], 0) + step / 2; x < Math.min(crossings[k + 1], cols - 1); x += step)
        out.push(value(Math.round(x), Math.round(y)));
  }
  return out;
}

function innerField(value, rows, cols) {
  const out = [], radius = INNER_RADIUS * Math.min(rows, cols), step = Math.max((2 * radius) / SAMPLES_PER_SIDE, 1);
  for (let y = -radius; y <= radius; y += step)
    for (let x = -radius; x <= radius; x += step)
      if (Math.hypot(x, y) <= radius) out.push(value(Math.floor((cols - 1) / 2 + x), Math.floor((rows - 1) / 2 + y)));
  return out;
}

function wholeField(value, rows, cols, noise) {
  const out = [], step = Math.max(Math.max(rows, cols) / FIELD_SAMPLES_PER_SIDE, 1);
  for (let y = step / 2; y < rows; y += step)
    for (let x = step / 2; x < cols; x += step) {
      const v = value(Math.floor(x), Math.floor(y));
      if (v > noise) out.push(v);
    }
  return out.sort(ascending);
}
