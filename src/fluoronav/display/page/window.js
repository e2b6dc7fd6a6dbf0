// The window of a picture: chosen so that the bones have contrast.

import {
  ABOVE_WIDTHS, BELOW_WIDTHS, CORNER_SIDE, DARK_CORNER, HIGH_QUANTILE, INNER_RADIUS, LOW_QUANTILE, MIN_SAMPLES, MIN_WINDOW,
  SAMPLES_PER_SIDE,
} from "./constants.js";

// [black, white] in fractions of full scale; `fraction(x, y)` is a pixel's, `paths` are outlines in pixels of the picture.
export function windowOf(fraction, rows, cols, paths) {
  const [outside, noise] = outsideOf(fraction, rows, cols);
  const exposed = (values) => values.filter((value) => value > noise).sort((a, b) => a - b);
  let values = exposed(paths.flatMap((path) => under(fraction, rows, cols, path)));
  const bones = values.length >= MIN_SAMPLES;
  if (!bones) values = exposed(innerField(fraction, rows, cols));
  if (values.length < MIN_SAMPLES) values = [0, 1];
  const at = (part) => values[Math.round(part * (values.length - 1))];
  const middle = (at(LOW_QUANTILE) + at(HIGH_QUANTILE)) / 2, width = Math.max(at(HIGH_QUANTILE) - at(LOW_QUANTILE), MIN_WINDOW);
  return [Math.max(middle - width * (0.5 + BELOW_WIDTHS), outside), middle + width * (0.5 + (bones ? ABOVE_WIDTHS : BELOW_WIDTHS))];
}

// Values inside an outline, by the even-odd rule.
function under(fraction, rows, cols, path) {
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
    crossings.sort((a, b) => a - b);
    for (let k = 0; k + 1 < crossings.length; k += 2)
      for (let x = Math.max(crossings[k], 0) + step / 2; x < Math.min(crossings[k + 1], cols - 1); x += step)
        out.push(fraction(Math.round(x), Math.round(y)));
  }
  return out;
}

function innerField(fraction, rows, cols) {
  const out = [], radius = INNER_RADIUS * Math.min(rows, cols), step = Math.max((2 * radius) / SAMPLES_PER_SIDE, 1);
  for (let y = -radius; y <= radius; y += step)
    for (let x = -radius; x <= radius; x += step)
      if (Math.hypot(x, y) <= radius) out.push(fraction(Math.floor((cols - 1) / 2 + x), Math.floor((rows - 1) / 2 + y)));
  return out;
}

// Median and upper limit of the noise outside the field, from dark corners; [0, 0] where no corner is dark.
function outsideOf(fraction, rows, cols) {
  const middle = innerField(fraction, rows, cols).sort((a, b) => a - b);
  const bright = middle[Math.floor(0.9 * (middle.length - 1))];
  const size = Math.max(Math.floor(CORNER_SIDE * Math.min(rows, cols)), 1);
  let outside = [0, 0];
  for (const [top, left] of [[0, 0], [0, cols - size], [rows - size, 0], [rows - size, cols - size]]) {
    const values = [];
    for (let y = top; y < top + size; y++) for (let x = left; x < left + size; x++) values.push(fraction(x, y));
    values.sort((a, b) => a - b);
    const [half, most] = [0.5, 0.8].map((part) => values[Math.floor(part * (values.length - 1))]);
    if (half < bright - DARK_CORNER && most > outside[1]) outside = [half, most];
  }
  return outside;
}
