// How a pixel's value becomes grey: attenuation first, then the window.
//
// Of counts the logarithm is taken above what the detector shows outside the field: by Beer's law it falls with what the ray
// has passed, so that bone has the same contrast behind a thin and a thick patient. `soft` counts are added: without them
// the logarithm would show the noise of the few counts behind the spine alone.

import { SHOULDER } from "./constants.js";

export class Curve {
  // `full`: the highest value; `dark`: value outside the field; `soft`: null for values that have a curve already.
  constructor(full, dark, soft) {
    [this.full, this.dark, this.soft] = [full, dark, soft];
    this.span = soft === null ? full : Math.log((Math.max(full - dark, 0) + soft) / soft);
  }

  // The fraction of full scale of a value, 0 to 1; the more X-ray the more.
  of(value) {
    const above = Math.min(Math.max(value, 0), this.full);
    return this.soft === null ? above / this.full : Math.log((Math.max(above - this.dark, 0) + this.soft) / this.soft) / this.span;
  }

  // The value of a fraction.
  back(fraction) {
    return this.soft === null ? fraction * this.full : this.dark + this.soft * (Math.exp(fraction * this.span) - 1);
  }

  // The fractions of all values of a pixel, and of one more, so that it can be interpolated.
  table(bytes, inverse) {
    const out = new Float32Array(2 ** (8 * bytes) + 1);
    for (let k = 0; k < out.length; k++) out[k] = this.of(inverse ? this.full - k : k);
    return out;
  }
}

// Grey, 0 to 1, of a place in the window, 0 to 1: what is brighter than bone, as lungs, is drawn together and not burnt out.
export function tone(place) {
  return place < SHOULDER ? Math.max(place, 0) : 1 - (1 - SHOULDER) * Math.exp((SHOULDER - place) / (1 - SHOULDER));
}
