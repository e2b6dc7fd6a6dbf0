// The last half minute, to step back through: pictures at half their size and ten a second, with their overlays.

const EVERY_MS = 100, KEPT = 300;

export class History {
  constructor() {
    this.moments = []; // {header, pixels, overlay}, the oldest first
    this.next = 0;
  }

  // Takes what is shown now; the buffers of what falls out are used again.
  keep(now, header, buffer, offset, overlay) {
    if (now < this.next) return;
    this.next = now + EVERY_MS;
    const wide = header.dtype === "u2";
    const from = wide ? new Uint16Array(buffer, offset) : new Uint8Array(buffer, offset);
    const [rows, cols] = [header.rows >> 1, header.cols >> 1];
    const old = this.moments.length >= KEPT ? this.moments.shift().pixels : null;
    const fits = old && old.length === rows * cols && old.BYTES_PER_ELEMENT === from.BYTES_PER_ELEMENT;
    const pixels = fits ? old : wide ? new Uint16Array(rows * cols) : new Uint8Array(rows * cols);
    for (let r = 0, k = 0; r < rows; r++) {
      let a = 2 * r * header.cols, b = a + header.cols;
      for (let c = 0; c < cols; c++, k++, a += 2, b += 2) pixels[k] = (from[a] + from[a + 1] + from[b] + from[b + 1]) >> 2;
    }
    this.moments.push({ header, rows, cols, pixels, overlay, at: now });
  }
}
