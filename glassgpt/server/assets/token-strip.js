// A text as its tokens, each a button: spaces and line ends are visible, and the arrow keys move the choice.
import { html, useLayoutEffect, useMemo, useRef } from "glass/dom.js";
import { letter, spoken, visible } from "glass/text.js";

// The text of a token as nodes: runs of invisible characters are quiet.
export function TokenText({ token }) {
  if (token.bytes) return html`<span class="bytes">${token.bytes}</span>`;
  if (token.special || !token.text) return token.text || "∅";
  const parts = [];
  for (const character of token.text) {
    const { shown, invisible } = letter(character);
    if (parts.length && parts.at(-1).invisible === invisible) parts.at(-1).shown += shown;
    else parts.push({ shown, invisible });
  }
  return parts.map(({ shown, invisible }) => invisible ? html`<span class="invisible">${shown}</span>` : shown);
}

// tokens: {id, text, bytes?, special?}; colours: for each token null, a CSS colour of its ground, or {ground, ink};
// captions: a short text under each token; describe(index): what a screen reader and a tooltip add to its text;
// marked: a set of indices; onPoint(index or null): the pointer is over a token, or over none.
export function TokenStrip({ tokens, colours, chosen, onChoose, label, captions, describe, marked, onPoint }) {
  const strip = useRef(null);
  const first = chosen in tokens ? chosen : 0;  // the one that the Tab key reaches
  const draw = (index, isMarked, isFirst) => {
    const token = tokens[index];
    const colour = typeof colours?.[index] === "string" ? { ground: colours[index] } : colours?.[index];
    const more = describe?.(index) ?? `id ${token.id}`;
    const kind = `${token.special ? "special" : ""} ${isMarked ? "marked" : ""}`.trim() || undefined;
    return html`<button key=${index} type="button" data-index=${index} class=${kind} aria-pressed=${isFirst && index === chosen} tabindex=${isFirst ? 0 : -1}
        aria-label=${`${spoken(token)}, ${more}`} title=${`${visible(token)}  ${more}`}
        style=${colour ? { background: colour.ground, color: colour.ink } : undefined}
      ><${TokenText} token=${token} />${captions && html`<small>${captions[index]}</small>`}</button>`;
  };
  // The nodes of tokens that neither change nor are chosen stay the same objects, which Preact does not compare again.
  const plain = useMemo(() => tokens.map((_, index) => draw(index, false, false)), [tokens, colours, captions, describe]);
  const nodes = [...plain];
  for (const index of marked ?? []) if (index in nodes) nodes[index] = draw(index, true, false);
  if (nodes.length) nodes[first] = draw(first, marked?.has(first) ?? false, true);

  const button = (index) => strip.current?.querySelector(`[data-index="${index}"]`);
  useLayoutEffect(() => {
    if (strip.current?.contains(document.activeElement)) button(chosen)?.focus();
  }, [chosen]);

  // The token above or below: on the next line, the nearest one.
  const across = (index, direction) => {
    const from = button(index).getBoundingClientRect();
    let best = index;
    let distance = Infinity;
    for (let other = index + direction; other in tokens; other += direction) {
      const to = button(other).getBoundingClientRect();
      if (Math.abs(to.top - from.top) < from.height / 2) continue;
      const apart = Math.abs(to.left - from.left) + 1000 * Math.abs(to.top - from.top);
      if (apart < distance) [best, distance] = [other, apart];
      else if (Math.abs(to.top - from.top) > 3 * from.height) break;
    }
    return best;
  };
  const onKeyDown = (event) => {
    const focused = event.target.closest("[data-index]");
    if (!focused || event.ctrlKey || event.metaKey || event.altKey) return;
    const index = Number(focused.dataset.index);
    const next = {
      ArrowLeft: () => Math.max(index - 1, 0),
      ArrowRight: () => Math.min(index + 1, tokens.length - 1),
      ArrowUp: () => across(index, -1),
      ArrowDown: () => across(index, 1),
      Home: () => 0,
      End: () => tokens.length - 1,
    }[event.key]?.();
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();  // the keys of a view would move once more
    button(next).focus();
    onChoose(next);
  };
  const at = (event) => {
    const found = event.target.closest?.("[data-index]");
    return found ? Number(found.dataset.index) : null;
  };
  const withBreaks = nodes.flatMap((node, index) =>
    !tokens[index].bytes && tokens[index].text.includes("\n") ? [node, html`<span key=${`break ${index}`} class="break" />`] : [node]);
  return html`<div class="tokens" role="group" aria-label=${label} ref=${strip} onKeyDown=${onKeyDown}
      onClick=${(event) => at(event) !== null && onChoose(at(event))}
      onPointerOver=${onPoint && ((event) => onPoint(at(event)))} onPointerLeave=${onPoint && (() => onPoint(null))}>${withBreaks}</div>`;
}
