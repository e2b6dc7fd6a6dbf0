// Texts and attributes are written only when they change: each writing makes the browser lay out and paint again.

export function mark(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

export function write(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

// What was said before a colon or a parenthesis.
export const reasonless = (words) => words.split(/: | \(|; /)[0];

// Words that do not fit into their line are said without their reason, which a title or the log has. `where`: what else
// decides how long the line is.
export function writeFitting(element, words, shorter = reasonless(words), where = "") {
  const key = [words, where, innerWidth, innerHeight].join(" ");
  if (element.dataset.words === key) return;
  element.dataset.words = key;
  write(element, words);
  if (element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.parentElement.clientHeight + 1) write(element, shorter);
}
