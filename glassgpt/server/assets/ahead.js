// What comes next after one token, with temperature, top-k and top-p moved live, or what an encoder puts in its place.
import { html, useMemo } from "glass/dom.js";
import { useAnswer } from "glass/api.js";
import { change, read } from "glass/state.js";
import { percent, quoted, visible } from "glass/text.js";

const SHOWN = 8;  // tokens in the list

// {answer, position, error}: what comes next in a text, and after which of its tokens. Until the answer is there, it is that
// of the last token, but never that of another text.
export function useNext(question) {
  const { answer, answered, error } = useAnswer("/api/next", question);
  const fits = answer && !error && answered.text === question.text;
  return { answer: fits ? answer : null, position: (fits ? answered : question).position, error };
}

export function Ahead({ question, tokens, encoder }) {
  const { answer, position, error } = useNext(question);
  const here = quoted(tokens[position]);
  return html`<section class="panel" aria-label=${encoder ? "What stands here" : "What comes next"}>
    <h2>${encoder ? `what stands in the place of ${here}` : `what comes next, after ${here}`}</h2>
    ${error && html`<p class="error">${error}</p>`}
    ${answer && encoder && html`<p class="quiet">${hiding(answer.meta, here)}</p>`}
    ${answer && html`<${Next} answer=${answer} encoder=${encoder} told=${encoder ? "the text has" : "the text goes on with"} />`}</section>`;
}

function hiding({ hidden, next }, here) {
  if (!hidden) return "The tokenizer has no mask token, so the model reads the text as it is, with this token.";
  return next === null ? "The text hides this token: the model sees all others." : `${here} is hidden for this guess: the model sees all others.`;
}

function setting(name, initial, params) {
  const value = Number(params.get(name));
  return params.has(name) && Number.isFinite(value) ? value : initial;
}

function Next({ answer, told, encoder }) {
  const { params } = read();
  const temperature = setting("temperature", 1, params);
  const top_k = setting("top_k", 0, params);
  const top_p = setting("top_p", 1, params);
  const { logits, plain_logits } = answer.arrays;
  const chosen = useMemo(() => distribution(logits.data, temperature, top_k, top_p), [logits, temperature, top_k, top_p]);
  const plain = useMemo(() => plain_logits && distribution(plain_logits.data, temperature, top_k, top_p), [plain_logits, temperature, top_k, top_p]);
  // With an edit, also what was likely without it: what an edit takes away is as telling as what it adds.
  const shown = [...new Set([...chosen.order.slice(0, plain ? SHOWN / 2 : SHOWN), ...(plain ? plain.order.slice(0, SHOWN / 2) : [])])]
    .sort((a, b) => chosen.probabilities[b] - chosen.probabilities[a]);
  const name = (id) => answer.meta.names[id] ?? { text: `id ${id}` };
  const slide = (label, key, value, min, max, step, initial, told) => html`<label><span>${label}</span>
    <input type="range" min=${min} max=${max} step=${step} value=${value} aria-valuetext=${told}
      onInput=${(event) => change({ [key]: Number(event.target.value) === initial ? null : event.target.value })} />
    <span class="mono">${told}</span></label>`;
  return html`<table class="bars">
    ${plain && html`<thead><tr><th scope="col">token</th><th></th><th class="number" scope="col">now</th><th class="number" scope="col">change</th></tr></thead>`}<tbody>${shown.map((id) => html`<tr key=${id} class=${id === answer.meta.next ? "true" : ""}>
      <th scope="row" class="mono">${visible(name(id))}</th>
      <td class="bar"><span style=${`width: ${100 * chosen.probabilities[id]}%`}></span></td>
      <td class="number">${percent(chosen.probabilities[id])}</td>
      ${plain && html`<td class="number" style=${`color: var(${chosen.probabilities[id] < plain.probabilities[id] ? "--removed" : "--added"})`}>${signed(chosen.probabilities[id] - plain.probabilities[id])}</td>`}</tr>`)}</tbody></table>
    ${answer.meta.next !== null && html`<p class="quiet">${told} ${quoted(name(answer.meta.next))},
      ${" "}probability ${percent(chosen.probabilities[answer.meta.next])}</p>`}
    ${!encoder && html`<div class="sliders">
      ${slide("temperature", "temperature", temperature, 0, 2, 0.05, 1, temperature === 0 ? "0: the most likely" : temperature.toFixed(2))}
      ${slide("top-k", "top_k", top_k, 0, Math.min(50, logits.data.length), 1, 0, top_k ? String(top_k) : "all")}
      ${slide("top-p", "top_p", top_p, 0.05, 1, 0.05, 1, top_p.toFixed(2))}
    </div>`}`;  // an encoder does not draw what it writes
}

const signed = (share) => (Math.abs(share) < 0.005 ? "" : `${share < 0 ? "−" : "+"}${Math.round(100 * Math.abs(share))}`);

// The same steps as generation/sampling.py: temperature, then top-k, then top-p.
export function distribution(logits, temperature, top_k, top_p) {
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]);
  const probabilities = new Float64Array(logits.length);
  if (temperature === 0) { probabilities[order[0]] = 1; return { order, probabilities }; }
  const kept = order.slice(0, top_k || order.length);
  let total = 0;
  for (const id of kept) total += probabilities[id] = Math.exp((logits[id] - logits[order[0]]) / temperature);
  let before = 0;
  let left = 0;
  for (const id of kept) {
    const share = probabilities[id] / total;
    probabilities[id] = top_p < 1 && before >= top_p ? 0 : share;
    before += share;
    left += probabilities[id];
  }
  for (const id of kept) probabilities[id] /= left;
  return { order, probabilities };
}
