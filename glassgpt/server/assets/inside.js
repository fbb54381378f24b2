// Inside: one text through one model. Whom does a token hear, what comes next, and when does the model know it?
import { html, useLayoutEffect, useRef, useState } from "glass/dom.js";
import { ask, useAnswer } from "glass/api.js";
import { lossColour } from "glass/colours.js";
import { HeadMap, Thumbnail, seenBy, sees, useTheme } from "glass/maps.js";
import { Film } from "glass/film.js";
import { Ahead } from "glass/ahead.js";
import { Alike } from "glass/alike.js";
import { Experts } from "glass/experts.js";
import { LogitLens, windowStart } from "glass/lens.js";
import { Pair } from "glass/pair.js";
import { change, number } from "glass/state.js";
import { nats, percent, quoted, typeable, visible } from "glass/text.js";
import { TokenStrip } from "glass/token-strip.js";

const CHOSEN = [".tokens", ".heads", ".lens-grid"].map((group) => `${group} button[aria-pressed=true]`).join();
const OPENING = 32;  // letters of a sample, where no text is given
const PLAIN = "Paris is the capital of France.";  // for an imported model, which has no samples
const MASKS = ["[MASK]", "<mask>", "<|mask|>"];
const HIDING = "Paris is the [MASK] of France.";  // for an imported encoder

export function Inside({ run, params }) {
  useTheme();
  if (run === null) return html`<h1>There is no model to look into</h1><p>A run appears here with its first checkpoint.</p>`;
  return html`<${run.kind === "encoder-decoder" ? Pair : Look} key=${run.id} run=${run} params=${params} />`;
}

function Look({ run, params }) {
  const details = useAnswer(params.has("text") ? null : `/api/runs/${encodeURIComponent(run.id)}`, undefined);
  const text = params.get("text") ?? opening(details.answer, run);
  const step = number(params, "step") ?? run.best_step ?? run.steps.at(-1);
  const edits = params.get("edits")?.split(",").filter(Boolean) ?? [];
  const question = text === null ? null : { run: run.id, text, step, edits };
  const found = useAnswer(question && "/api/inside", question);
  const { answer, answered } = found, error = question ? found.error : details.error;
  const tokens = answer?.meta.tokens ?? [];
  const hidden = run.kind === "encoder" ? tokens.findIndex((token) => MASKS.includes(token.text)) : -1;
  const usual = hidden < 0 ? tokens.length - 1 : hidden;
  const position = Math.min(number(params, "token") ?? usual, tokens.length - 1);
  const look = (position) => change({ token: position === usual ? null : position, key: null, alike: null });
  useKeys({ ArrowLeft: () => look(Math.max(0, position - 1)), ArrowRight: () => look(Math.min(tokens.length - 1, position + 1)),
    h: () => goTo("#heads button[aria-pressed=true]"), l: () => goTo("#lens .scroll") });

  return html`
    <${Words} text=${text ?? ""} />
    ${error && html`<p class="error" role="alert">${error}</p>`}
    ${error && !answer && question && html`<${Film} run=${run} step=${step} ask=${(step) => ask("/api/inside", { ...question, step })} />`}
    ${answer && html`<${View} ...${{ run, question: answered, edits, answer, position, params, look }} />`}`;
}

function goTo(selector) {
  const found = document.querySelector(selector);
  if (found === null) return;
  found.scrollIntoView({ block: "center" });
  found.focus();
}

// The first words of what the model wrote last: a text that its tokenizer knows. An encoder's sample is a text with hidden
// tokens, and what it found there; the text is shown as it was asked, since the model would agree with what it found.
function opening(details, run) {
  if (details === null) return null;
  const sample = details.samples.at(-1), most = Math.min(OPENING, run.block_size ?? OPENING);  // a letter may be a token
  const encoder = run.kind === "encoder";
  if (sample && encoder) {
    const mask = MASKS.find((name) => (details.config["tokenizer.special_tokens"] ?? "").includes(name)) ?? MASKS[0];
    return typeable(sample.prompt.replace(/\n→\n$/, "")).slice(0, most).replaceAll("▢", mask);
  }
  if (sample) return typeable(sample.prompt + sample.text).slice(0, most);
  return run.state === "imported" ? (encoder ? HIDING : PLAIN).slice(0, most) : "";
}

function Words({ text }) {
  const [typed, setTyped] = useState(null);
  const timer = useRef(0);
  const type = (event) => {
    const value = event.target.value;
    setTyped(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => { change({ text: value || " ", token: null, key: null, alike: null }); setTyped(null); }, 350);
  };
  return html`<details class="words"><summary>change the text</summary>
    <label class="sr-only" for="words">Text</label>
    <textarea id="words" rows="3" spellcheck="false" value=${typed ?? text} onInput=${type}></textarea></details>`;
}

