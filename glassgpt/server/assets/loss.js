// Loss: which tokens surprise it? Each token of a text by its loss, for one model or for two side by side.
import { html, useLayoutEffect, useMemo, useRef } from "glass/dom.js";
import { ask, useAnswer } from "glass/api.js";
import { lossColour, signedColour } from "glass/colours.js";
import { Film } from "glass/film.js";
import { useKeys } from "glass/inside.js";
import { change, number } from "glass/state.js";
import { nats, quoted, typeable, visible } from "glass/text.js";
import { TextField, useText } from "glass/text-field.js";
import { TokenStrip } from "glass/token-strip.js";

const OPENING = 300;  // letters of a sample, where no text is given
const PLAIN = "Paris is the capital of France, and Rome is the capital of Italy.";
const WORST = 10;  // tokens in the list
const BEFORE = 16;  // letters that are shown before a token
const FARTHEST = 3;  // nats between two models at which the colour of a difference is strongest

export function Loss({ runs, run, params }) {
  if (run === null) return html`<h1>There is no model to look into</h1><p>A run appears here with its first checkpoint.</p>`;
  return html`<${Look} key=${run.id} ...${{ runs, run, params }} />`;
}

function Look({ runs, run, params }) {
  const named = params.has("text") || params.has("held");
  const details = useAnswer(named ? null : `/api/runs/${encodeURIComponent(run.id)}`, undefined);
  const { text, lost } = useText(params, opening(details.answer));
  const step = number(params, "step") ?? run.best_step ?? run.steps.at(-1);
  const other = runs.find((card) => card.id === params.get("run2") && card.inspectable) ?? null;
  const otherStep = other && (number(params, "step2") ?? (other.id === run.id ? run.steps[0] : other.best_step ?? other.steps.at(-1)));
  const one = useLosses(run, step, text);
  const two = useLosses(other, otherStep, text);
  const chosen = useChoice(one.found, params);
  const both = one.found && two.found && one.found.text === two.found.text;  // one side may be answered before the other
  const comparison = useMemo(() => both && compare(one.found, two.found), [both, one.found, two.found]);
  const toOther = both ? (index) => across(one.found, two.found, index) : (index) => index;
  const fromOther = both ? (index) => across(two.found, one.found, index) : (index) => index;
  const choose = (index) => change({ token: index });
  return html`
    <div><h1>Which tokens surprise it?</h1>
      <p>${one.found ? summary(run, one.found) : "The loss of a token is −ln of the probability that the model gave it."}</p></div>
    <${TextField} ...${{ text: text ?? (details.error ? "" : null), lost, params, forget: ["token"] }} />
    ${text === null && details.error && html`<p class="error" role="alert">${details.error}</p>`}
    <${Compare} ...${{ runs, run, other }} />
    <div class=${other ? "sides two" : "sides"}>
      <${Side} ...${{ run, step, text, ...one, name: "step", chosen, choose }} />
      ${other && html`<${Side} ...${{
        run: other, step: otherStep, text, ...two, name: "step2", comparison, against: both && label(run, one.found.step),
        chosen: toOther(chosen), choose: (index) => choose(fromOther(index)),
      }} />`}
    </div>`;
}

// The beginning of what the model wrote last: a text that its tokenizer knows.
function opening(details) {
  if (details === null) return null;
  const sample = details.samples.at(-1);
  return typeable(sample?.text ?? "").slice(0, OPENING) || PLAIN;
}

const label = (run, step) => `${run.id}, step ${step.toLocaleString("en")}`;
const question = (run, step, text) => ({ run: run.id, step, text });

// {found, error}: the losses of a text, or why there are none. `found` has the tokens and what is expected for each. Until
// the answer is there, it is that of the last text or step, but never that of another run.
function useLosses(run, step, text) {
  const asked = run && text ? question(run, step, text) : null;
  const { answer, answered, error } = useAnswer(asked && "/api/losses", asked);
  const found = useMemo(() => answer && { ...unpacked(answer), text: answered.text }, [answer]);
  return { found: asked && !error && answered?.run === run.id ? found : null, error: asked && error };
}

function unpacked({ meta, arrays }) {
  const { data: ids, shape: [, width] } = arrays.expected_ids;
  const expected = (index) => Array.from({ length: width }, (_, place) => {
    const at = (index - 1) * width + place;
    return { id: ids[at], token: meta.names[ids[at]], probability: arrays.expected_probabilities.data[at] };
  });
  const starts = [];  // the byte of the text at which each token begins
  let place = 0;
  for (const token of meta.tokens) {
    starts.push(place);
    if (!token.special) place += token.bytes ? token.bytes.split(" ").length : new TextEncoder().encode(token.text).length;
  }
  return { ...meta, losses: arrays.losses.data, expected, starts };  // losses[n] is that of token n + 1
}

