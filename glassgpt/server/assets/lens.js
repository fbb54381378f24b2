// The logit lens: what the model would say next if it stopped after each layer, for many tokens of the text at once.
import { html, useLayoutEffect, useMemo, useRef } from "glass/dom.js";
import { useNext } from "glass/ahead.js";
import { useAnswer } from "glass/api.js";
import { percent, quoted, spoken, visible } from "glass/text.js";

// Where a window of `width` positions begins, so that the chosen one is not at its edge. It moves by half its width, so
// that most steps through the text need no new window.
export function windowStart(position, width, length) {
  const half = Math.max(1, Math.floor(width / 2));
  const start = half * Math.floor((position - width / 4) / half);
  return Math.max(0, Math.min(start, length - width));
}

export function LogitLens({ question, next, tokens, position, look, encoder }) {
  const { answer, answered, error } = useAnswer("/api/lens", question);
  const detail = useNext(next);
  const fits = answer && !error && answered.text === question.text;  // of another text only until the new answer is there
  return html`<section class="panel wide" aria-label="Prediction layer by layer" id="lens">
    <h2>when does it know? The prediction after each layer (logit lens)</h2>
    ${error && html`<p class="error">${error}</p>`}
    ${fits && html`<${Grid} ...${{ answer, tokens, position, look, encoder }} />`}
    ${detail.answer && html`<h3>${where(tokens[detail.position], detail.answer.meta, encoder)}: the most likely tokens in each layer</h3><${Candidates} answer=${detail.answer} />`}
  </section>`;
}

function where(token, { hidden, next }, encoder) {
  if (!encoder) return `after ${quoted(token)}`;
  return hidden && next !== null ? `${quoted(token)}, hidden` : `in the place of ${quoted(token)}`;
}

const layerName = (layer, layers) => (layer === layers - 1 ? "output" : layer === 0 ? "embedding" : `block ${layer - 1}`);
const shade = (share) => `background: color-mix(in oklab, var(--attention) ${Math.round(50 * share)}%, var(--ground))`;

export function Grid({ answer, tokens, position, look, encoder, written }) {
  const { ids, probabilities } = answer.arrays;
  const { start, names } = answer.meta;
  const [layers, width] = ids.shape;
  const box = useRef(null);
  const columns = Array.from({ length: width }, (_, column) => start + column);
  const name = (id) => names[id] ?? { text: `id ${id}` };
  const told = (column) => (written ? written[column] : tokens[encoder ? column : column + 1]);  // what the text has where the cell guesses

  // The chosen column is brought into view, inside the panel only. The focus goes with the choice.
  useLayoutEffect(() => {
    const chosen = box.current.querySelector("thead [aria-pressed=true]");
    if (chosen === null) return;
    const [outer, inner] = [box.current.getBoundingClientRect(), chosen.getBoundingClientRect()];
    const left = outer.left + box.current.querySelector("thead th").offsetWidth;  // the labels of the rows stay there
    if (inner.left < left) box.current.scrollLeft += inner.left - left - 24;
    else if (inner.right > outer.right) box.current.scrollLeft += inner.right - outer.right + 24;
    if (box.current.contains(document.activeElement) && document.activeElement !== box.current) chosen.focus({ preventScroll: true });
  }, [position, start, width]);

  const cell = (layer, column) => {
    const at = layer * width + column - start;
    const share = probabilities.data[at] / 255;
    const token = name(ids.data[at]);
    const hit = ids.data[at] === told(column)?.id;
    return html`<td key=${column} class=${[hit && "true", column === position && "chosen"].filter(Boolean).join(" ") || undefined} style=${shade(share)}
      title=${`${encoder ? "in the place of" : "after"} ${visible(tokens[column])}, ${layerName(layer, layers)}: ${visible(token)} ${percent(share)}`}>${visible(token)}</td>`;
  };
  const choose = (event) => {
    const found = event.target.closest("td, thead th:not(:first-child)");
    if (found) look(start + found.cellIndex - 1);
  };
  return html`
    <p>${settling(ids, `${width} ${width === 1 ? "token" : "tokens"}${width < tokens.length ? " shown" : ""}`)}</p>
    <p class="quiet">Each column is a token ${written ? "that the decoder has read" : "of the text"}, each cell the token that the layer finds most likely ${encoder ? "in its place, with the text as it is" : "to follow it"}: the
      stronger its colour, the more likely; <b class="hit">underlined</b> where the ${written ? "target" : "text"} ${encoder ? "has it" : "goes on with it"}.</p>
    <div class="scroll" tabindex="0" role="group" aria-label="Predictions of all layers" ref=${box}>
      <table class="lens-grid mono" onClick=${choose}>
        <thead><tr><th scope="col">${written ? "after" : "text"}</th>${columns.map((column) => html`<th key=${column} scope="col">
          <button aria-pressed=${column === position} tabindex=${column === position ? 0 : -1}
            aria-label=${`${spoken(tokens[column])}, token ${column}`}>${visible(tokens[column])}</button></th>`)}</tr></thead>
        <tbody>${Array.from({ length: layers }, (_, layer) => html`<tr key=${layer}>
          <th scope="row">${layerName(layer, layers)}</th>${columns.map((column) => cell(layer, column))}</tr>`)}</tbody>
        <tfoot><tr><th scope="row">in the ${written ? "target" : "text"}</th>${columns.map((column) => html`
          <td key=${column} class=${column === position ? "chosen" : undefined}>${told(column) ? visible(told(column)) : ""}</td>`)}</tr></tfoot>
      </table></div>`;
}

// One sentence: the first layer after which more than half of the tokens have, and keep, the answer of the output.
function settling({ data, shape: [layers, width] }, all) {
  if (layers < 2) return "This model has no blocks: there is only its answer.";
  const counts = Array(layers).fill(0);  // of the tokens that are settled from this layer on, and not before
  for (let column = 0; column < width; column += 1) {
    let layer = layers - 1;
    while (layer > 0 && data[(layer - 1) * width + column] === data[(layers - 1) * width + column]) layer -= 1;
    counts[layer] += 1;
  }
  let settled = 0, layer = 0;
  for (; layer < layers; layer += 1) {
    settled += counts[layer];
    if (2 * settled > width) break;
  }
  if (layer === layers - 1) return `The last block decides most: for ${counts[layer]} of ${all} the final answer takes first place only there.`;
  const where = layer === 0 ? "in the embedding, before any block," : `after block ${layer - 1}`;
  return `For ${settled} of ${all} the final answer is already in first place ${where} and stays there.`;
}

// One token: its five most likely next tokens after each layer.
function Candidates({ answer }) {
  const { lens_ids, lens_probabilities } = answer.arrays;
  const [layers, top] = lens_ids.shape;
  return html`<div class="scroll" tabindex="0" role="group" aria-label="Predictions"><table class="lens"><tbody>
    ${Array.from({ length: layers }, (_, layer) => html`<tr key=${layer}><th scope="row">${layerName(layer, layers)}</th>
      ${Array.from({ length: top }, (_, rank) => {
        const id = lens_ids.data[layer * top + rank];
        const share = lens_probabilities.data[layer * top + rank];
        const token = answer.meta.names[id] ?? { text: `id ${id}` };
        return html`<td key=${rank} class=${id === answer.meta.next ? "true" : ""} style=${shade(share)}>
          <span class="mono">${visible(token)}</span> <span class="share">${percent(share)}</span></td>`;
      })}</tr>`)}
  </tbody></table></div>`;
}