// `question` is the one that `answer` answers; `edits` are those of the address, which may be newer.
function View({ run, question, edits, answer, position, params, look }) {
  const { meta, arrays } = answer;
  const [n_layer, n_head, size] = arrays.maps.shape;
  const chosen = chosenHead(params, meta, n_head);
  const tokens = meta.tokens;
  const encoder = !meta.causal;
  const losses = arrays.losses?.data ?? [];
  const weights = chosen && headWeights(arrays.maps, chosen.index, chosen.head);
  const sinks = chosen && headSinks(arrays.sinks, chosen);
  const sight = chosen && sightOf(meta, chosen.index);
  const heard = weights && strongest(weights, position, size, sight);
  const asked = number(params, "key");
  const keyToken = asked !== null && asked < size && sees(position, asked, sight ?? PLAIN_SIGHT) ? asked : heard?.at ?? 0;
  const next = { ...question, position };
  const lens = { ...question, start: windowStart(position, meta.lens_positions, tokens.length) };
  const embedding = { run: run.id, step: question.step, axes: run.steps.at(-1), id: number(params, "alike") ?? tokens[position].id };
  const askFrame = async (step) => {  // a frame of the film is drawn when all its parts are there
    await ask("/api/inside", { ...question, step });  // first, because the others share its pass
    const others = [["/api/next", next], ["/api/lens", lens], ["/api/embedding", embedding]];
    await Promise.allSettled(others.map(([path, asked]) => ask(path, { ...asked, step })));  // a panel says its own problem
  };
  return html`
    <div>
      <h1>Whom does this token hear?</h1>
      <p>${chosen ? html`Head ${chosen.layer}.${chosen.head}${kind(meta, chosen)} gives ${percent(heard.weight)} of the attention of
        ${" "}<b class="mono">${quoted(tokens[position])}</b> to <b class="mono">${quoted(tokens[heard.at])}</b>${where(position, heard.at)}.${sinks && ` ${percent(sinks[position])} goes to the sink of the head, which is no token.`}`
        : run.architecture === "averaging" ? "This model has no attention: a token hears itself and all tokens before it alike."
        : "This model has no attention: a token hears only itself."}</p>
    </div>
    <${TokenStrip} tokens=${tokens} chosen=${position} onChoose=${look} label="The text, in tokens"
      colours=${tokens.map((_, index) => (index && !encoder ? lossColour(losses[index - 1]) : "transparent"))} />
    ${encoder ? html`<p class="quiet">This encoder reads all tokens at once, before and after each one. It does not predict what comes next, so a token has no loss.</p>` : html`<p class="quiet figures">
      ${position > 0 && html`loss of ${quoted(tokens[position])} <b>${nats(losses[position - 1])}</b>, probability ${percent(Math.exp(-losses[position - 1]))}; `}
      ${losses.length > 0 && html`mean of the text <b>${nats(mean(losses))}</b> nats per token`}
      ${arrays.plain_losses && html`, <b>${nats(mean(arrays.plain_losses.data))}</b> with nothing switched off`}</p>`}
    <${Film} run=${run} step=${meta.step} ask=${askFrame} />
    <${Edits} edits=${edits} chosen=${chosen} />
    <div class="columns">
      ${n_layer > 0 && html`<section class="panel" aria-label="All heads" id="heads"><h2>heads</h2>
        <${Heads} ...${{ meta, maps: arrays.maps, chosen, edits: question.edits }} /></section>`}
      ${chosen && html`<section class="panel" aria-label="One head">
        <h2>head ${chosen.layer}.${chosen.head}${kind(meta, chosen)}${windowed(meta) && `, ${sightName(sight)}`}</h2>
        <${HeadMap} ...${{ weights, sight, sinks, tokens, query: position, keyToken, label: mapLabel({ tokens, weights, sinks, sight }, position, chosen) }}
          onChoose=${(row, column) => change({ token: row === size - 1 ? null : row, key: column })} />
        <${Arithmetic} ...${{ question, chosen, tokens, query: position, keyToken, sight, sinks }} /></section>`}
      <${Ahead} question=${next} tokens=${tokens} encoder=${encoder} />
      ${meta.experts && html`<${Experts} ...${{ meta, arrays, tokens, position, look }} />`}
      <${LogitLens} ...${{ question: lens, next, tokens, position, look, encoder }} />
      <${Alike} question=${embedding} />
    </div>`;
}

