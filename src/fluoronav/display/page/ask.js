// Questions in the side panel. They halt nothing: pictures, numbers and alarm sounds go on.

const find = (id) => document.getElementById(id);

export class Asking {
  constructor(panel) {
    this.panel = panel;
    this.waiting = []; // questions that came while another is open
    this.asked = null;
    const form = find("ask");
    this.input = form.querySelector("input");
    form.querySelector(".yes").onclick = () => this.answer(this.asked?.input === undefined ? true : this.input.value.trim());
    form.querySelector(".no").onclick = () => this.answer(null);
    this.input.onkeydown = (event) => {
      if (event.key === "Enter") this.answer(this.input.value.trim());
      else if (event.key === "Escape") this.answer(null);
    };
  }

  // Resolves to what was typed where the question has an `input` (what stands in it at first), and to true otherwise; to
  // null where it was not answered with `yes`.
  ask(question) {
    return new Promise((done) => {
      this.waiting.push({ no: "", ...question, done });
      if (!this.asked) this.next();
    });
  }

  next() {
    this.asked = this.waiting.shift() ?? null;
    if (!this.asked) return this.panel.open(this.before ?? "");
    const form = find("ask"), { words, input, yes, no } = this.asked;
    if (this.panel.shown !== "ask") this.before = this.panel.shown;
    form.querySelector(".words").textContent = words;
    form.querySelector(".yes").textContent = yes;
    form.querySelector(".no").textContent = no || this.noByDefault;
    this.input.hidden = input === undefined;
    this.input.value = input ?? "";
    this.panel.open("ask");
    if (input !== undefined) this.input.focus();
  }

  answer(value) {
    const asked = this.asked;
    this.asked = null;
    asked?.done(value);
    this.next();
  }

  // The panel was closed, or shows something else.
  closed() {
    if (!this.asked) return;
    this.before = "";
    for (const one of [this.asked, ...this.waiting]) one.done(null);
    [this.asked, this.waiting] = [null, []];
  }
}
