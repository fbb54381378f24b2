// Neurons: all hidden units of a block as a map, and the texts that excite one of them, at any checkpoint.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "glass/dom.js";
import { ask, useAnswer } from "glass/api.js";
import { attentionPalette, shareColour } from "glass/colours.js";
import { Film } from "glass/film.js";
import { useTheme } from "glass/maps.js";
import { address, change, follow, number } from "glass/state.js";
import { fixed, nats, percent, quoted, signed, visible } from "glass/text.js";
import { TextField, useText } from "glass/text-field.js";
import { TokenStrip } from "glass/token-strip.js";

// The orders of the list. `share` of a value is its place on the map's scale of colours, and `scale` says what it means.
const ORDERS = {
  selectivity: {
    label: "how selectively", write: (value) => value.toFixed(2),
    share: (value) => Math.max(0, 2 * value - 1) ** 2,  // most neurons of a trained model are above 0.8
    scale: () => "Selectivity is 0 if a neuron is equally active on all tokens, and 1 if it is active on a single one (lifetime sparseness, Vinje and Gallant 2000). Full colour is 1, none is 0.5 or less",
  },
  active: { label: "how often", write: percent, share: (value) => value, scale: () => "Full colour is active on every token, none on no token" },
  largest: {
    label: "how strongly", write: (value) => fixed(value), share: (value, most) => value / most,
    scale: (most) => `Full colour is a largest activation of ${most.toFixed(2)}, none is 0`,
  },
};
const PLAIN = "Paris is the capital of France, and Rome is the capital of Italy.";
const LISTED = 12;  // neurons in the list
const CELL = 12;  // pixels of a neuron in the picture, which is scaled to the page; the last is the gap to the next
const BEFORE = 8;  // tokens that are shown before one
const MOSTLY = 0.5;  // share of the activation that one token must have to be named

export function Neurons({ run, params }) {
  useTheme();
  return html`<${Look} key=${run.id} run=${run} params=${params} />`;
}

function Look({ run, params }) {
  const own = params.has("own") || run.state === "imported";  // which has no text
  const { text, lost } = useText(params, run.state === "imported" ? PLAIN : "");
  const step = number(params, "step") ?? run.best_step ?? run.steps.at(-1);
  const { layer, neuron } = placeOf(params);
  const question = (step) => ({ run: run.id, step, layer, text: own ? text : "" });
  const { answer, answered, error, loading } = useAnswer(own && !text ? null : "/api/neurons", question(step));
  const found = !error && !(own && !text) && answer;
  const block = found && found.meta.blocks.length > 0 && found;
  const chosen = block && (layer ?? block.meta.layer) === block.meta.layer && neuron < block.arrays.dead.shape[0] ? neuron : null;
  const by = params.get("by") in ORDERS ? params.get("by") : "selectivity";
  const order = useMemo(() => block && ranked(block.arrays, by), [block, by]);
  useEffect(() => {  // a neuron that is not chosen gets a name in the address: it stays the same at other checkpoints
    if (block && chosen === null && (layer ?? block.meta.layer) === block.meta.layer) change({ neuron: `${block.meta.layer}.${order[0]}` });
  }, [block, chosen, layer, order]);
  const one = (step) => ({ ...question(step), neuron: chosen });
  const details = useAnswer(chosen === null ? null : "/api/neuron", one(step));
  const problem = error ?? (details.refused?.text === question(step).text ? details.error : null);
  const fits = chosen !== null && details.answer?.meta.layer === layer && details.answer.meta.neuron === chosen
    && details.answered.text === answered.text;  // passages of one text beside the figures of another would be a lie
  const film = (step) => Promise.all([ask("/api/neurons", question(step)), ...(chosen === null ? [] : [ask("/api/neuron", one(step))])]);
  return html`
    <div><h1>What excites this neuron?</h1>
      <p>${found && !block ? (found.meta.experts
          ? "The MLPs of this model are experts, and this view cannot read their neurons. Inside shows which experts each token chooses."
          : "This model has no MLP, so it has no neurons: they come with section 6 of the ladder.")
        : block && chosen !== null ? summary(block, chosen, fits ? details.answer : null)
        : "A neuron is a hidden unit of an MLP. It is active on some tokens, and then adds its own direction to the stream."}</p></div>
    ${(!found || block) && html`<${Source} ...${{ run, own, text, lost, params, meta: block?.meta, loading }} />`}
    ${problem && html`<p class="error" role="alert">${problem}</p>`}
    ${block && html`<${Film} run=${run} step=${block.meta.step} ask=${film} />
    <div class="neurons">
      <section class="panel" aria-label="All neurons of the block"><${Block} ...${{ block, by, order, chosen }} /></section>
      ${fits && !block.arrays.dead.data[chosen] && html`<${One} ...${{ run, answer: details.answer, step }} />`}</div>`}`;
}

