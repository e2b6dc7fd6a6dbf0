// Words on the page, written only when they are others: each writing has the browser lay out and paint anew.

export function write(element, words) {
  if (element.textContent !== words) element.textContent = words;
}
