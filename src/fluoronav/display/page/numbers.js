// The numbers that matter, large.

import { text } from "./strings.js";
import { write } from "./words.js";

const find = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const RING_MM = [1, 2, 5]; // of the bull's-eye
const FULL_DEPTH_MM = 80;

function svg(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return parent.appendChild(element);
}

export class Numbers {
  constructor() {
    for (const id of ["registration", "depth", "bullseye", "nearest"]) find(id).querySelector("h2").textContent = text[id];
    const eye = find("bullseye").querySelector("svg");
    for (const mm of RING_MM) {
      svg("circle", { r: radius(mm), class: "ring" }, eye);
      svg("text", { x: 2, y: -radius(mm) + 7, class: "ring" }, eye).textContent = mm;
    }
    svg("path", { d: "M-58 0H58M0-58V58", class: "ring" }, eye);
    this.ring = svg("circle", { class: "beside" }, eye);
    svg("circle", { r: 2, class: "middle" }, eye);
    this.dot = svg("circle", { r: 4.5, class: "tip" }, eye);
  }

  show(overlay, lost) {
    this.registration(overlay, lost);
    this.plan(overlay, lost);
    this.nearest(overlay, lost);
  }

  registration(overlay, lost) {
    const card = find("registration");
    const status = lost ? "lost" : overlay.status;
    card.dataset.status = status;
    write(card.querySelector(".state"), text.status[status]);
    const r = lost ? null : overlay.registration;
    write(card.querySelector(".detail"), r && (status === "tracking" || status === "degraded")
        ? text.within(r.tre_image_mm.toFixed(1), r.tre_mm.toFixed(1))
        : text.noRegistration);
  }

  plan(overlay, lost) {
    const p = lost ? null : overlay.plan.find((q) => q.depth_left_mm !== null && q.lateral_mm !== null);
    const depth = find("depth");
    const eye = find("bullseye");
    depth.classList.toggle("none", !p);
    eye.classList.toggle("none", !p);
    if (!p) {
      write(depth.querySelector(".number"), "–");
      write(eye.querySelector(".detail"), text.noPlan);
      return;
    }
    const left = p.depth_left_mm;
    depth.classList.toggle("past", left < 0);
    write(depth.querySelector(".number"), left < 0 ? text.pastTarget((-left).toFixed(1)) : text.shaftAhead(left.toFixed(1)));
    depth.querySelector("i").style.width = `${100 * Math.min(Math.max(1 - left / FULL_DEPTH_MM, 0), 1)}%`;
    // A dot on the side on which the tip is, seen along the path with the head up; a ring where only the distance is said.
    const size = radius(Math.min(p.lateral_mm, 6));
    const [x, y] = p.beside_mm ?? [0, 0];
    const scale = size / Math.max(Math.hypot(x, y), 1e-6);
    eye.classList.toggle("sided", Boolean(p.beside_mm));
    this.dot.setAttribute("cx", x * scale);
    this.dot.setAttribute("cy", -y * scale);
    this.ring.setAttribute("r", size);
    eye.dataset.beside = p.lateral_mm > 2 ? "far" : "near";
    write(eye.querySelector(".detail"), text.lateral(p.lateral_mm.toFixed(1), (p.angle_deg ?? 0).toFixed(1)));
  }

  nearest(overlay, lost) {
    const card = find("nearest");
    const all = lost ? [] : overlay.distances;
    const d = all.reduce((a, b) => (!a || b.lower_mm < a.lower_mm ? b : a), null);
    card.dataset.level = d ? d.level : "none";
    write(card.querySelector(".number"), d ? text.mm(d.distance_mm.toFixed(1)) : "–");
    const contact = d?.contact_s != null && d.contact_s < 10 ? `, ${text.contact(d.contact_s.toFixed(1))}` : "";
    write(card.querySelector(".detail"), d
      ? `${text.distance(d.instrument, d.structure.replaceAll("_", " "))}, ${text.atLeast(d.lower_mm.toFixed(1))}${contact}`
      : text.noInstrument);
  }
}

// Rings get closer farther out, so that a millimetre near the middle is large.
function radius(mm) {
  return 55 * Math.sqrt(mm / 6);
}
