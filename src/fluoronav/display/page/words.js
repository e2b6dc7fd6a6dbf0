// Texts are written only when they change: each writing makes the browser lay out and paint again.

export function write(element, words) {
  if (element.textContent !== words) element.textContent = words;
}
