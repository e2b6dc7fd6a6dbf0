// What a structure is to the person who looks: its meaning decides its colour and its kind of line, the same in the picture,
// in space and in the legend. A meaning is told by shape as well as by colour.

import { BONE_COLOUR, GUARDED_COLOUR, NO_GO_COLOUR } from "./constants.js";

const LEVEL = /(?:^|[^A-Za-z0-9])([CTLS])(?:horacic|ervical|umbar|acral)?[ _-]?(\d{1,2})(?![0-9])/i;
const NERVE = /cord|nerve|cauda|medulla|plexus|radix|root/i;

// Lines in units of the screen (1/1080 of its height); dashes as well. `dash` is empty for a whole line.
export const STYLES = {
  bone: { colour: BONE_COLOUR, width: 1.8, dash: [] },
  target: { colour: BONE_COLOUR, width: 4, dash: [] },
  nerve: { colour: GUARDED_COLOUR, width: 3, dash: [14, 6] },
  vessel: { colour: GUARDED_COLOUR, width: 3, dash: [2.5, 6] },
  no_go: { colour: NO_GO_COLOUR, width: 3, dash: [], hatched: true },
};

// The level of a vertebra in a name, as "T8" in "vertebrae_T8"; "" without one.
export function levelOf(name) {
  const found = LEVEL.exec(name ?? "");
  return found ? found[1].toUpperCase() + Number(found[2]) : "";
}

export class Meanings {
  constructor() {
    this.no_go = new Set(); // names of no-go regions
    this.guarded = new Set(); // names of structures with warning distances
    this.targets = new Set(); // levels that the plan names
  }

  // Takes a case as in the reply to `case.info`, with its plan.
  take(info) {
    this.no_go = new Set(info.no_go ?? []);
    this.guarded = new Set((info.structures ?? []).filter((s) => s.caution_mm != null || s.danger_mm != null).map((s) => s.name));
    this.aim((info.plan ?? []).map((t) => t.name));
  }

  // The levels of the trajectories that are in use.
  aim(names) {
    const key = names.join("\n");
    if (key === this.aimed) return;
    this.aimed = key;
    this.targets = new Set(names.map(levelOf).filter(Boolean));
  }

  of(name) {
    if (this.no_go.has(name)) return "no_go";
    if (this.guarded.has(name)) return NERVE.test(name) ? "nerve" : "vessel";
    return this.targets.has(levelOf(name)) ? "target" : "bone";
  }

  style(name) {
    return STYLES[this.of(name)];
  }
}
