// How tokens and numbers are written.

const VISIBLE = { " ": "·", "\n": "↵", "\t": "→", "\r": "←" };

// A token's text with every space and line end visible.
export function visible(token) {
  if (token.bytes !== undefined) return `‹${token.bytes}›`;
  return [...token.text].map((letter) => VISIBLE[letter] ?? (/\p{C}/u.test(letter) ? "�" : letter)).join("") || "∅";
}

export const quoted = (token) => `“${visible(token)}”`;

// A share as a percentage without digits that it does not deserve.
export function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 1) return "< 1%";
  return `${Math.round(value)}%`;
}

export const nats = (loss) => loss.toFixed(2);
