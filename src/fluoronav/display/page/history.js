// The last half minute, to step back through: ten pictures a second with their overlays, large ones at half their size.

import { HALVED_ABOVE_PX, HISTORY_EVERY_MS, MAX_MOMENTS } from "./constants.js";

export class History {
  constructor() {
    this.moments = []; // {header, pixels, overlay}, the oldest first
    this.next = 0;
  }

  // Keeps what is shown now; the buffer of the oldest is used again.
  keep(now, header, buffer, offset, overlay) {
    if (now < this.next) return;
    this.next = now + HISTORY_EVERY_MS;
    const wide = header.dtype === "u2";
    const from = wide ? new Uint16Array(buffer, offset) : new Uint8Array(buffer, offset);
    const { height, width } = header;
    const halved = Math.max(height, width) > HALVED_ABOVE_PX;
    const [rows, cols] = halved ? [height >> 1, width >> 1] : [height, width];
    const old = this.moments.length >= MAX_MOMENTS ? this.moments.shift().pixels : null;
    const fits = old && old.length === rows * cols && old.BYTES_PER_ELEMENT === from.BYTES_PER_ELEMENT;
    const pixels = fits ? old : wide ? new Uint16Array(rows * cols) : new Uint8Array(rows * cols);
    if (halved) halve(from, width, rows, cols, pixels);
    else pixels.set(from);
    this.moments.push({ header, rows, cols, pixels, overlay, at: now });
  }
}

function halve(from, width, rows, cols, out) {
  for (let r = 0, k = 0; r < rows; r++) {
    let a = 2 * r * width, b = a + width;
    for (let c = 0; c < cols; c++, k++, a += 2, b += 2) out[k] = (from[a] + from[a + 1] + from[b] + from[b + 1]) >> 2;
  }
}
