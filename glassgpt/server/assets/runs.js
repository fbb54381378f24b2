// How does it learn? The curves, samples and settings of runs, also while they train.
import { html, useEffect, useMemo, useRef } from "glass/dom.js";
import { OF_RUN, address, change, go, number, read } from "glass/state.js";
import { Chart, css, useTheme } from "glass/chart.js";
import { smooth, thin } from "glass/columns.js";
import { useLive } from "glass/live.js";
import { compact, count, duration, exact, loss, short } from "glass/numbers.js";

const SERIES = 7;  // colours
const DASHES = [undefined, [8, 4], [2, 4], [8, 4, 2, 4]];  // of the first seven runs, the next seven …
const MOST_SHOWN = 50;
const AXES = {
  step: { label: "step", name: "steps", format: compact, exact: count },
  tokens: { label: "tokens", name: "tokens seen", format: compact, exact: short },
  time: { label: "time", name: "time", steps: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 864000], format: (ticks) => ticks.map((value) => (value === 0 ? "0" : duration(value))), exact: duration },
};
const STATES = { training: "training now", finished: "finished", stopped: "not finished", imported: "imported", damaged: "damaged" };
// Figures with a chart of their own below the loss; those that a stage adds come after them.
const CHARTS = [
  { title: "Gradient norm", name: "grad_norm", fromZero: true, smoothed: true, word: "gradient norm" },
  { title: "Learning rate", name: "lr", fromZero: true, word: "learning rate" },
  { title: "Throughput, tokens per second", name: "tokens_per_second", fromZero: true, smoothed: true, word: "tokens per second" },
];
const NOT_DRAWN = new Set(["step", "tokens_seen", "seconds", "train/loss", "val/loss", "val/tokens", "val/hidden", "val/pairs", "val/seconds", "items", "validation_seconds"]);

const color = (index) => css(`--series-${index % SERIES}`);
const lastOf = (run, kind, name) => run.figures.tables[kind].last(name);

// --- what is said ---------------------------------------------------------------------------------------------------

function bestKnownLoss(run) {
  const validation = lastOf(run, "val", "val/loss");
  return validation !== undefined ? { value: validation, of: "" } : { value: recentLoss(run), of: "training " };
}

// The mean over the last part of the steps: one step alone says little. The same part as in glassgpt/training/metrics.py.
function recentLoss(run) {
  const losses = run.figures.tables.train.column("train/loss") ?? [];
  const recent = [...losses.slice(-Math.max(1, Math.min(50, Math.round(losses.length / 50))))].filter(Number.isFinite);
  return recent.length ? recent.reduce((sum, value) => sum + value, 0) / recent.length : undefined;
}

function comparedWithCounting(value, references) {
  if (!references) return "";
  const { uniform, unigram, bigram, ngram, order } = references;
  if (ngram !== null && value < ngram) return `, below the best that counting gives (${loss(ngram)}, with rows of up to ${order} tokens)`;
  if (bigram !== null && value < bigram) {
    const more = ngram === null ? "" : `, but not below counting rows of up to ${order} tokens (${loss(ngram)})`;
    return `, below what counting pairs gives (${loss(bigram)})${more}`;
  }
  if (unigram !== null && value < unigram) {
    return `, below what counting single tokens gives (${loss(unigram)})${bigram === null ? "" : `, but not below counting pairs (${loss(bigram)})`}`;
  }
  if (unigram !== null) return `, not below what counting single tokens gives (${loss(unigram)})`;
  return uniform !== null && value < uniform ? `, below guessing (${loss(uniform)})` : "";
}