// {layer, neuron} of the address: "1.37", or only the block, "1".
function placeOf(params) {
  const match = /^(\d{1,4})(?:\.(\d{1,6}))?$/.exec(params.get("neuron") ?? "");
  return { layer: match ? Number(match[1]) : null, neuron: match?.[2] === undefined ? NaN : Number(match[2]) };
}

// The neurons that are not dead, by one of their figures.
function ranked(arrays, by) {
  const values = arrays[by].data;
  return [...values.keys()].sort((a, b) => arrays.dead.data[a] - arrays.dead.data[b] || values[b] - values[a]);
}

function summary({ meta, arrays }, neuron, answer) {
  const name = `Neuron ${meta.layer}.${neuron}`;
  if (arrays.dead.data[neuron]) return `${name} is dead: on ${meta.text.tokens.toLocaleString("en")} tokens its activation never left 0.`;
  return html`${name} is active on <b>${percent(arrays.active.data[neuron])}</b> of the tokens${answer && where(answer)}.`;
}

// On which tokens, or after which, a neuron is active.
function where({ meta, arrays }) {
  const rows = (name) => [...arrays[`${name}_ids`].data].map((id, index) => ({
    token: meta.names[id], share: arrays[`${name}_shares`].data[2 * index], own: arrays[`${name}_shares`].data[2 * index + 1],
  }));
  const [best] = [["on", rows("on")[0]], ["after", rows("after")[0]]]
    .filter(([, row]) => row && row.share >= MOSTLY && row.share > 2 * row.own).sort((a, b) => b[1].share - a[1].share);
  if (best) return html`, mostly ${best[0]} <b class="mono">${quoted(best[1].token)}</b>`;
  const named = [];
  let share = 0;
  for (const row of rows("on").slice(0, 4)) {
    named.push(row.token);
    share += row.share;
    if (share >= MOSTLY) return html`, mostly on ${named.map((token, index) => html`${index ? (index === named.length - 1 ? " and " : ", ") : ""}<b class="mono">${quoted(token)}</b>`)}`;
  }
  return rows("on").length ? ", many different ones" : "";
}

function Source({ run, own, text, lost, params, meta, loading }) {
  const told = meta && { validation: "its validation text", samples: "the samples that it wrote", own: "your text" }[meta.text.source];
  const count = meta && (meta.text.tokens < meta.text.whole
    ? `the first ${meta.text.tokens.toLocaleString("en")} of ${meta.text.whole.toLocaleString("en")} tokens of ${told}`
    : meta.text.whole === 1 ? `the only token of ${told}` : `all ${meta.text.whole.toLocaleString("en")} tokens of ${told}`);
  return html`<div class="row" role="group" aria-label="Text that is read">
      <button aria-pressed=${!own} disabled=${run.state === "imported"} onClick=${() => change({ own: null })}>the run's text</button>
      <button aria-pressed=${own} onClick=${() => change({ own: 1 })}>my own text</button>
      <span class="quiet" aria-live="polite">${loading && !(own && !text) ? "reading the text …" : count && `Read: ${count}, ${meta.text.window.toLocaleString("en")} at a time.`}</span></div>
    ${own && html`<${TextField} ...${{ text, lost, params }} />`}`;
}

