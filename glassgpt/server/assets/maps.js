// Attention maps: small ones of all heads, and one with its tokens.
import { html, useEffect, useLayoutEffect, useRef, useState } from "glass/dom.js";
import { attentionPalette } from "glass/colours.js";
import { percent, quoted, visible } from "glass/text.js";

export function useTheme() {
  const [, redraw] = useState(0);
  useEffect(() => {
    const listener = () => redraw((count) => count + 1);
    addEventListener("themechange", listener);
    return () => removeEventListener("themechange", listener);
  }, []);
}

// Rows are queries, columns are keys. One pixel for each weight: the browser scales it up.
function paint(canvas, weights, size) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = attentionPalette();
  for (let cell = 0; cell < pixels.length; cell++) pixels[cell] = colours[weights[cell]];
  context.putImageData(image, 0, 0);
}

export function Thumbnail({ weights, size, chosen, off, title, onChoose }) {
  const canvas = useRef(null);
  useLayoutEffect(() => paint(canvas.current, weights, size));
  return html`<button class=${`thumbnail${off ? " off" : ""}`} aria-pressed=${chosen} title=${title} aria-label=${title} onClick=${onChoose}>
    <canvas ref=${canvas} width=${size} height=${size}></canvas></button>`;
}

// The map of one head: the row of the chosen query is framed, a click chooses a query and a key.
export function HeadMap({ weights, tokens, query, keyToken, onChoose, label }) {
  const canvas = useRef(null);
  const [under, setUnder] = useState(null);
  const size = tokens.length;
  useLayoutEffect(() => paint(canvas.current, weights, size));
  const cellAt = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const at = (position, start, length) => Math.max(0, Math.min(size - 1, Math.floor(size * (position - start) / length)));
    return { row: at(event.clientY, box.top, box.height), column: at(event.clientX, box.left, box.width) };
  };
  const labels = size <= 64;  // beyond, a label would be taller than its row
  const upright = tokens.every((token) => visible(token).length === 1);  // only longer ones have to be turned
  const told = under ?? { row: query, column: keyToken };
  return html`<div class="headmap">
    <div class="scroll" tabindex="0" role="group" aria-label="Map"><div class="grid" style=${`--size: ${size}`}>
      ${labels && html`<div class=${`keys mono${upright ? " upright" : ""}`} aria-hidden="true">${tokens.map((token, index) => html`
        <span key=${index} class=${index === keyToken ? "chosen" : ""}>${visible(token)}</span>`)}</div>
        <div class="queries mono" aria-hidden="true">${tokens.map((token, index) => html`
        <span key=${index} class=${index === query ? "chosen" : ""}>${visible(token)}</span>`)}</div>`}
      <div class="picture" onPointerMove=${(event) => setUnder(cellAt(event))} onPointerLeave=${() => setUnder(null)}
           onClick=${(event) => { const { row, column } = cellAt(event); onChoose(row, Math.min(row, column)); }}>
        <canvas ref=${canvas} width=${size} height=${size} role="img" aria-label=${label}></canvas>
        <div class="frame" style=${`top: calc(var(--cell) * ${query})`}></div>
      </div>
    </div></div>
    <p class="quiet" aria-live="off">${quoted(tokens[told.row])} gives ${percent(weights[told.row * size + told.column] / 255)} of its attention to ${quoted(tokens[told.column])}</p>
  </div>`;
}