// One sentence on a run, from its figures.
function sentence(run) {
  const { id, state, details, figures, references } = run, { max_steps: planned } = details;
  if (state === "imported") return `${id} was imported and not trained here, so it has no curves: look at what it does under Inside.`;
  const measured = bestKnownLoss(run), step = run.step;
  if (state === "damaged" && measured.value === undefined) return `${id} cannot be read.`;
  if (step < 0) return state === "training" ? `${id} has just begun: its first figures appear here.` : `${id} has measured nothing yet.`;
  const steps = `${count(step)} ${step === 1 ? "step" : "steps"}`, of = planned ? `${count(step)} of ${count(planned)} steps` : steps;
  if (measured.value === undefined) return `${id} is at ${of}; it has no loss that can be drawn.`;
  const where = `${measured.of ? "a training loss of " : ""}${loss(measured.value)} nats per token`;
  const than = measured.of ? "" : comparedWithCounting(measured.value, references);
  if (state === "finished") return `${id} ended at ${where} after ${steps}${than}.`;
  if (state === "damaged") return `${id} is damaged; its figures reach ${where} after ${steps}${than}.`;
  if (state !== "training") return `${id} stopped at ${where} after ${of}${than}. Continue it with: glassgpt train --run ${id} --resume`;
  const left = planned ? figures.secondsLeft(planned) : null;
  return `${id} is at ${where} after ${of}${than}${left === null || left <= 0 ? "" : `; about ${duration(left)} left`}.`;
}

// Whether the losses of several runs may be compared, and which is the lowest.
function comparison(runs) {
  const known = runs.filter((run) => lastOf(run, "val", "val/loss") !== undefined);
  if (known.length < 2) return "";
  if (new Set(known.map((run) => run.details.stage)).size > 1) return "They learned different things (run.stage), so their losses cannot be compared.";
  if (new Set(known.map((run) => run.details.text_read)).size === 1) {
    const [first, second] = [...known].sort((a, b) => lastOf(a, "val", "val/loss") - lastOf(b, "val", "val/loss"));
    const gap = lastOf(second, "val", "val/loss") - lastOf(first, "val", "val/loss");
    return `All read the same tokens: ${first.id} has the lowest validation loss, ${gap.toPrecision(2)} below ${second.id}.`;
  }
  return new Set(known.map((run) => run.details.tokenizer_used)).size === 1
    ? "They read different texts, so their losses cannot be compared."
    : "They use different tokenizers, so compare bits per byte, not the loss per token.";
}

function described(curves, word) {
  const said = curves.filter((curve) => !curve.faint).map(({ label, data: [, ys] }) => {
    const values = ys.filter((value) => value !== null);
    return values.length ? `${label}: from ${exact(values[0])} to ${exact(values.at(-1))}` : "";
  });
  return `${word}. ${said.filter(Boolean).join("; ")}. The table below has the values.`;
}

// --- curves ---------------------------------------------------------------------------------------------------------

const smoothed = new WeakMap();  // y values -> what they were smoothed to; the last choice only

function smoothOnce(figures, key, y, reach) {
  const kept = smoothed.get(figures) ?? new Map();
  smoothed.set(figures, kept);
  const found = kept.get(key);
  if (found && found.reach === reach && found.length === y.length) return found.y;
  const values = smooth(y, reach);
  kept.set(key, { reach, length: y.length, y: values });
  return values;
}

function drawnCurve(figures, kind, name, view, reach = 0) {
  const found = figures.curve(kind, name, view.axis);
  if (!found || !found.y.some(Number.isFinite)) return null;
  const y = smoothOnce(figures, `${kind} ${name}`, found.y, Math.floor(found.y.length * reach / 200));
  return thin({ x: found.x, y }, view);
}

function lossCurves(runs, view) {
  const alone = runs.length === 1, curves = [];
  runs.forEach((run, i) => {
    const ink = color(alone ? 0 : i), dash = DASHES[Math.floor(i / SERIES) % DASHES.length], name = alone ? "" : `${run.id} `;
    const raw = alone && view.reach > 0 && drawnCurve(run.figures, "train", "train/loss", view);
    const training = drawnCurve(run.figures, "train", "train/loss", view, view.reach);
    const validation = drawnCurve(run.figures, "val", "val/loss", view);
    if (raw) curves.push({ label: "training, each step", color: ink, faint: 0.3, data: raw });
    if (training) curves.push({ label: `${name}training`, color: ink, dash, end: alone ? "training" : validation ? "" : run.id, faint: !alone && validation ? 0.5 : undefined, data: training });
    if (validation) curves.push({ label: `${name}validation`, color: alone ? color(1) : ink, dash, points: validation[0].length < 80, end: alone ? "validation" : run.id, data: validation });
  });
  return curves;
}