function chosenHead(params, meta, n_head) {
  if (!meta.layers.length) return null;
  const match = /^(\d{1,4})\.(\d{1,4})$/.exec(params.get("head") ?? "");
  let index = match ? meta.layers.indexOf(Number(match[1])) : -1;
  let head = match ? Number(match[2]) : 0;
  if (index < 0 || head >= n_head) {  // by default a head that has a name
    index = Math.max(0, meta.kinds.findIndex((kinds) => kinds.some(Boolean)));
    head = Math.max(0, meta.kinds[index].findIndex(Boolean));
  }
  return { index, head, layer: meta.layers[index] };
}

const kind = (meta, { index, head }) => (meta.kinds[index][head] ? ` (${meta.kinds[index][head]})` : "");

function headWeights(maps, layer, head) {
  const [, n_head, size] = maps.shape;
  const start = (layer * n_head + head) * size * size;
  return maps.data.subarray(start, start + size * size);
}

const PLAIN_SIGHT = { causal: true, window: null };
const sightOf = (meta, index) => ({ causal: meta.causal, window: meta.windows[index] });
const windowed = (meta) => meta.windows.some((window) => window !== null);
const sightName = ({ window }) => (window === null ? "full" : `window of ${window} ${window === 1 ? "token" : "tokens"}`);

// The weights that the queries give to the sink of a head; null where there is none.
function headSinks(sinks, { index, head }) {
  if (!sinks) return null;
  const [, n_head, size] = sinks.shape;
  const start = (index * n_head + head) * size;
  return sinks.data.subarray(start, start + size);
}

function strongest(weights, query, size, sight) {
  const [first, end] = seenBy(query, size, sight);
  let at = first;
  for (let column = first; column < end; column++) if (weights[query * size + column] > weights[query * size + at]) at = column;
  return { at, weight: weights[query * size + at] / 255 };
}

function where(query, key) {
  if (query === key) return ", itself";
  if (key > query) return key - query === 1 ? ", the token after" : `, ${key - query} tokens after`;
  return query - key === 1 ? ", the token before" : `, ${query - key} tokens before`;
}

function mean(values) {
  let sum = 0;
  for (const value of values) sum += value;
  return sum / values.length;
}

// What a screen reader says of the map: whom the chosen token hears.
function mapLabel({ tokens, weights, sinks, sight }, query, { layer, head }) {
  const size = tokens.length;
  const [first, end] = seenBy(query, size, sight);
  const row = [...weights.subarray(query * size + first, query * size + end)].map((weight, at) => [weight / 255, first + at]);
  const told = row.sort((a, b) => b[0] - a[0]).slice(0, 5).map(([weight, at]) => `${visible(tokens[at])} ${percent(weight)}`);
  if (sinks) told.push(`the sink ${percent(sinks[query])}`);
  const window = sight.window === null ? "" : `, ${sightName(sight)}`;
  return `Attention of head ${layer}.${head}${window}. ${visible(tokens[query])} hears: ${told.join(", ")}`;
}

function Heads({ meta, maps, chosen, edits }) {
  const [, n_head, size] = maps.shape;
  const name = (index) => (windowed(meta) ? html`<small> ${meta.windows[index] === null ? "full" : `window ${meta.windows[index]}`}</small>` : null);
  return html`<div class=${`heads${windowed(meta) ? " named" : ""}`} style=${`--heads: ${n_head}`}>
    ${meta.layers.map((layer, index) => html`<div class="layer" key=${layer}><span class="quiet mono">${layer}${name(index)}</span>
      ${Array.from({ length: n_head }, (_, head) => html`<${Thumbnail} key=${head} rows=${size} sight=${sightOf(meta, index)}
        weights=${headWeights(maps, index, head)} chosen=${chosen.index === index && chosen.head === head}
        off=${edits.includes(`blocks.${layer}.head.${head}`) || edits.includes(`blocks.${layer}`)}
        title=${`head ${layer}.${head}${kind(meta, { index, head })}`}
        onChoose=${() => change({ head: `${layer}.${head}`, key: null })} />`)}</div>`)}
  </div>`;
}

function Edits({ edits, chosen }) {
  if (!chosen) return null;
  const offer = [[`blocks.${chosen.layer}.head.${chosen.head}`, `head ${chosen.layer}.${chosen.head}`], [`blocks.${chosen.layer}`, `block ${chosen.layer}`]];
  const set = (list) => change({ edits: list.length ? list.join(",") : null });
  const others = edits.filter((name) => !offer.some(([offered]) => offered === name));
  return html`<div class="row" role="group" aria-label="Switch off">
    <span class="quiet">switch off</span>
    ${[...offer, ...others.map((name) => [name, partName(name)])].map(([name, label]) => html`
      <button key=${name} aria-pressed=${edits.includes(name)}
        onClick=${() => set(edits.includes(name) ? edits.filter((other) => other !== name) : [...edits, name])}>${label}</button>`)}
  </div>`;
}

