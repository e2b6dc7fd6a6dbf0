// The connection: messages in, requests out; opened again when it breaks.

import { DRAWN_EVERY_MS, REPLY_MS } from "./constants.js";
import { unpacked } from "./packing.js";
import { text } from "./strings.js";

const KEY = new URLSearchParams(location.search).get("key") ?? "";

export class Stream {
  constructor(handlers) {
    this.handlers = handlers; // topic -> function(header, pixels, received)
    this.waiting = new Map();
    this.late = new Map(); // id -> operation of requests that the page has said were not answered
    this.number = 0;
    this.heardAt = -Infinity;
    this.drawn_ms = [];
    this.drawn_due = 0;
    this.open = false;
    this.link = new Worker(new URL("./link.js", import.meta.url));
    this.link.onmessage = ({ data }) => (data.some ? this.take(data.some) : this.opened(data.open));
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    document.addEventListener("visibilitychange", () => this.tellSeen());
    this.link.postMessage({ address: `${scheme}://${location.host}/stream?key=${encodeURIComponent(KEY)}` });
  }

  take(messages) {
    this.link.postMessage({ ready: true });
    for (const message of messages) this.heard(message);
  }

  heard({ data, received: at }) {
    const received = at - performance.timeOrigin; // the worker's clock begins later than the page's
    this.heardAt = received;
    const { head: header, buffer, offset } = unpacked(data);
    if (header.topic === "reply") this.answered(header);
    else this.handlers[header.topic]?.(header, buffer, offset, received);
  }

  opened(open) {
    this.open = open;
    if (open) {
      if (this.side) this.shows(this.side);
      if (document.hidden) this.tellSeen();
      return;
    }
    for (const answer of this.waiting.values()) answer({ ok: false, error: { code: "closed", text: "connection lost" } });
    this.waiting.clear();
  }

  // Asks for pictures whose longer side has at most so many pixels.
  shows(side) {
    this.side = side;
    if (this.open) this.link.postMessage({ text: `side ${side}` });
  }

  // Asks for the next picture.
  taken() {
    if (this.open) this.link.postMessage({ text: "taken" });
  }

  // Takes how long a picture's drawing took, ms; the server is told the median, and sends what this browser can draw.
  drawn(ms) {
    this.drawn_ms.push(ms);
    const now = performance.now();
    if (!this.open || now < this.drawn_due) return;
    this.drawn_due = now + DRAWN_EVERY_MS;
    const sorted = this.drawn_ms.splice(0).sort((a, b) => a - b);
    this.link.postMessage({ text: `drawn ${Math.min(Math.round(sorted[sorted.length >> 1]), 999999)}` });
  }

  // Tells whether the page is seen: a hidden one is sent no pictures.
  tellSeen() {
    if (this.open) this.link.postMessage({ text: document.hidden ? "hidden" : "visible" });
  }

  answered(reply) {
    const asked = this.waiting.get(reply.id);
    if (asked) asked(reply);
    else if (this.late.has(reply.id)) this.handlers.late?.(this.late.get(reply.id), reply);
    this.waiting.delete(reply.id);
    this.late.delete(reply.id);
  }

  // A promise of the reply, which is never rejected: a refusal is a reply.
  ask(op, args = {}, user = "") {
    if (!this.open)
      return Promise.resolve({ ok: false, error: { code: "closed", text: "not connected" } });
    const id = ++this.number;
    this.link.postMessage({ text: JSON.stringify({ id, op, args, user }) });
    return new Promise((done) => {
      this.waiting.set(id, done);
      const error = { code: "unreachable", text: text.noReply(REPLY_MS / 1000) };
      setTimeout(() => {
        if (!this.waiting.has(id)) return;
        this.answered({ id, ok: false, error });
        this.late.set(id, op);
      }, REPLY_MS);
    });
  }
}