function figureCurves(runs, kind, name, view, reach, word) {
  return runs.map((run, i) => {
    const data = drawnCurve(run.figures, kind, name, view, reach);
    return data && { label: runs.length === 1 ? word : run.id, color: color(i), dash: DASHES[Math.floor(i / SERIES) % DASHES.length],
      end: runs.length === 1 ? "" : run.id, points: data[0].length < 2, data };
  }).filter(Boolean);
}

// The charts of figures that some run has beside the common ones, such as bits per byte and those of its stage.
function otherCharts(runs) {
  const known = new Set(CHARTS.map((chart) => chart.name)), found = new Map();
  for (const { figures } of runs) {
    for (const [kind, table] of Object.entries(figures.tables)) {
      for (const name of table.columns.keys()) {
        if (known.has(name) || NOT_DRAWN.has(name) || name.startsWith("best/") || /\/(seconds|tokens|items)$/.test(name)) continue;
        const word = name.replace("val/", "validation ").replace("train/", "training ").replaceAll("_", " ");
        found.set(`${kind} ${name}`, { title: word[0].toUpperCase() + word.slice(1), name, kind, word, smoothed: kind === "train" });
      }
    }
  }
  return [...found.values()];
}

function referenceLines(runs) {
  const run = runs[0], references = run?.references;
  if (!references) return [];
  const differs = runs.some((other) => other.references && other.references.bigram !== references.bigram);
  const whose = differs ? ` (${run.id})` : "";
  const size = run.details.vocab_size;
  return [
    { value: references.uniform, label: `guessing: ln ${count(size ?? 0)}` },
    { value: references.unigram, label: "counting single tokens" },
    { value: references.bigram, label: "counting pairs" },
    { value: references.ngram, label: `counting up to ${references.order} tokens` },
  ].filter((line) => line.value !== null).map(({ value, label }) => ({ value, label: `${label} = ${loss(value)}${whose}` }));
}

function Charts({ runs, view, theme }) {
  const drawn = runs.filter((run) => run.details.state !== "imported");
  const version = drawn.map((run) => `${run.id} ${run.figures.version} ${run.figures.mark}`).join() + JSON.stringify(view);
  const input = useMemo(() => {
    const small = [...CHARTS, ...otherCharts(drawn)].map((chart) => ({
      ...chart, curves: figureCurves(drawn, chart.kind ?? "train", chart.name, view, chart.smoothed ? view.reach : 0, chart.word),
    }));
    return { loss: lossCurves(drawn, view), small: small.filter((chart) => chart.curves.length) };
  }, [version, theme]);
  const zoom = (from, to) => change({ from: from === null ? null : rounded(from), to: to === null ? null : rounded(to) });
  const shared = { x: AXES[view.axis], logX: view.logX, onZoom: zoom, version, theme };
  const skipped = view.axis === "step" ? drawn.flatMap((run) => run.figures.skipped) : [];
  const nSkipped = drawn.reduce((sum, run) => sum + run.figures.skipped.length, 0);
  if (!input.loss.length && !input.small.length) return null;
  return html`
    <section class="panel" aria-label="Loss">
      ${input.loss.length > 0 && html`<${Chart} ...${shared} title="Loss, nats per token" curves=${input.loss} lines=${referenceLines(drawn)}
        crosses=${skipped} logY=${view.logY} height=${360} describe=${described(input.loss, "Loss over the " + AXES[view.axis].name)} />`}
      <p class="quiet hint">${drawn.length > 1 && "Strong lines are validation, faint ones training. "}Drag across a chart to zoom in.${
        nSkipped > 0 && ` A cross marks a step that was not applied (${count(nSkipped)} in all).`}${
        runs[0].references?.problem && ` No lines of counting: ${runs[0].references.problem}.`}</p>
    </section>
    <div class="charts">${input.small.map((chart) => html`
      <section class="panel" key=${chart.title} aria-label=${chart.title}>
        <${Chart} ...${shared} title=${chart.title} curves=${chart.curves} fromZero=${chart.fromZero} describe=${described(chart.curves, chart.title)} />
      </section>`)}</div>`;
}

