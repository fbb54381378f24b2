// How tokens and numbers are written.

const INVISIBLE = { " ": "·", "\n": "↵", "\r": "␍", "\t": "→" };
const SPOKEN = { " ": "space", "\n": "line end", "\r": "carriage return", "\t": "tab", "\u00a0": "no-break space" };
const CONTROL = /[\u0000-\u001f\u007f]/;
const BLANK = /[\s\p{C}]/u;  // what a page would not show

// A character as it is shown: {shown, invisible}.
export function letter(character) {
  const code = character.codePointAt(0);
  if (character in INVISIBLE) return { shown: INVISIBLE[character], invisible: true };
  if (CONTROL.test(character)) return { shown: String.fromCodePoint(code === 0x7f ? 0x2421 : 0x2400 + code), invisible: true };
  if (BLANK.test(character)) return { shown: `U+${code.toString(16).toUpperCase().padStart(4, "0")}`, invisible: true };
  if (/^\p{M}/u.test(character)) return { shown: `◌${character}`, invisible: false };
  return { shown: character, invisible: false };
}

// The text of a token in one line, with visible spaces; its bytes where it is no whole character.
export function visible(token) {
  if (token.bytes) return `⟨${token.bytes}⟩`;
  return [...token.text].map((character) => letter(character).shown).join("") || "∅";
}

// A token in words, for a screen reader.
export function spoken(token) {
  if (token.special) return `special token ${token.text}`;
  if (token.bytes) return `bytes ${token.bytes}`;
  return [...token.text].map((character) => SPOKEN[character] ? ` ${SPOKEN[character]} ` : character).join("").trim() || "nothing";
}

export const quoted = (token) => `“${visible(token)}”`;

// A sample as a text that one could type: a special token would be read as its letters.
export const typeable = (sample) => sample.replace(/<\|\w+\|>/g, "").trim();

// A share as a percentage without digits that it does not deserve.
export function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 1) return "< 1%";
  return `${Math.round(value)}%`;
}

// A number with a minus sign instead of a hyphen, and none before a zero.
export const fixed = (value, digits = 2) => value.toFixed(digits).replace(/^-(0\.0*)$/, "$1").replace("-", "−");

// A change: with its sign, and with none if it rounds to zero.
export function signed(value, digits) {
  const size = Math.abs(value).toFixed(digits);
  return Number(size) ? `${value < 0 ? "−" : "+"}${size}` : size;
}

export const nats = (loss) => loss.toFixed(2);
