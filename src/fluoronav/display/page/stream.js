// The connection: messages in, requests out, and back again when it breaks.

import { unpacked } from "./packing.js";

const KEY = new URLSearchParams(location.search).get("key") ?? "";

export class Stream {
  constructor(handlers) {
    this.handlers = handlers; // topic -> function(header, pixels, received)
    this.waiting = new Map();
    this.number = 0;
    this.heardAt = -Infinity;
    this.pause = 250;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/stream?key=${encodeURIComponent(KEY)}`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onmessage = (event) => {
      const received = performance.now();
      this.heardAt = received;
      this.pause = 250;
      const { head: header, buffer, offset } = unpacked(event.data);
      if (header.topic === "reply") this.answered(header);
      else this.handlers[header.topic]?.(header, buffer, offset, received);
    };
    socket.onclose = () => {
      for (const answer of this.waiting.values()) answer({ ok: false, error: { code: "closed", text: "connection lost" } });
      this.waiting.clear();
      setTimeout(() => this.open(), this.pause);
      this.pause = Math.min(this.pause * 1.5, 2000);
    };
  }

  // Has the next picture sent.
  drawn() {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send("drawn");
  }

  answered(reply) {
    this.waiting.get(reply.id)?.(reply);
    this.waiting.delete(reply.id);
  }

  // A promise of the reply; it never fails, a refusal is a reply.
  ask(op, args = {}, user = "") {
    if (this.socket.readyState !== WebSocket.OPEN)
      return Promise.resolve({ ok: false, error: { code: "closed", text: "not connected" } });
    const id = ++this.number;
    this.socket.send(JSON.stringify({ id, op, args, user }));
    return new Promise((done) => this.waiting.set(id, done));
  }
}