const rounded = (value) => Number(value.toPrecision(6));

// --- panels ---------------------------------------------------------------------------------------------------------

function RunList({ cards, shown, primary, live }) {
  const also = shown.filter((id) => id !== primary);
  const show = (id, is) => {
    if (id === primary) {
      if (also.length) choose(also[0], also.slice(1));
    } else choose(primary, is ? [...also, id] : also.filter((other) => other !== id));
  };
  const list = useRef(null);
  useEffect(() => {  // the chosen run is in sight, without moving the page
    const chosen = list.current.querySelector("[aria-current]");
    if (chosen) list.current.scrollTop = chosen.offsetTop - list.current.offsetTop - list.current.clientHeight / 2;
  }, [primary]);
  return html`<section class="panel runs" aria-label="Runs"><h2>${cards.length === 1 ? "One run" : `${cards.length} runs`}</h2>
    <ul ref=${list}>${cards.map((card) => {
      const index = shown.indexOf(card.id), run = live.get(card.id), state = run?.state ?? card.state;
      const reached = (run && lastOf(run, "val", "val/loss")) ?? card.val_loss;
      return html`<li key=${card.id} aria-current=${card.id === primary || undefined}>
        <input type="checkbox" id="show ${card.id}" aria-label="draw ${card.id}" checked=${index >= 0}
          disabled=${index < 0 && shown.length >= MOST_SHOWN} onChange=${(event) => show(card.id, event.target.checked)} />
        <span class="swatch" style="background: ${index >= 0 ? `var(--series-${index % SERIES})` : "transparent"}"></span>
        <button class="plain" onClick=${() => choose(card.id, [])} title="show this run alone">${card.id}</button>
        <span class="number">${reached === null ? "" : loss(reached)}</span>
        <small class="quiet ${state}">${STATES[state]}${card.model ? ` · ${card.model.replace(" x ", " × ")}` : ""}</small>
      </li>`;
    })}</ul></section>`;
}

function choose(primary, also) {
  const { view, params } = read();
  for (const name of ["also", "sample", "from", "to", ...(params.get("run") === primary ? [] : OF_RUN)]) params.delete(name);
  params.set("run", primary);
  for (const id of also) params.append("also", id);
  go(address(view, params), true);
}

function Controls({ view }) {
  return html`<div class="row controls" role="group" aria-label="How the curves are drawn">
    <label>over <select value=${view.axis} onChange=${(event) => change({ x: event.target.value === "step" ? null : event.target.value, from: null, to: null })}>
      ${Object.entries(AXES).map(([axis, { name }]) => html`<option value=${axis}>${name}</option>`)}</select></label>
    <label>smooth <input type="range" min="0" max="20" value=${view.reach} aria-valuetext="mean over ${view.reach}% of the run"
      onInput=${(event) => change({ smooth: event.target.value })} /><span class="percent">${view.reach}%</span></label>
    <label><input type="checkbox" checked=${view.logY} onChange=${(event) => change({ logy: event.target.checked ? 1 : null })} /> log loss</label>
    <label><input type="checkbox" checked=${view.logX} onChange=${(event) => change({ logx: event.target.checked ? 1 : null })} /> log ${AXES[view.axis].label}</label>
    ${(view.from !== null || view.to !== null) && html`<button onClick=${() => change({ from: null, to: null })}>whole run</button>`}
  </div>`;
}