function Block({ block: { meta, arrays }, by, order, chosen }) {
  const dead = meta.blocks.find(({ layer }) => layer === meta.layer).dead;
  const count = arrays.dead.shape[0];
  const choose = (neuron) => change({ neuron: `${meta.layer}.${neuron}` });
  const alive = order.filter((neuron) => !arrays.dead.data[neuron]);
  return html`
    <div class="row"><label>block <select aria-label="block" value=${meta.layer} onChange=${(event) => change({ neuron: event.target.value })}>
        ${meta.blocks.map(({ layer, dead }) => html`<option key=${layer} value=${layer}>${layer}${dead ? ` (${dead} dead)` : ""}</option>`)}</select></label>
      <span class="quiet">${count.toLocaleString("en")} neurons, ${dead ? `${dead.toLocaleString("en")} dead` : "none dead"}</span></div>
    <div class="row orders" role="group" aria-label="Colour and order">
      ${Object.entries(ORDERS).map(([name, { label }]) => html`<button key=${name} aria-pressed=${name === by} onClick=${() => change({ by: name === "selectivity" ? null : name })}>${label}</button>`)}</div>
    <${NeuronMap} ...${{ meta, arrays, by, chosen, choose }} />
    <table class="top-neurons"><caption class="sr-only">The first neurons, sorted by ${ORDERS[by].label} they are active</caption>
      <thead><tr><th scope="col">neuron</th>
        <th scope="col" class="number" title="0: equally active on all tokens, 1: on a single one. Lifetime sparseness, Vinje and Gallant 2000">selectivity</th>
        <th scope="col" class="number" title="share of the tokens on which it is above 0">active</th>
        <th scope="col" class="number" title="the largest activation">largest</th></tr></thead>
      <tbody>${alive.slice(0, LISTED).map((neuron) => html`<tr key=${neuron}>
        <th scope="row"><button aria-pressed=${neuron === chosen} onClick=${() => choose(neuron)}>${meta.layer}.${neuron}</button></th>
        ${["selectivity", "active", "largest"].map((name) => html`<td key=${name} class="number">${ORDERS[name].write(arrays[name].data[neuron])}</td>`)}</tr>`)}</tbody></table>`;
}

// One cell for each neuron, in the order of their numbers, so that a neuron stays where it is. A slider for the keyboard.
function NeuronMap({ meta, arrays, by, chosen, choose }) {
  const canvas = useRef(null);
  const [under, point] = useState(null);
  const values = arrays[by].data;
  const count = values.length;
  const columns = count > 1024 ? 64 : Math.min(count, 32);
  const rows = Math.ceil(count / columns);
  const most = Math.max(...values, 1e-9);
  const { share, scale } = ORDERS[by];
  useLayoutEffect(() => paint(canvas.current, { shares: values.map((value) => share(value, most)), dead: arrays.dead.data, columns, rows }));
  const at = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const place = (position, start, size, cells) => Math.max(0, Math.min(cells - 1, Math.floor(cells * (position - start) / size)));
    const neuron = place(event.clientY, box.top, box.height, rows) * columns + place(event.clientX, box.left, box.width, columns);
    return neuron < count ? neuron : null;
  };
  const describe = (neuron) => `neuron ${meta.layer}.${neuron}, ${arrays.dead.data[neuron] ? "dead" : `active on ${percent(arrays.active.data[neuron])} of the tokens, at most ${fixed(arrays.largest.data[neuron])}, selectivity ${arrays.selectivity.data[neuron].toFixed(2)}`}`;
  const onKeyDown = (event) => {
    const from = chosen ?? 0;
    const next = {
      ArrowLeft: from - 1, ArrowRight: from + 1, ArrowUp: from - columns, ArrowDown: from + columns, Home: 0, End: count - 1,
    }[event.key];
    if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (next >= 0 && next < count) choose(next);
  };
  const cell = chosen !== null && { left: `${100 * (chosen % columns) / columns}%`, top: `${100 * Math.floor(chosen / columns) / rows}%`, width: `${100 / columns}%`, height: `${100 / rows}%` };
  return html`<div class="neuron-map" role="slider" tabindex="0" aria-label=${`Neurons of block ${meta.layer}`}
      style=${{ maxWidth: `${columns * (columns > 32 ? 8 : 14)}px` }}
      aria-valuemin="0" aria-valuemax=${count - 1} aria-valuenow=${chosen ?? 0} aria-valuetext=${describe(chosen ?? 0)} onKeyDown=${onKeyDown}
      onClick=${(event) => at(event) !== null && choose(at(event))} onPointerMove=${(event) => point(at(event))} onPointerLeave=${() => point(null)}>
      <canvas ref=${canvas} width=${columns * CELL} height=${rows * CELL}></canvas>${cell && html`<span style=${cell}></span>`}</div>
    <p class="quiet readout">${describe(under ?? chosen ?? 0)}</p>
    <p class="quiet hint">${scale(most)}${arrays.dead.data.includes(1) ? ", × is dead" : ""}.</p>`;
}

