// Neurons and heads: every head of the model with its scores, sortable, at any checkpoint; the neurons are in neurons.js.
import { html } from "glass/dom.js";
import { ask, useAnswer } from "glass/api.js";
import { shareColour, signedColour } from "glass/colours.js";
import { Film } from "glass/film.js";
import { Neurons } from "glass/neurons.js";
import { address, change, follow, number } from "glass/state.js";
import { percent, signed } from "glass/text.js";

const COLUMNS = [
  ["head", "head", "the block and the head in it"],
  ["previous", "previous token", "mean attention to the token before"],
  ["induction", "induction", "mean attention to what came after the same token the last time"],
  ["duplicate", "same token", "mean attention to earlier copies of the token"],
  ["first", "first token", "mean attention to the first token, where many heads rest"],
  ["entropy", "spread", "0%: all attention on one token, 100%: spread evenly"],
  ["effect", "loss without it (nats)", "how much the mean loss rises when the head is off"],
];

export function Heads({ run, params }) {
  if (run === null) return html`<h1>There is no model to look into</h1><p>A run appears here with its first checkpoint.</p>`;
  const neurons = params.get("part") === "neurons";
  const part = (label, name, chosen) => html`<button aria-pressed=${chosen} onClick=${() => change({ part: name }, { replaces: false })}>${label}</button>`;
  return html`<div class="row" role="group" aria-label="Part of the model">${part("heads", null, !neurons)}${part("neurons", "neurons", neurons)}</div>
    <${neurons ? Neurons : AllHeads} key=${run.id} run=${run} params=${params} />`;
}

function AllHeads({ run, params }) {
  const step = number(params, "step") ?? run.best_step ?? run.steps.at(-1);
  const effects = params.has("effects");
  const question = (step) => ({ run: run.id, step, effects });
  const { answer, error, loading } = useAnswer("/api/heads", question(step));
  return html`
    <div><h1>What is each head for?</h1>${answer && html`<p>${summary(answer.meta.heads)}</p>`}</div>
    ${error && html`<p class="error" role="alert">${error}</p>`}
    <${Film} run=${run} step=${answer?.meta.step ?? step} ask=${(step) => ask("/api/heads", question(step))} />
    ${answer && answer.meta.heads.length > 0 && html`<section class="panel" aria-label="All heads">
      <div class="row spread"><p class="quiet">Measured on ${answer.meta.n_tokens / 2} random tokens that are said twice: only looking back predicts the second half.</p>
        <button aria-pressed=${effects} disabled=${loading && effects} onClick=${() => change({ effects: effects ? null : 1 })}>measure the loss without each head</button></div>
      <${Table} heads=${answer.meta.heads} params=${params} run=${run} effects=${effects} /></section>`}`;
}

function summary(heads) {
  if (!heads.length) return "This model has no attention heads.";
  const counts = new Map();
  for (const { kind } of heads) if (kind) counts.set(kind.replace(/ \d+%$/, ""), (counts.get(kind.replace(/ \d+%$/, "")) ?? 0) + 1);
  const told = [...counts].map(([kind, count]) => `${count} ${count === 1 ? "is" : "are"} of the kind “${kind}”`);
  const best = heads.reduce((most, head) => (head.induction > most.induction ? head : most));
  const [only] = heads;
  if (heads.length === 1) return `The only head, ${only.layer}.${only.head}, is of ${only.kind ? `the kind “${only.kind.replace(/ \d+%$/, "")}”` : "no known kind"}. Its induction score is ${percent(only.induction)}.`;
  return `Of ${heads.length} heads, ${told.length ? told.join(", ") : "none is of a known kind"}. `
    + `Head ${best.layer}.${best.head} has the highest induction score, ${percent(best.induction)}.`;
}

function Table({ heads, params, run, effects }) {
  const columns = COLUMNS.filter(([name]) => name !== "effect" || effects);
  const sort = params.get("sort") ?? "head";
  const down = !params.has("up");
  const falls = down !== (sort === "head");  // the heads begin with the first, the scores with the highest
  const value = (head) => (sort === "head" ? 1000 * head.layer + head.head : head[sort] ?? 0);
  const rows = [...heads].sort((a, b) => (falls ? 1 : -1) * (value(b) - value(a)));
  const choose = (name) => change(name === sort ? { up: down ? 1 : null } : { sort: name === "head" ? null : name, up: null });
  const inside = (head) => {
    const kept = new URLSearchParams([["run", run.id], ...["step", "text"].filter((key) => params.has(key)).map((key) => [key, params.get(key)])]);
    kept.set("head", `${head.layer}.${head.head}`);
    return address("inside", kept);
  };
  const most = Math.max(...heads.map((head) => Math.abs(head.effect ?? 0)), 1e-9);
  return html`<div class="scroll" tabindex="0" role="group" aria-label="Scores"><table class="all-heads">
    <thead><tr>${columns.map(([name, label, title]) => html`<th key=${name} scope="col" title=${title}
      class=${name === "head" ? "" : "number"} aria-sort=${name === sort ? (falls ? "descending" : "ascending") : undefined}>
      <button onClick=${() => choose(name)}>${label}${name === sort ? (falls ? " ↓" : " ↑") : ""}</button></th>`)}<th scope="col">kind</th></tr></thead>
    <tbody>${rows.map((head) => html`<tr key=${`${head.layer}.${head.head}`}>
      <th scope="row"><a href=${inside(head)} onClick=${follow}>${head.layer}.${head.head}</a></th>
      ${columns.slice(1).map(([name]) => html`<td key=${name} class="number" style=${shade(name, head[name], most)}>
        ${name === "effect" ? (head.effect === null ? "…" : signed(head.effect, 3)) : percent(head[name])}</td>`)}
      <td>${head.kind ?? ""}</td></tr>`)}</tbody></table></div>`;
}

function shade(name, value, most) {
  if (value === null) return "";
  if (name === "effect") return `background: ${signedColour(value / most)}`;
  return name === "entropy" ? "" : `background: ${shareColour(value)}`;
}