function Facts({ run }) {
  const { details, figures, state } = run, planned = details.max_steps;
  if (!figures.tables.train.length && !figures.tables.val.length) return null;
  const left = state === "training" && planned ? figures.secondsLeft(planned) : null;
  const speed = lastOf(run, "train", "tokens_per_second"), bits = lastOf(run, "val", "val/bits_per_byte");
  const facts = [
    ["step", `${count(run.step)}${planned ? ` of ${count(planned)}` : ""}`],
    ["training loss", exact(recentLoss(run))],
    ["validation loss", exact(lastOf(run, "val", "val/loss"))],
    bits !== undefined && ["bits per byte", exact(bits)],
    speed !== undefined && ["tokens per second", exact(speed)],
    left !== null && left > 0 && ["time left", duration(left)],
    left === null && lastOf(run, "train", "seconds") !== undefined && ["time", duration(lastOf(run, "train", "seconds"))],
    details.parameters && ["parameters", short(details.parameters)],
  ].filter(Boolean);
  return html`<dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function Samples({ run, chosen }) {
  const { samples } = run.details;
  if (!samples.length) return null;
  const at = chosen === null ? samples.length - 1 : Math.min(chosen, samples.length - 1), sample = samples[at];
  const move = (index) => change({ sample: index === samples.length - 1 ? null : index });
  return html`<section class="panel" aria-label="Samples"><h2>What it writes: ${run.id}, step ${count(sample.step)}</h2>
    ${samples.length > 1 && html`<input type="range" class="wide" min="0" max=${samples.length - 1} value=${at} aria-label="sample"
      aria-valuetext="step ${count(sample.step)}" onInput=${(event) => move(Number(event.target.value))} />`}
    <pre class="sample" tabindex="0" aria-live=${chosen === null ? "off" : "polite"}><span class="quiet">${sample.prompt}</span>${sample.text}</pre></section>`;
}

function Verdict({ run }) {
  const { diagnosis, state, id } = { ...run.details, state: run.state };
  if (state === "imported" || (run.details.stage !== "pretrain" && !diagnosis)) return null;
  const findings = diagnosis ? [...diagnosis.findings].sort((a, b) => (b.status === "failed") - (a.status === "failed")) : [];
  const failed = findings.filter((finding) => finding.status === "failed");
  return html`<section class="panel" aria-label="Doctor"><h2>Is this normal?</h2>
    ${!diagnosis && html`<p>The doctor has not examined ${id}: <code>glassgpt doctor ${id}</code></p>`}
    ${diagnosis && html`<p>${diagnosis.normal} <span class="quiet">Examined at step ${count(diagnosis.step ?? 0)}.</span></p>
      ${failed.map((finding) => html`<p><strong class="error">${finding.name}:</strong> ${finding.figure}; expected: ${finding.expected}. ${finding.remedy && `To do: ${finding.remedy}.`}</p>`)}
      <details><summary>${count(findings.length)} checks</summary><div class="scroll" tabindex="0" role="region" aria-label="Checks"><table>
        <thead><tr><th scope="col">check</th><th scope="col">result</th><th scope="col">found</th><th scope="col">expected</th></tr></thead>
        <tbody>${findings.map((finding) => html`<tr><th scope="row">${finding.name}</th><td class=${finding.status === "failed" ? "error" : ""}>${finding.status}</td>
          <td>${finding.figure}</td><td>${finding.expected}</td></tr>`)}</tbody></table></div></details>`}
  </section>`;
}

function Settings({ runs }) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.details.config)))];
  const value = (run, name) => run.details.config[name] ?? "–";
  const text = (found) => (typeof found === "string" ? found : JSON.stringify(found));
  const rows = runs.length === 1 ? names : names.filter((name) => new Set(runs.map((run) => text(value(run, name)))).size > 1);
  if (!names.length) return null;
  const table = html`<div class="scroll" tabindex="0" role="region" aria-label="Table of settings"><table>
    <thead><tr><th scope="col">setting</th>${runs.map((run) => html`<th scope="col">${run.id}</th>`)}</tr></thead>
    <tbody>${rows.map((name) => html`<tr key=${name}><th scope="row"><code>${name}</code></th>${runs.map((run) => html`<td><code>${text(value(run, name))}</code></td>`)}</tr>`)}</tbody></table></div>`;
  return html`<section class="panel" aria-label="Settings">${runs.length === 1
    ? html`<details><summary>All ${names.length} settings of ${runs[0].id}</summary>${table}</details>`
    : html`<h2>What differs between their settings</h2>${rows.length ? table : html`<p>Nothing: these runs have the same settings.</p>`}`}</section>`;
}

function Notes({ run }) {
  const { notes, id } = run.details;
  return html`<section class="panel" aria-label="Notes"><h2>Notes</h2>
    ${notes.map((note) => html`<p><time class="quiet" datetime=${note.time}>${note.time.slice(0, 16).replace("T", " ")}</time> ${note.text}</p>`)}
    ${!notes.length && html`<p class="quiet">None yet. Add one: <code>glassgpt note ${id} "…"</code></p>`}</section>`;
}

// --- the view -------------------------------------------------------------------------------------------------------

const decimal = (params, name) => {
  const value = Number.parseFloat(params.get(name) ?? "");
  return Number.isFinite(value) ? value : null;
};

export function Runs({ runs: cards, params }) {
  const theme = useTheme(), ids = new Set(cards.map((card) => card.id));
  const first = cards.find((card) => card.id === params.get("run")) ?? cards.find((card) => card.state === "training") ?? cards[0];
  const primary = first?.id ?? null;
  const shown = primary === null ? [] : [primary, ...new Set(params.getAll("also").filter((id) => ids.has(id) && id !== primary))].slice(0, MOST_SHOWN);
  const live = useLive(shown, (names) => {
    if (names.length !== ids.size || names.some((name) => !ids.has(name))) dispatchEvent(new Event("runschange"));
  });
  const axis = params.get("x") in AXES ? params.get("x") : "step";
  const view = {
    axis, reach: Math.min(number(params, "smooth") ?? 2, 20), logX: params.has("logx"), logY: params.has("logy"),
    from: decimal(params, "from"), to: decimal(params, "to"),
  };
  const asked = params.get("run");
  const known = live.runs.filter((run) => run.figures && run.details), main = known.find((run) => run.id === primary);
  const failed = live.runs.filter((run) => run.error);
  return html`
    <div>
      <h1>How does it learn?</h1>
      <div role="status">
        ${!cards.length && html`<p>There is no run yet. Train one with <code>glassgpt train char-tiny</code>, and it appears here.</p>`}
        ${cards.length > 0 && asked !== null && !ids.has(asked) && html`<p>There is no run ${asked} here; this is ${primary}.</p>`}
        ${main && html`<p class="answer">${sentence(main)} ${known.length > 1 && comparison(known)}</p>`}
        ${primary && !main && !failed.length && html`<p class="quiet">reading ${primary} …</p>`}
        ${known.filter((run) => run.details.problem).map((run) => html`<p class="error">Not all of ${run.id} can be read: ${run.details.problem}</p>`)}
        ${failed.map((run) => html`<p class="error">${run.id}: ${run.error}</p>`)}
        ${!live.connected && html`<p class="error">The connection to glassgpt look is lost; trying again.</p>`}
      </div>
    </div>
    ${cards.length > 0 && html`<div class="beside">
      <div class="side"><${RunList} cards=${cards} shown=${shown} primary=${primary} live=${new Map(known.map((run) => [run.id, run]))} /></div>
      <div class="stack">
        ${main && html`<${Facts} run=${main} />`}
        ${known.some((run) => run.details.state !== "imported" && run.step >= 0) && html`<${Controls} view=${view} />`}
        ${known.length > 0 && html`<${Charts} runs=${known} view=${view} theme=${theme} />`}
        ${main && html`<${Samples} run=${main} chosen=${number(params, "sample")} /><${Verdict} run=${main} />`}
        ${known.length > 0 && html`<${Settings} runs=${known} />`}
        ${main && html`<${Notes} run=${main} />`}
      </div>
    </div>`}`;
}