function paint(canvas, { shares, dead, columns, rows }) {
  const context = canvas.getContext("2d");
  const width = columns * CELL;
  const image = context.createImageData(width, rows * CELL);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = attentionPalette();
  for (let neuron = 0; neuron < shares.length; neuron++) {
    const colour = colours[Math.round(255 * Math.max(0, Math.min(1, shares[neuron]))) || 0];
    const corner = Math.floor(neuron / columns) * CELL * width + (neuron % columns) * CELL;
    for (let row = 0; row < CELL - 1; row++) pixels.fill(colour, corner + row * width, corner + row * width + CELL - 1);
  }
  context.putImageData(image, 0, 0);
  context.strokeStyle = getComputedStyle(canvas).color;
  context.lineWidth = 1.5;
  context.beginPath();
  for (let neuron = 0; neuron < shares.length; neuron++) {
    if (!dead[neuron]) continue;
    const [left, top, size] = [(neuron % columns) * CELL + 2, Math.floor(neuron / columns) * CELL + 2, CELL - 5];
    for (const [from, to] of [[0, size], [size, 0]]) { context.moveTo(left, top + from); context.lineTo(left + size, top + to); }
  }
  context.stroke();
}

function One({ run, answer: { meta, arrays }, step }) {
  const name = `${meta.layer}.${meta.neuron}`;
  const starts = [];
  let place = 0;
  for (const { tokens } of meta.passages) { starts.push(place); place += tokens.length; }
  const values = meta.passages.map(({ tokens }, index) => arrays.values.data.subarray(starts[index], starts[index] + tokens.length));
  const most = Math.max(values[0][meta.passages[0].at], 1e-9);
  return html`<section class="panel" aria-label="The neuron">
    <h2>neuron ${name}</h2>
    <h3>${meta.passages.length === 1 ? "the passage that excites it most" : `the ${meta.passages.length} passages that excite it most`}</h3>
    <p class="quiet hint">The colour of a token is its activation; the number is the largest one of the passage.</p>
    <ol class="passages">${meta.passages.map((passage, index) => html`<${Passage} key=${`${name} ${meta.step} ${index}`} ...${{ passage, values: values[index], most, index }} />`)}</ol>
    <div class="details">
      <${Shares} title="tokens on which it is active" ids=${arrays.on_ids.data} shares=${arrays.on_shares.data} names=${meta.names} />
      <${Shares} title="tokens after which it is active" ids=${arrays.after_ids.data} shares=${arrays.after_shares.data} names=${meta.names} />
    </div>
    <${Direct} ...${{ meta, arrays }} />
    <${Off} ...${{ run, meta, arrays, step, name }} />
  </section>`;
}

function Passage({ passage: { tokens, at }, values, most, index }) {
  const [chosen, choose] = useState(at);
  const colours = useMemo(() => Array.from(values, (value) => shareColour(value / most)), [values, most]);
  const describe = useMemo(() => (place) => `activation ${fixed(values[place])}`, [values]);
  return html`<li><span class="number">${fixed(values[chosen])}</span>
    <${TokenStrip} ...${{ tokens, colours, chosen, describe }} onChoose=${choose} label=${`Passage ${index + 1}`} /></li>`;
}

