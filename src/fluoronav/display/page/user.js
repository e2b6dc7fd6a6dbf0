// Who controls this screen: asked before the first request, and again after the time that the display was started with.

import { text } from "./strings.js";

export class User {
  // `shown(name)` is called when the name changes.
  constructor(ask, shown) {
    this.ask = ask;
    this.shown = shown;
    this.name = "";
    this.until = 0; // when the name is asked for again, ms of the page's clock
    this.lasts_ms = Infinity;
    this.question = null; // several requests wait for one answer
  }

  // A promise of the name, empty where nobody gave one.
  async get() {
    if (this.name && performance.now() < this.until) return this.name;
    this.question ??= this.askNow().finally(() => (this.question = null));
    return this.question;
  }

  async askNow() {
    if (this.name && (await this.ask({ words: text.askStill(this.name), yes: text.still, no: text.somebodyElse }))) return this.take(this.name);
    return this.take((await this.ask({ words: text.askName, input: "", yes: text.ok })) ?? "");
  }

  // Hands over to somebody else.
  async change() {
    const name = await this.ask({ words: text.askName, input: this.name, yes: text.ok });
    if (name !== null) this.take(name);
  }

  take(name) {
    this.name = name;
    this.until = performance.now() + this.lasts_ms;
    this.shown(name);
    return name;
  }
}
