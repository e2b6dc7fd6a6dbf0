// Says that fewer or smaller pictures are shown than come from the C-arm, or fewer pixels than the screen has, and why.

import { FEW_PICTURES, MIN_COUNTED, THINNED_SPAN_MS } from "./constants.js";
import { text } from "./strings.js";
import { write } from "./words.js";

export class Thinned {
  constructor(element) {
    this.element = element;
    this.element.title = text.thinnedDetail;
    this.pace = { per_s: null, scale: 1, why: "" };
    this.began = null;
    this.measured = null; // pictures a second, where these are few
  }

  // What the server keeps to: {per_s, scale, why}; `why` is empty while it keeps nothing back.
  keeps(pace) {
    const per_s = Number.isFinite(pace.per_s) ? pace.per_s : null;
    this.pace = { per_s, scale: pace.scale < 1 ? pace.scale : 1, why: text.thinnedWhy[pace.why] ? pace.why : "" };
    this.began = null;
  }

  // Compares the pictures that were shown with the overlays, of which each frame has one; both counted since the start.
  // `coarse`: {drawn, wanted} pixels across, or null.
  show(now, pictures, overlays, frozen, coarse) {
    if (frozen || this.began === null) {
      [this.began, this.pictures, this.overlays] = [frozen ? null : now, pictures, overlays];
      this.measured = null;
    } else if (now - this.began >= THINNED_SPAN_MS) {
      const [shown, came] = [pictures - this.pictures, overlays - this.overlays];
      this.measured = came >= MIN_COUNTED && shown < FEW_PICTURES * came ? (1000 * shown) / (now - this.began) : null;
      [this.began, this.pictures, this.overlays] = [now, pictures, overlays];
    }
    write(this.element, this.words(coarse));
  }

  words(coarse) {
    const { per_s, scale, why } = this.pace;
    if (why) return text.thinned(per_s, scale < 1, text.thinnedWhy[why]);
    if (this.measured !== null) return text.fewPictures(this.measured.toFixed(0));
    return coarse ? text.coarse(coarse.drawn, coarse.wanted) : "";
  }
}