function Shares({ title, ids, shares, names }) {
  if (!ids.length) return null;
  return html`<div><h3>${title}</h3><table class="bars"><thead class="sr-only"><tr><th scope="col">token</th><th scope="col">share</th><th scope="col">of its activation</th></tr></thead>
    <tbody>${Array.from(ids, (id, index) => html`<tr key=${id} title=${`${percent(shares[2 * index + 1])} of the tokens of the text`}><th scope="row" class="mono">${visible(names[id])}</th>
      <td class="bar"><span style=${{ width: `${100 * shares[2 * index]}%`, background: "var(--attention)" }}></span></td>
      <td class="number">${percent(shares[2 * index])}</td></tr>`)}</tbody></table></div>`;
}

// What the neuron itself adds to the logits of the next token, in the place where it is most active.
function Direct({ meta, arrays }) {
  const { tokens, at } = meta.passages[0];
  const title = html`<h3>what it adds to the next token’s logits after <span class="mono">“${at > BEFORE ? "…" : ""}${tokens.slice(Math.max(0, at - BEFORE), at + 1).map(visible).join("")}”</span></h3>`;
  if (meta.problem) return html`${title}<p class="quiet">Not known: ${meta.problem}.</p>`;
  const rows = Array.from(arrays.direct_ids.data, (id, index) => ({ id, token: meta.names[id], value: arrays.direct_logits.data[index] }));
  const most = Math.max(...rows.map(({ value }) => Math.abs(value)), 1e-9);
  const digits = most < 0.01 ? 4 : most < 0.1 ? 3 : 2;
  const side = (label, colour, kept) => kept.length > 0 && html`<div><h4>${label}</h4><table class="bars">
    <thead class="sr-only"><tr><th scope="col">token</th><th scope="col">share</th><th scope="col">logit</th></tr></thead>
    <tbody>${kept.map(({ id, token, value }) => html`<tr key=${id}><th scope="row" class="mono">${visible(token)}</th>
      <td class="bar"><span style=${{ width: `${100 * Math.abs(value) / most}%`, background: `var(${colour})` }}></span></td>
      <td class="number">${signed(value, digits)}</td></tr>`)}</tbody></table></div>`;
  return html`${title}<div class="details">
    ${side("more likely", "--added", rows.filter(({ value }) => value > 0))}
    ${side("less likely", "--removed", rows.filter(({ value }) => value < 0))}</div>`;
}

function Off({ run, meta, arrays, step, name }) {
  const [rise, before, after] = arrays.effect.data;
  const { text, at } = opening(meta.passages[0], run.block_size ?? Infinity);
  const inside = address("inside", new URLSearchParams([
    ["run", run.id], ["step", step], ["text", text], ["token", at], ["edits", `blocks.${meta.layer}.neuron.${meta.neuron}`],
  ]));
  return html`<h3>without it</h3>
    <p>${Number.isFinite(rise) ? html`The mean loss of the ${meta.around.toLocaleString("en")} tokens around its strongest place ${
      Math.abs(rise) < 0.0005 ? "changes by less than 0.001" : html`${rise > 0 ? "rises" : "falls"} by <b>${Math.abs(rise).toFixed(3)}</b>`} nats per token${
      Number.isFinite(before) ? html`, and that of the token that follows there goes from <b>${nats(before)}</b> to <b>${nats(after)}</b>` : ""}.` : meta.around < 2 ? "One token alone has no loss." : "The loss is not a number: the weights of this checkpoint have diverged."}</p>
    ${text && html`<p><a class="button" href=${inside} onClick=${follow}>switch neuron ${name} off in this text</a></p>`}`;
}

// The text of a passage, as far as a prompt may be long, and the token in it that excites most.
function opening({ tokens, at }, most) {
  const from = Math.max(0, at + 1 - most);
  const kept = tokens.map((token, index) => ({ ...token, index })).slice(from, from + most).filter(({ bytes, special }) => !bytes && !special);
  return { text: kept.map(({ text }) => text).join(""), at: Math.max(0, kept.filter(({ index }) => index <= at).length - 1) };
}