// "blocks.0.head.3" is "head 0.3".
function partName(name) {
  const [, block, kind, number] = name.split(".");
  return kind === undefined ? `block ${block}` : number === undefined ? `${kind} of block ${block}` : `${kind} ${block}.${number}`;
}

// q · k / √D, and the vectors behind it, for one query and one key.
function Arithmetic({ question, chosen, tokens, query, keyToken, sight, sinks }) {
  const [open, setOpen] = useState(false);
  const { answer, answered, error } = useAnswer(open ? "/api/head" : null, { ...question, layer: chosen.layer, head: chosen.head });
  const fits = answer && answer.meta.layer === chosen.layer && answer.meta.head === chosen.head && answered.text === question.text;
  return html`<details open=${open} onToggle=${(event) => setOpen(event.target.open)}>
    <summary>the numbers: q · k / √D → softmax → weight × v</summary>
    ${error && html`<p class="error">${error}</p>`}
    ${fits && html`<${Numbers} ...${{ arrays: answer.arrays, scale: answer.meta.scale, tokens, query, keyToken, sight, sinks }} />`}
  </details>`;
}

function Numbers({ arrays, scale, tokens, query, keyToken, sight, sinks }) {
  const width = arrays.q.shape[1];
  const row = (name, at) => arrays[name].data.subarray(at * width, (at + 1) * width);
  const [q, k, v] = [row("q", query), row("k", keyToken), row("v", keyToken)];
  const cell = query * tokens.length + keyToken;
  const terms = Float32Array.from(q, (value, index) => value * k[index] * (scale ?? 1 / Math.sqrt(width)));
  const largest = [...terms.keys()].sort((a, b) => Math.abs(terms[b]) - Math.abs(terms[a])).slice(0, 3);
  return html`<div class="numbers">
    <${Vector} name="query" of=${quoted(tokens[query])} values=${q} />
    <${Vector} name="key" of=${quoted(tokens[keyToken])} values=${k} />
    <${Vector} name="value" of=${quoted(tokens[keyToken])} values=${v} />
    <p>score = q · k ${scale === null ? `/ √${width}` : `× ${scale.toFixed(3)}`} = <b>${arrays.scores.data[cell].toFixed(2)}</b>; after the softmax over ${softmaxOver(sight)}${sinks && " and the sink"}, the weight of
      ${" "}${quoted(tokens[keyToken])} is <b>${percent(arrays.pattern.data[cell])}</b>. Most of the score comes from dimensions
      ${" "}${largest.map((index) => `${index} (${terms[index] < 0 ? "−" : "+"}${Math.abs(terms[index]).toFixed(2)})`).join(", ")}.</p>
  </div>`;
}

function softmaxOver({ causal, window }) {
  if (!causal) return "all tokens";
  return window === null ? "all earlier tokens" : `the last ${window} tokens`;
}

function Vector({ name, of, values }) {
  const most = Math.max(...Array.from(values, Math.abs), 1e-9);
  return html`<div class="vector"><span class="name" style=${`color: var(--${name})`}>${name} of <b class="mono">${of}</b></span>
    <span class="cells" role="img" aria-label=${`${values.length} numbers, the largest ${most.toFixed(2)}`}>
      ${Array.from(values, (value, index) => html`<span key=${index} title=${`${index}: ${value.toFixed(3)}`}
        style=${`background: color-mix(in oklab, ${value < 0 ? "var(--stream)" : `var(--${name})`} ${Math.round(100 * Math.abs(value) / most)}%, var(--ground))`}></span>`)}
    </span></div>`;
}

export function useKeys(handlers) {
  const current = useRef(handlers);
  current.current = handlers;
  useLayoutEffect(() => {  // a key works as soon as what it moves is there to be seen
    const listener = (event) => {
      // A bracket is typed with Alt or AltGr on many keyboards.
      if (!/[[\]]/.test(event.key) && (event.ctrlKey || event.metaKey || event.altKey)) return;
      const slider = event.target.type === "range" && !event.key.startsWith("Arrow");  // it uses only the arrow keys
      if (event.target.closest?.("input, textarea, select, dialog") && !slider) return;
      const chosen = event.target.closest?.(CHOSEN);  // the space key, which presses a button, would do nothing there
      if (event.defaultPrevented || (event.key === " " && event.target.closest?.("button, summary, a") && !chosen)) return;
      const handler = current.current[event.key];
      if (handler) { event.preventDefault(); handler(); }
    };
    addEventListener("keydown", listener);
    return () => removeEventListener("keydown", listener);
  }, []);
}
