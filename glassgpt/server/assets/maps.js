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

// Rows are queries, columns are keys. One pixel for each weight: the browser scales it up. What a query does not see is
// left out, so that the hatched ground shows.
export function paint(canvas, weights, sight) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = attentionPalette();
  for (let row = 0; row < height; row++) {
    const [first, end] = seenBy(row, width, sight);
    for (let column = first; column < end; column++) pixels[row * width + column] = colours[weights[row * width + column]];
  }
  context.putImageData(image, 0, 0);
}

// The first key that a query sees, and the one after the last. A sight is {causal, window}; see inspection/sight.py.
export function seenBy(query, n_keys, { causal, window }) {
  if (!causal) return [0, n_keys];
  return [window === null ? 0 : Math.max(0, query + 1 - window), query + 1];
}

export function sees(query, key, sight) {
  const [first, end] = seenBy(query, Infinity, sight);
  return key >= first && key < end;
}

export function Thumbnail({ weights, rows, columns = rows, sight, chosen, off, title, onChoose }) {
  const canvas = useRef(null);
  useLayoutEffect(() => paint(canvas.current, weights, sight));
  return html`<button class=${`thumbnail unseen${off ? " off" : ""}`} aria-pressed=${chosen} title=${title} aria-label=${title} onClick=${onChoose}>
    <canvas ref=${canvas} width=${columns} height=${rows}></canvas></button>`;
}

// The map of one head: the row of the chosen query is framed, a click chooses a query and a key. `sinks` are the weights
// of the head's sink, 0 to 1 for each query, if it has one.
export function HeadMap({ weights, sight, sinks, tokens, keys = tokens, query, keyToken, onChoose, label }) {
  const canvas = useRef(null), sinkCanvas = useRef(null);
  const [under, setUnder] = useState(null);
  const rows = tokens.length, columns = keys.length, size = Math.max(rows, columns);
  useLayoutEffect(() => {
    paint(canvas.current, weights, sight);
    if (sinks) paint(sinkCanvas.current, Uint8Array.from(sinks, (share) => Math.round(255 * share)), { causal: false });
  });
  const cellAt = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const at = (position, start, length, count) => Math.max(0, Math.min(count - 1, Math.floor(count * (position - start) / length)));
    return { row: at(event.clientY, box.top, box.height, rows), column: at(event.clientX, box.left, box.width, columns) };
  };
  const choose = (event) => {
    const { row, column } = cellAt(event);
    onChoose(row, sight.causal ? Math.min(row, column) : column);
  };
  const labels = size <= 64;  // beyond, a label would be taller than its row
  const upright = keys.every((token) => visible(token).length === 1);  // only longer ones have to be turned
  const told = under ?? { row: query, column: keyToken };
  return html`<div class="headmap">
    <div class="scroll" tabindex="0" role="group" aria-label="Map"><div class="grid" style=${`--size: ${size}; --rows: ${rows}; --columns: ${columns}`}>
      ${labels && html`<div class=${`keys mono${upright ? " upright" : ""}`} aria-hidden="true">${keys.map((token, index) => html`
        <span key=${index} class=${index === keyToken ? "chosen" : ""}>${visible(token)}</span>`)}</div>
        <div class="queries mono" aria-hidden="true">${tokens.map((token, index) => html`
        <span key=${index} class=${index === query ? "chosen" : ""}>${visible(token)}</span>`)}</div>`}
      ${sinks && html`<div class="sink-label mono" aria-hidden="true">sink</div>
        <div class="sink"><canvas ref=${sinkCanvas} width="1" height=${rows} role="img" aria-label="What each token gives to the sink"></canvas></div>`}
      <div class="picture unseen" onPointerMove=${(event) => setUnder(cellAt(event))} onPointerLeave=${() => setUnder(null)} onClick=${choose}>
        <canvas ref=${canvas} width=${columns} height=${rows} role="img" aria-label=${label}></canvas>
        <div class="frame" style=${`top: calc(var(--cell) * ${query})`}></div>
      </div>
    </div></div>
    <p class="quiet" aria-live="off">${gives({ weights, sight, sinks, tokens, keys }, told)}</p>
    ${sight.window !== null && html`<p class="quiet hint"><span class="unseen sample" aria-hidden="true"></span> not visible: after the token, or outside of the window of ${sight.window} tokens</p>`}
  </div>`;
}

function gives({ weights, sight, sinks, tokens, keys }, { row, column }) {
  const [query, key] = [quoted(tokens[row]), quoted(keys[column])];
  const sink = sinks ? `, and ${percent(sinks[row])} to the sink` : "";
  if (sees(row, column, sight)) return `${query} gives ${percent(weights[row * keys.length + column] / 255)} of its attention to ${key}${sink}`;
  return column > row ? `${query} does not see ${key}, which comes later` : `${query} does not see ${key}, which is outside of its window of ${sight.window} tokens`;
}
