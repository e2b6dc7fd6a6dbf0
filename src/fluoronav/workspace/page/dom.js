// Elements, and what the page says to people.

// An element: properties (on... are listeners, data-... and aria-... attributes), then children (elements or text).
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.flat().filter((c) => c !== undefined && c !== null && c !== false));
  return made;
}

export const $ = (id) => document.getElementById(id);

let hiding;
export function say(text, kind = "note") {
  const place = $("message");
  place.className = kind;
  place.replaceChildren(el("span", {}, text), el("button", { onclick: () => (place.hidden = true) }, "Close"));
  place.hidden = false;
  clearTimeout(hiding);
  if (kind === "note") hiding = setTimeout(() => (place.hidden = true), 5000);
}

// Does work for a button: what goes wrong is said, with what the server said about it.
export async function tried(work) {
  try {
    return await work();
  } catch (error) {
    const reasons = error.body?.reasons ?? [];
    say([error.message, ...reasons.map((r) => `• ${r}`)].join("\n"), "error");
    if (!error.body) console.error(error);
    return undefined;
  }
}

// Asks in words; resolves with the value of the button that was pressed, or undefined.
export function asked(title, text, choices) {
  return new Promise((resolve) => {
    const dialog = el("dialog", {}, el("h2", {}, title), ...[text].flat().map((t) => (typeof t === "string" ? el("p", {}, t) : t)));
    const end = (value) => {
      dialog.close();
      dialog.remove();
      resolve(value);
    };
    dialog.append(el("div", { className: "row" }, choices.map(([label, value, kind]) => el("button", { className: kind ?? "", onclick: () => end(value) }, label))));
    dialog.addEventListener("cancel", () => end(undefined));
    document.body.append(dialog);
    dialog.showModal();
  });
}

export const percent = (share) => `${Math.round(share * 100)} %`;
// A share of what is not whole, with as many decimals as show that it is not.
export function percentBelow(share) {
  for (let digits = 1; digits < 8; digits++) {
    const text = (share * 100).toFixed(digits);
    if (Number(text) < 100) return `${text} %`;
  }
  return "under 100 %";
}
export const when = (iso) => (iso ? new Date(iso).toLocaleString([], { dateStyle: "short", timeStyle: "short" }) : "");
export const of = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
