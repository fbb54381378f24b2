// Inside an encoder-decoder: a source, a target, and the attention between and within them.
import { html, useRef, useState } from "glass/dom.js";
import { ask, useAnswer } from "glass/api.js";
import { lossColour, shareColour } from "glass/colours.js";
import { Film } from "glass/film.js";
import { useKeys } from "glass/inside.js";
import { Grid } from "glass/lens.js";
import { HeadMap, Thumbnail, seenBy } from "glass/maps.js";
import { change, number } from "glass/state.js";
import { nats, percent, quoted, visible } from "glass/text.js";
import { TokenStrip } from "glass/token-strip.js";

const PARTS = [["cross", "cross-attention"], ["encoder", "within the source"], ["decoder", "within the target"]];
const PLAIN = "Paris is the capital of France.";  // for an imported model, which has no samples
const PAUSE = 350;  // milliseconds without a key, after which a text counts as typed

export function Pair({ run, params }) {
  const details = useAnswer(params.has("text") ? null : `/api/runs/${encodeURIComponent(run.id)}`, undefined);
  const text = params.get("text") ?? opening(details.answer);
  const step = number(params, "step") ?? run.best_step ?? run.steps.at(-1);
  const question = text === null ? null : { run: run.id, text, target: params.get("target"), step };
  const found = useAnswer(question && "/api/pair", question);
  const { answer, answered } = found, error = question ? found.error : details.error;
  return html`
    <div class="pair-texts">
      <${Field} name="text" label="Source" value=${text ?? ""} />
      <${Field} name="target" label="Target (empty: the model writes it)" value=${params.get("target") ?? ""} />
    </div>
    ${error && html`<p class="error" role="alert">${error}</p>`}
    ${error && !answer && question && html`<${Film} run=${run} step=${step} ask=${(step) => ask("/api/pair", { ...question, step })} />`}
    ${answer && html`<${View} ...${{ run, question: answered, answer, params }} />`}`;
}

// The source of what the model wrote last: the sample shows it before an arrow.
function opening(details) {
  if (details === null) return null;
  const sample = details.samples.at(-1);
  return sample ? sample.prompt.replace(/ → $/, "") : PLAIN;
}

// What is typed counts after a pause. An empty source is one, too; an empty target is none.
function Field({ name, label, value }) {
  const [typed, setTyped] = useState(null);
  const timer = useRef(0);
  const type = (event) => {
    const value = event.target.value;
    setTyped(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => { change({ [name]: value || (name === "text" ? " " : null), token: null, key: null }); setTyped(null); }, PAUSE);
  };
  return html`<div class="text-field"><label for=${name}>${label}</label>
    <textarea id=${name} rows="2" spellcheck="false" value=${typed ?? value} onInput=${type}></textarea></div>`;
}

// What a part has along its axes. A row of cross-attention is named after the token that it writes.
function partOf(params, { meta, arrays }) {
  const name = PARTS.some(([part]) => part === params.get("part")) ? params.get("part") : "cross";
  const [rows, keys] = { cross: [meta.outputs, meta.source], encoder: [meta.source, meta.source], decoder: [meta.inputs, meta.inputs] }[name];
  return { name, rows, keys, maps: arrays[name], sight: { causal: name === "decoder", window: null } };
}

