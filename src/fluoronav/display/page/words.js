// Texts and attributes are written only when they change: each writing makes the browser lay out and paint again.

export function mark(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

export function write(element, words) {
  if (element.textContent !== words) element.textContent = words;
}