// The token of `to` that has the first byte of a token of `from`, which may have other tokens.
function across(from, to, index) {
  const after = to.starts.findIndex((start) => start > from.starts[index]);
  return (after < 0 ? to.starts.length : after) - 1;
}

// The token that is chosen: that of the address, else the one that surprised most when this text was first seen.
function useChoice(found, params) {
  const first = useRef({ text: null, at: null });
  if (!found) return null;
  if (first.current.text !== found.text) first.current = { text: found.text, at: 1 + ranked(found.losses)[0] };
  return Math.min(number(params, "token") ?? first.current.at, found.tokens.length - 1);
}

const ranked = (values) => [...values.keys()].sort((a, b) => values[b] - values[a]);

// The loss of `one` less that of `two`, above 0 where the second model knows a token better; null where they differ in tokens.
function compare(one, two) {
  const same = one.tokens.length === two.tokens.length && one.tokens.every(({ id, text }, index) => id === two.tokens[index].id && text === two.tokens[index].text);
  return { gains: same ? Float32Array.from(one.losses, (loss, index) => loss - two.losses[index]) : null };
}

function summary(run, { losses, tokens, mean, bits_per_byte: bits, step }) {
  const worst = 1 + ranked(losses)[0];
  return html`At step ${step.toLocaleString("en")}, ${run.id} has a mean loss of <b>${mean === null ? "∞" : nats(mean)}</b> nats per token${bits !== null &&
    html` (${bits.toFixed(2)} bits per byte)`}. Most surprising is <b class="mono">${quoted(tokens[worst])}</b>
    ${" "}after <span class="mono">“${before(tokens, worst)}”</span>: it had a probability of ${probability(Math.exp(-losses[worst - 1]))}.`;
}

function before(tokens, index) {
  const letters = [...tokens.slice(Math.max(0, index - BEFORE), index).map(visible).join("")];
  return (index > BEFORE || letters.length > BEFORE ? "…" : "") + letters.slice(-BEFORE).join("");
}

// Small probabilities keep one digit: they are what this view is about.
function probability(share) {
  if (share >= 0.1) return `${Math.round(100 * share)}%`;
  if (share >= 1e-6) return `${Number((100 * share).toPrecision(1))}%`;
  return "less than one in a million";
}

function Compare({ runs, run, other }) {
  const choose = (event) => change({ run2: event.target.value, step2: null }, { replaces: false });
  return html`<div class="row"><label>compare with <select value=${other?.id ?? ""} onChange=${choose}>
    <option value="">nothing</option>
    ${runs.filter((card) => card.inspectable && (card.id !== run.id || card.steps.length > 1)).map((card) => html`
      <option key=${card.id} value=${card.id}>${card.id === run.id ? `another checkpoint of ${card.id}` : card.id}</option>`)}
  </select></label></div>`;
}

function Side({ run, step, text, found, error, chosen, choose, name, comparison, against }) {
  const gains = comparison?.gains;
  const strip = useRef(null);
  const jumps = useRef(false);
  const focus = () => strip.current?.querySelector(`[data-index="${chosen}"]`)?.focus();
  useLayoutEffect(() => {
    if (jumps.current) focus();
    jumps.current = false;
  }, [chosen]);
  const colours = useMemo(() => found?.tokens.map((_, index) => {
    if (!index) return "transparent";
    return gains ? signedColour(gains[index - 1] / FARTHEST) : lossColour(found.losses[index - 1]);
  }), [found, gains]);
  const describe = useMemo(() => (index) => (index ? `loss ${nats(found.losses[index - 1])}` : "no prediction"), [found]);
  const jump = (index) => {
    if (index === chosen) focus();
    else jumps.current = true;
    choose(index);
  };
  useKeys(name === "step" && found ? {
    ArrowLeft: () => choose(Math.max(0, chosen - 1)),
    ArrowRight: () => choose(Math.min(found.tokens.length - 1, chosen + 1)),
  } : {});
  return html`<section class="panel" aria-label=${name === "step" ? "The model" : "The model compared with"}>
    <h2>${run.id}</h2>
    <${Film} ...${{ run, step: found?.step ?? step, name, ask: (step) => ask("/api/losses", question(run, step, text)) }} />
    ${error && html`<p class="error" role="alert">${error}</p>`}
    ${found && html`
      <div ref=${strip}><${TokenStrip} ...${{ tokens: found.tokens, colours, chosen, describe }} label=${`The text, in tokens coloured by ${gains ? "difference of loss" : "loss"}`}
        onChoose=${choose} /></div>
      ${gains ? html`<${Difference} against=${against} />` : html`<${Scale} />`}
      ${comparison && !gains && html`<p class="quiet">The two models have different tokens, so each is coloured by its own loss: compare the bits per byte.</p>`}
      <p class="figures quiet">mean <b>${found.mean === null ? "∞" : nats(found.mean)}</b> nats per token${found.bits_per_byte !== null && html` · <b>${found.bits_per_byte.toFixed(2)}</b> bits per byte`} ·
        ${" "}a blind guess costs ${nats(found.uniform)} nats${found.stride !== null && ` · read in windows of ${found.block_size} tokens that overlap by ${found.block_size - found.stride}`}</p>
      <div class="details"><${Expected} ...${{ found, chosen }} /><${Worst} ...${{ found, gains, against, jump }} /></div>`}
  </section>`;
}

