// Which experts each token chooses in a mixture of experts: tokens × experts for each block, and the chosen token in numbers.
import { html, useLayoutEffect, useRef } from "glass/dom.js";
import { shareColour } from "glass/colours.js";
import { paint } from "glass/maps.js";
import { percent, quoted, visible } from "glass/text.js";

const LABELLED = 64;  // tokens: with more, a label would be taller than its row
const NUMBERED = 16;  // experts: with more, the columns are narrow and have no numbers
const ALL = { causal: false, window: null };

export function Experts({ meta, arrays, tokens, position, look }) {
  const { layers, n_expert } = meta.experts;
  const [, size, n_active] = arrays.experts.shape;
  const of = (index, token) => Array.from({ length: n_active }, (_, rank) => {
    const at = (index * size + token) * n_active + rank;
    return { expert: arrays.experts.data[at], weight: arrays.expert_weights.data[at] };
  });
  return html`<section class="panel wide" aria-label="Experts" id="experts">
    <h2>which experts does each token choose?</h2>
    <p>${busiest({ layers, n_expert, size, of })}</p>
    <div class="scroll" tabindex="0" role="group" aria-label="Choices of all blocks"><div class="experts" style=${`--rows: ${size}; --experts: ${n_expert}; --wide: ${n_expert <= NUMBERED ? 14 : 6}px`}>
      ${size <= LABELLED && html`<div class="queries mono" aria-hidden="true">${tokens.map((token, index) => html`
        <span key=${index} class=${index === position ? "chosen" : ""}>${visible(token)}</span>`)}</div>`}
      ${layers.map((layer, index) => html`<${Choices} key=${layer} ...${{ layer, n_expert, size, position, look, of: (token) => of(index, token), tokens }} />`)}
    </div></div>
    <h3>${quoted(tokens[position])}: its experts in each block, and their weights</h3>
    <div class="scroll" tabindex="0" role="group" aria-label="Experts of the token"><table class="lens"><tbody>
      ${layers.map((layer, index) => html`<tr key=${layer}><th scope="row">block ${layer}</th>
        ${of(index, position).map(({ expert, weight }, rank) => html`<td key=${rank} style=${`background: ${shareColour(weight)}`}>
          expert <span class="mono">${expert}</span> <span class="share">${percent(weight)}</span></td>`)}</tr>`)}
    </tbody></table></div></section>`;
}

// A sentence on the expert that most tokens chose.
function busiest({ layers, n_expert, size, of }) {
  let most = { count: 0 };
  layers.forEach((layer, index) => {
    const counts = new Uint32Array(n_expert);
    for (let token = 0; token < size; token++) for (const { expert } of of(index, token)) counts[expert]++;
    counts.forEach((count, expert) => { if (count > most.count) most = { count, expert, layer }; });
  });
  const n_active = of(0, 0).length;
  return `In each block, a token chooses ${n_active} of ${n_expert} experts. The busiest is expert ${most.expert} of block ${most.layer}: `
    + `${most.count} of ${size} tokens chose it. With equal shares, an expert would serve ${(n_active * size / n_expert).toFixed(1)}.`;
}

// One block: a row for each token, a column for each expert.
function Choices({ layer, n_expert, size, position, look, of, tokens }) {
  const canvas = useRef(null);
  useLayoutEffect(() => {
    const weights = new Uint8Array(size * n_expert);
    for (let token = 0; token < size; token++) for (const { expert, weight } of of(token)) weights[token * n_expert + expert] = Math.round(255 * weight);
    paint(canvas.current, weights, ALL);
  });
  const choose = (event) => {
    const box = canvas.current.getBoundingClientRect();
    look(Math.max(0, Math.min(size - 1, Math.floor(size * (event.clientY - box.top) / box.height))));
  };
  const told = of(position).map(({ expert, weight }) => `expert ${expert} ${percent(weight)}`).join(", ");
  return html`<figure><figcaption class="quiet">block ${layer}</figcaption>
    ${n_expert <= NUMBERED && html`<div class="numbered mono quiet" aria-hidden="true">${Array.from({ length: n_expert }, (_, expert) => html`<span key=${expert}>${expert}</span>`)}</div>`}
    <div class="picture" onClick=${choose}>
      <canvas ref=${canvas} width=${n_expert} height=${size} role="img" aria-label=${`Block ${layer}. ${visible(tokens[position])} chooses ${told}`}></canvas>
      <div class="frame" style=${`top: calc(var(--cell) * ${position})`}></div>
    </div></figure>`;
}
