// Which counts a picture shows black and white by itself: what lies under the bones is to be seen.

// Of what lies there: so much is left out at either end, and the window is so much wider than the rest.
const LOW = 0.03, HIGH = 0.95;
const BELOW = 0.15, ABOVE = 0.6; // in widths: metal is darker than bone, and what is brighter is where the eye rests
const LEAST_WIDTH = 0.05; // shares: less would show noise alone
const LEAST = 60; // samples
const SAMPLES = 24; // along a side of the box around an outline, and of the picture
const INNER = 0.36; // radius of the inner field, in sides of the picture
const CORNER = 0.04; // side of a corner that is looked at for the field's end, in sides of the picture
const OUTSIDE = 0.2; // share of full scale: a corner so much darker than the brightest lies outside the field

// [black, white] as shares; `share(x, y)` is the picture's at a pixel, `paths` are outlines in its pixels.
export function windowOf(share, rows, cols, paths) {
  const [outside, noise] = outsideOf(share, rows, cols);
  const seen = (values) => values.filter((value) => value > noise).sort((a, b) => a - b);
  let values = seen(paths.flatMap((path) => under(share, rows, cols, path)));
  const bones = values.length >= LEAST;
  if (!bones) values = seen(innerField(share, rows, cols));
  if (values.length < LEAST) values = [0, 1];
  const at = (part) => values[Math.round(part * (values.length - 1))];
  const middle = (at(LOW) + at(HIGH)) / 2, width = Math.max(at(HIGH) - at(LOW), LEAST_WIDTH);
  return [Math.max(middle - width * (0.5 + BELOW), outside), middle + width * (0.5 + (bones ? ABOVE : BELOW))];
}

// What stands in the picture inside an outline, by the even-odd rule.
function under(share, rows, cols, path) {
  const out = [];
  let top = Infinity, bottom = -Infinity;
  for (const [, y] of path) [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
  [top, bottom] = [Math.max(top, 0), Math.min(bottom, rows - 1)];
  const step = Math.max((bottom - top) / SAMPLES, 1);
  for (let y = top + step / 2; y < bottom; y += step) {
    const crossings = [];
    path.forEach(([x1, y1], k) => {
      const [x2, y2] = path[(k + 1) % path.length];
      if (y1 > y !== y2 > y) crossings.push(x1 + ((y - y1) * (x2 - x1)) / (y2 - y1));
    });
    crossings.sort((a, b) => a - b);
    for (let k = 0; k + 1 < crossings.length; k += 2)
      for (let x = Math.max(crossings[k], 0) + step / 2; x < Math.min(crossings[k + 1], cols - 1); x += step)
        out.push(share(Math.round(x), Math.round(y)));
  }
  return out;
}

function innerField(share, rows, cols) {
  const out = [], radius = INNER * Math.min(rows, cols), step = Math.max((2 * radius) / SAMPLES, 1);
  for (let y = -radius; y <= radius; y += step)
    for (let x = -radius; x <= radius; x += step)
      if (Math.hypot(x, y) <= radius) out.push(share(Math.floor((cols - 1) / 2 + x), Math.floor((rows - 1) / 2 + y)));
  return out;
}

// How dark it is outside the field, and up to where most of it is for its noise: as in the corners, if those are dark.
function outsideOf(share, rows, cols) {
  const middle = innerField(share, rows, cols).sort((a, b) => a - b);
  const bright = middle[Math.floor(0.9 * (middle.length - 1))];
  const size = Math.max(Math.floor(CORNER * Math.min(rows, cols)), 1);
  let outside = [0, 0];
  for (const [top, left] of [[0, 0], [0, cols - size], [rows - size, 0], [rows - size, cols - size]]) {
    const values = [];
    for (let y = top; y < top + size; y++) for (let x = left; x < left + size; x++) values.push(share(x, y));
    values.sort((a, b) => a - b);
    const [half, most] = [0.5, 0.8].map((part) => values[Math.floor(part * (values.length - 1))]);
    if (half < bright - OUTSIDE && most > outside[1]) outside = [half, most];
  }
  return outside;
}