function Scale() {
  return html`<p class="legend quiet" aria-label="Colours of losses">loss in nats ${[0, 2, 4, 6, 8].map((loss) => html`
    <span key=${loss} style=${{ background: lossColour(loss) }} title=${`probability ${probability(Math.exp(-loss))}`}>${loss === 8 ? "8 or more" : loss}</span>`)}</p>`;
}

function Difference({ against }) {
  return html`<p class="legend quiet" aria-label="Colours of differences">than ${against}: ${[-FARTHEST, -1.5, 0, 1.5, FARTHEST].map((gain) => html`
    <span key=${gain} style=${{ background: signedColour(gain / FARTHEST) }}>${
      { [-FARTHEST]: `${FARTHEST} nats worse`, 0: "the same", [FARTHEST]: `${FARTHEST} nats better` }[gain] ?? "\u00a0\u00a0"}</span>`)}</p>`;
}

// What the model expected in the place of a token.
function Expected({ found, chosen }) {
  const token = found.tokens[Math.min(chosen, found.tokens.length - 1)];
  if (!(chosen in found.tokens)) return null;
  const title = html`<h3>what it expected ${chosen > 0 ? html`after <span class="mono">“${before(found.tokens, chosen)}”</span>` : ""}</h3>`;
  if (chosen === 0) return html`<div>${title}<p class="quiet">Nothing comes before the first token, so it has no prediction.</p></div>`;
  const loss = found.losses[chosen - 1];
  const rows = found.expected(chosen);
  const came = rows.some(({ id }) => id === token.id);
  return html`<div aria-live="polite">${title}
    <p><b class="mono">${quoted(token)}</b> came: loss <b>${Number.isFinite(loss) ? nats(loss) : "∞"}</b>, probability ${probability(Math.exp(-loss))}.</p>
    <table class="bars"><thead class="sr-only"><tr><th scope="col">token</th><th scope="col">share</th><th scope="col">probability</th></tr></thead>
      <tbody>${rows.map(({ id, token: { text, bytes } = { text: `id ${id}` }, probability: share }) => html`
      <tr key=${id} class=${id === token.id ? "true" : undefined}><th scope="row" class="mono">${visible({ text, bytes })}</th>
        <td class="bar"><span style=${{ width: `${100 * share}%` }}></span></td><td class="number">${probability(share)}</td></tr>`)}</tbody></table>
    ${!came && html`<p class="quiet">What came was not among these ${rows.length}.</p>`}</div>`;
}

function Worst({ found, gains, against, jump }) {
  const { tokens, losses } = found;
  const order = gains ? [...gains.keys()].sort((a, b) => Math.abs(gains[b]) - Math.abs(gains[a])) : ranked(losses);
  return html`<div><h3>${gains ? `where it differs most from ${against}` : "most surprising"}</h3>
    <ol class="worst">${order.slice(0, WORST).map((place) => html`<li key=${place}>
      <button onClick=${() => jump(place + 1)}><span class="mono context">${before(tokens, place + 1)}<b>${visible(tokens[place + 1])}</b></span>
        <span class="number">${gains ? signed(gains[place]) : Number.isFinite(losses[place]) ? nats(losses[place]) : "∞"}</span></button></li>`)}</ol></div>`;
}

const signed = (gain) => (Number.isFinite(gain) ? `${nats(Math.abs(gain))} ${gain < 0 ? "worse" : "better"}` : "∞");