function View({ run, question, answer, params }) {
  const { meta, arrays } = answer;
  const part = partOf(params, answer), { rows, keys, sight, maps } = part;
  const chosen = chosenHead(params, part, answer);
  const [, n_head] = maps.shape;
  const start = (chosen.layer * n_head + chosen.head) * rows.length * keys.length;
  const weights = maps.data.subarray(start, start + rows.length * keys.length);
  const row = Math.min(number(params, "token") ?? 0, rows.length - 1);
  const [first, end] = seenBy(row, keys.length, sight);
  let heard = first;
  for (let key = first; key < end; key++) if (weights[row * keys.length + key] > weights[row * keys.length + heard]) heard = key;
  const asked = number(params, "key");
  const keyToken = asked !== null && asked >= first && asked < end ? asked : heard;
  const share = (key) => (key >= first && key < end ? weights[row * keys.length + key] / 255 : 0);
  const look = (row) => change({ token: row || null, key: null });
  useKeys({ ArrowLeft: () => look(Math.max(0, row - 1)), ArrowRight: () => look(Math.min(rows.length - 1, row + 1)) });
  const listening = keys.map((_, key) => ({ ground: shareColour(share(key)), ink: "var(--text)" }));
  return html`
    <div><h1>${part.name === "cross" ? "Which source tokens does this target token hear?" : "Whom does this token hear?"}</h1>
      <p>${sentence(part, chosen, row, heard, share(heard))}</p></div>
    <div class="row" role="group" aria-label="Attention">${PARTS.map(([name, label]) => html`
      <button key=${name} aria-pressed=${name === part.name} onClick=${() => change({ part: name === "cross" ? null : name, head: null, token: null, key: null })}>${label}</button>`)}</div>
    ${part.name !== "decoder" && html`<div><h2>source</h2><${TokenStrip} tokens=${meta.source} label="The source, in tokens"
      chosen=${part.name === "encoder" ? row : keyToken} colours=${listening}
      onChoose=${(at) => (part.name === "encoder" ? look(at) : change({ key: at }))} /></div>`}
    ${part.name !== "encoder" && html`<div><h2>target${meta.written && ", written by the model"}</h2>
      <${TokenStrip} tokens=${rows} label="The target, in tokens" chosen=${row} onChoose=${look}
        colours=${part.name === "decoder" ? listening : rows.map((_, at) => ({ ground: lossColour(arrays.losses.data[at]), ink: "var(--text)" }))} /></div>`}
    <${Film} run=${run} step=${meta.step} ask=${(step) => ask("/api/pair", { ...question, step })} />
    <div class="columns">
      <section class="panel" aria-label="All heads" id="heads"><h2>heads</h2>
        <${Heads} ...${{ part, chosen, kinds: meta.kinds[part.name], sharpness: arrays.sharpness }} /></section>
      <section class="panel" aria-label="One head"><h2>head ${chosen.layer}.${chosen.head}${chosen.kind && ` (${chosen.kind})`}, ${PARTS.find(([name]) => name === part.name)[1]}</h2>
        ${part.name === "cross" && html`<p class="quiet">A row is the step that writes its token, a column is a source token.</p>`}
        <${HeadMap} ...${{ weights, sight, sinks: null, tokens: rows, keys, query: row, keyToken, label: mapLabel(part, chosen, row, share) }}
          onChoose=${(row, key) => change({ token: row || null, key })} /></section>
      ${part.name !== "encoder" && html`<${Written} ...${{ answer, row }} />`}
      ${part.name !== "encoder" && html`<${Knows} ...${{ answer, row, look }} />`}
    </div>`;
}

function sentence({ name, rows, keys }, { layer, head }, row, heard, weight) {
  const [query, key] = [html`<b class="mono">${quoted(rows[row])}</b>`, html`<b class="mono">${quoted(keys[heard])}</b>`];
  if (name === "cross") return html`To write ${query}, head ${layer}.${head} gives ${percent(weight)} of its attention to ${key} of the source.`;
  return html`Head ${layer}.${head} gives ${percent(weight)} of the attention of ${query} to ${key}.`;
}

