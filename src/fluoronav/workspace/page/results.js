// What a job has found, in words.

import { el, of } from "./dom.js";
import { readable } from "./structures.js";

const degrees = ({ orbital_deg: o, angular_deg: a }) => `orbital ${o.toFixed(0)}°, angular ${a.toFixed(0)}°`;
const cm3 = (x) => `${x.toFixed(x < 10 ? 2 : 1)} cm³`;

// What a finding is about; one about a flag says it itself.
const subject = ({ item, text }) => (text.startsWith("nobody has acknowledged") ? "" : item ? `${item} ` : /^(is|was|differs) /.test(text) ? "the plan " : "");

const WORDS = {
  measure: ({ measurements = [], flags = [], refused = [] }) => [
    [`${of(measurements.length, "measurement")}, ${of(flags.length, "question")}`],
    ...[...new Set(refused.map((r) => r.reason))].map((reason) => [`not measured: ${reason}`]),
  ],
  screws: ({ screws = [], notes = [] }) => [
    ...screws.map((s) => [`${s.level} ${s.side}: ${s.fits ? `Ø ${s.diameter_mm} × ${s.length_mm} mm, grade ${s.grade}` : `no screw fits: ${s.reason}`}`, s.fits ? "" : "warn"]),
    ...notes.map((n) => [n, "warn"]),
  ],
  views: ({ screws = [], notes = [] }) => [
    ...screws.flatMap((s) => [["one view", s.one], ["two views", s.pair]].filter(([, v]) => v).map(([how, v]) =>
      [`${s.level} ${s.side}, ${how}: ${v.views.map(degrees).join(", then ")}; ${v.error_mm.toFixed(2)} mm expected, ${v.bound_mm.toFixed(2)} mm stated by the guidance (95 %)`, "", s.id])),
    ...notes.map((n) => [n, "warn"]),
  ],
  check: ({ findings = [] }) => (findings.length ? findings.map((f) => [`${f.severity}: ${subject(f)}${f.text}`, f.severity === "unsafe" ? "bad" : f.severity === "note" ? "" : "warn", f.item]) : [["Nothing was found against the plan."]]),
  simulate: surgeryLines,
};

// The planned surgery as it was carried out: [text, kind, item].
export function surgeryLines({ cuts = [], resections = [], implants = [] }) {
  return [
    ...cuts.flatMap((c) => [
      [`${readable(c.structure)}: ${cm3(c.volume_cm3)}, the saw takes ${cm3(c.kerf_cm3)}`],
      ...c.pieces.map((p) => [`${p.name}: ${cm3(p.volume_cm3)}${p.taken_out ? ", taken out" : p.moved_by.length ? ", moved" : ""}`]),
      ...c.wedges.map((w) => [`wedge ${w.from} to ${w.to}: ${w.angle_deg.toFixed(1)}°, ${cm3(w.volume_cm3)}`, "", w.from]),
      ...c.moves.map((m) => [`${m.id}: turned by ${m.rotation_deg.toFixed(1)}°, ${m.shift_at_cut_mm.toFixed(1)} mm at the cut`]),
    ]),
    ...resections.flatMap((r) => [
      [`${readable(r.lesion)} with ${r.margin_mm} mm: ${cm3(r.taken_out_cm3)} taken out`, "", r.id],
      ...r.cuts_through.map((t) => [`through ${readable(t.structure)}: ${cm3(t.volume_cm3)}`, "warn"]),
      ...r.bone_left.map((b) => [`left of ${readable(b.structure)}: ${b.pieces_cm3.map(cm3).join(" and ")}`]),
    ]),
    ...implants.flatMap((i) => [
      [`${i.family} ${i.size}${i.suggested ? `; suggested: ${i.suggested}` : ""}`, "", i.id],
      ...(i.sizes ?? []).filter((s) => s.size === i.size || s.size === i.suggested).map((s) => [`size ${s.size}: ${overhang(s)}`, s.fits ? "" : "warn"]),
    ]),
    ...(cuts.length || resections.length || implants.length ? [] : [["The plan has no cut, resection or implant."]]),
  ];
}

// How far a size reaches over the bone, by side.
function overhang({ overhang_mm, covered }) {
  const over = Object.entries(overhang_mm).filter(([, mm]) => mm > 0).map(([side, mm]) => `${side} ${mm.toFixed(1)}`);
  return `${over.length ? `overhang ${over.join(", ")} mm` : "no overhang"}, covers ${Math.round(covered * 100)} %`;
}

// Lines as elements; a click on one shows its item of the plan.
export const linesOf = (lines, show) => lines.map(([text, kind, item]) =>
  el("p", { className: kind ?? "", ...(item ? { onclick: () => show(item), style: "cursor:pointer" } : {}) }, text));

// Lines of a job that is done.
export const linesOfJob = (job, show) => (job.state === "done" && job.result ? linesOf(WORDS[job.kind]?.(job.result) ?? [], show) : []);