// By default the head of cross-attention that is most decided, or a head that has a name.
function chosenHead(params, { name, maps }, { meta, arrays }) {
  const [n_layer, n_head] = maps.shape;
  const kindOf = (layer, head) => (name === "cross" ? null : meta.kinds[name][layer][head]);
  const match = /^(\d{1,4})\.(\d{1,4})$/.exec(params.get("head") ?? "");
  if (match && Number(match[1]) < n_layer && Number(match[2]) < n_head) {
    const [layer, head] = [Number(match[1]), Number(match[2])];
    return { layer, head, kind: kindOf(layer, head) };
  }
  const all = Array.from({ length: n_layer * n_head }, (_, at) => at);
  const best = name === "cross" ? all.reduce((most, at) => (arrays.sharpness.data[at] > arrays.sharpness.data[most] ? at : most))
    : Math.max(0, all.findIndex((at) => meta.kinds[name][Math.floor(at / n_head)][at % n_head]));
  const [layer, head] = [Math.floor(best / n_head), best % n_head];
  return { layer, head, kind: kindOf(layer, head) };
}

function Heads({ part, chosen, kinds, sharpness }) {
  const { maps, rows, keys, sight } = part;
  const [n_layer, n_head] = maps.shape;
  const size = rows.length * keys.length;
  const title = (layer, head) => {
    if (part.name === "cross") return `head ${layer}.${head}, ${percent(sharpness.data[layer * n_head + head])} to one source token`;
    return `head ${layer}.${head}${kinds[layer][head] ? ` (${kinds[layer][head]})` : ""}`;
  };
  return html`<div class="heads" style=${`--heads: ${n_head}`}>
    ${Array.from({ length: n_layer }, (_, layer) => html`<div class="layer" key=${layer}><span class="quiet mono">${layer}</span>
      ${Array.from({ length: n_head }, (_, head) => html`<${Thumbnail} key=${head} rows=${rows.length} columns=${keys.length} sight=${sight}
        weights=${maps.data.subarray((layer * n_head + head) * size, (layer * n_head + head + 1) * size)} off=${false}
        chosen=${chosen.layer === layer && chosen.head === head} title=${title(layer, head)}
        onChoose=${() => change({ head: `${layer}.${head}`, key: null })} />`)}</div>`)}</div>`;
}

// The tokens that were likely at one step, and the one that the target has there.
function Written({ answer: { meta, arrays }, row }) {
  const [, top] = arrays.expected.shape;
  const name = (id) => meta.names[id] ?? { text: `id ${id}` };
  const loss = arrays.losses.data[row], token = meta.outputs[row];
  return html`<section class="panel" aria-label="What is written here">
    <h2>what is written after ${quoted(meta.inputs[row])}</h2>
    <table class="bars"><tbody>${Array.from({ length: top }, (_, rank) => {
      const id = arrays.expected.data[row * top + rank], share = arrays.probabilities.data[row * top + rank];
      return html`<tr key=${id} class=${id === token.id ? "true" : ""}><th scope="row" class="mono">${visible(name(id))}</th>
        <td class="bar"><span style=${`width: ${100 * share}%`}></span></td><td class="number">${percent(share)}</td></tr>`;
    })}</tbody></table>
    <p class="quiet">the target has ${quoted(token)}, loss ${nats(loss)}, probability ${percent(Math.exp(-loss))}</p></section>`;
}

// What each layer of the decoder would write at each step.
function Knows({ answer: { meta, arrays }, row, look }) {
  const grid = { meta: { start: 0, names: meta.names }, arrays: { ids: arrays.lens_ids, probabilities: arrays.lens_probabilities } };
  return html`<section class="panel wide" aria-label="Prediction layer by layer" id="lens">
    <h2>when does it know? What each layer of the decoder would write (logit lens)</h2>
    <${Grid} ...${{ answer: grid, tokens: meta.inputs, position: row, look, written: meta.outputs }} /></section>`;
}

// What a screen reader says of the map: whom the chosen token hears.
function mapLabel({ name, rows, keys }, { layer, head }, row, share) {
  const told = keys.map((token, at) => [share(at), visible(token)]).sort((a, b) => b[0] - a[0]).slice(0, 5);
  return `Attention of head ${layer}.${head}, ${PARTS.find(([part]) => part === name)[1]}. ${visible(rows[row])} hears: ${told.map(([weight, token]) => `${token} ${percent(weight)}`).join(", ")}`;
}
