// What does each idea add? The ten sections of the course: their curves, drawings, code and samples.
import { html, useLayoutEffect, useMemo, useRef } from "glass/dom.js";
import { useAnswer } from "glass/api.js";
import { Chart, css, useTheme } from "glass/chart.js";
import { CodeDiff } from "glass/code-diff.js";
import { compact, count, duration, loss } from "glass/numbers.js";
import { address, change, follow as followLink, number } from "glass/state.js";
import { signed } from "glass/text.js";

const SERIES = 7, DASHES = [undefined, [8, 4]];  // of the first seven sections, and of the others
const STEPS = { label: "step", format: compact, exact: count };
const NARROW = "(max-width: 720px)";

const capital = (text) => text[0].toUpperCase() + text.slice(1);
const reached = (figures) => (figures?.val_loss == null ? "–" : loss(figures.val_loss));

// The climb that is shown: the chosen one, else the newest whole one. The last one is that of the package, which is whole.
function chosenClimb(climbs, id, sections) {
  const usable = climbs.filter((climb) => !climb.problem);
  return usable.find((climb) => climb.id === id) ?? usable.find((climb) => climb.rows.length === sections.length);
}

// The address of a section, or of all with null, and what a click on it does.
function links(params) {
  const to = (section) => {
    const next = new URLSearchParams(params);
    if (section === null) next.delete("section");
    else next.set("section", section);
    return address("ladder", next);
  };
  const follow = (event) => {
    followLink(event);
    if (event.defaultPrevented) scrollTo(0, 0);
  };
  return { to, follow };
}

// --- all sections ---------------------------------------------------------------------------------------------------

function Curves({ rows, chosen }) {
  const theme = useTheme(), narrow = matchMedia(NARROW).matches;
  const version = JSON.stringify([rows, chosen]);
  const curves = useMemo(() => rows.map(({ section, name, steps, losses }) => {
    const label = `${section} ${name}`, data = [steps, losses];
    if (chosen === null) {
      return { label, data, color: css(`--series-${(section - 1) % SERIES}`), dash: DASHES[Math.floor((section - 1) / SERIES)], end: narrow ? `${section}` : label };
    }
    if (section === chosen) return { label, data, color: css("--accent"), end: narrow ? `${section}` : label };
    if (section === chosen - 1) return { label, data, color: css("--text"), dash: [4, 3], end: narrow ? `${section}` : label };
    return { label, data, color: css("--stream"), faint: 0.35 };
  }), [version, theme]);
  const told = rows.map((row) => `${row.name}: ${reached(row)}`).join(", ");
  return html`<section class="panel" aria-label="Curves">
    <${Chart} title="Validation loss, nats per character" curves=${curves} x=${STEPS} height=${chosen === null ? 340 : 240} theme=${theme} version=${version}
      onZoom=${() => {}} describe=${`Validation loss of the sections over the steps. At the end, ${told}. The table below has the values.`} /></section>`;
}

// Where the loss went from the section before to this one, all on one scale: to the left is better.
function Move({ before, figures, low, high }) {
  if (figures?.val_loss == null) return html`<span class="move"></span>`;
  const at = (value) => 4 + 92 * (value - low) / (high - low || 1), here = at(figures.val_loss);
  const kind = figures.verdict ?? "first", start = before?.val_loss == null ? here : at(before.val_loss);
  return html`<svg class="move ${kind.replaceAll(" ", "-")}" viewBox="0 0 100 16" preserveAspectRatio="none" aria-hidden="true">
    <line x1="0" x2="100" y1="8" y2="8" class="axis" /><line x1=${start} x2=${here} y1="8" y2="8" />
    <line x1=${here} x2=${here} y1="2" y2="14" class="here" /></svg>`;
}

function Change({ figures }) {
  if (figures?.change == null) return html`<span class="change"></span>`;
  return html`<span class="change ${figures.verdict.replaceAll(" ", "-")}">${signed(figures.change, 2)} <small>${figures.verdict}</small></span>`;
}

function Rungs({ sections, known, link }) {
  const losses = [...known.values()].map((row) => row.val_loss).filter((value) => value !== null);
  const low = Math.min(...losses), high = Math.max(...losses);
  return html`<section class="panel" aria-label="Sections"><h2>Ten sections, each with one idea more</h2>
    <ol class="rungs">${sections.map(({ number: i, name, idea }) => {
      const figures = known.get(i);
      return html`<li key=${i}><a class="rung" href=${link.to(i)} onClick=${link.follow}>
        <span class="position">${i}</span><span class="what"><b>${name}</b> <span class="quiet">${idea}</span></span>
        <span class="size quiet">${figures ? `${count(figures.n_params)} parameters` : "not in this climb"}</span>
        <${Move} before=${known.get(i - 1)} figures=${figures} low=${low} high=${high} />
        <span class="loss"><span class="sr-only">loss </span>${reached(figures)}</span><${Change} figures=${figures} /></a></li>`;
    })}</ol>
    <p class="quiet hint">Right: the loss in nats per character, and its change to the section before. In the strips, left is better.</p></section>`;
}

// --- one section ----------------------------------------------------------------------------------------------------

function Steps({ sections, chosen, link }) {
  return html`<nav class="steps" aria-label="Sections"><a href=${link.to(null)} onClick=${link.follow}>all ten</a>
    ${sections.map(({ number: i, name }) => html`<a key=${i} href=${link.to(i)} onClick=${link.follow}
      aria-current=${i === chosen ? "step" : undefined}>${i} <span>${name}</span></a>`)}</nav>`;
}

function compared(figures, before) {
  if (figures?.change == null) return figures ? "" : "This climb has not trained this section.";
  const { change, verdict } = figures, size = Math.abs(change).toFixed(2);
  if (verdict === "better") return `Its loss is ${size} lower than that of ${before.name}.`;
  if (verdict === "worse") return `Its loss is ${size} higher than that of ${before.name}: by itself, this idea makes it worse.`;
  return `Its loss is about that of ${before.name}: the difference of ${change.toFixed(3)} is within the spread of the seeds.`;
}

function Figures({ figures, before }) {
  if (!figures) return null;
  const grown = before && figures.n_params - before.n_params;
  const facts = [
    ["validation loss", `${figures.val_loss == null ? "not finite" : figures.val_loss.toFixed(3)}${figures.n_seeds > 1 && figures.spread !== null ? ` ± ${figures.spread.toFixed(3)}` : ""}`],
    figures.change !== null && ["change", html`<${Change} figures=${figures} />`],
    ["parameters", html`${count(figures.n_params)}${grown ? html` <small class="quiet">${grown < 0 ? "−" : "+"}${count(Math.abs(grown))}</small>` : ""}`],
    [`time, ${count(figures.n_seeds)} ${figures.n_seeds === 1 ? "seed" : "seeds"}`, duration(figures.seconds)],
  ].filter(Boolean);
  return html`<dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    ${figures.shape && html`<p class="quiet">${capital(figures.shape)}.</p>`}`;
}

function Writing({ figures, before }) {
  if (!figures) return null;
  const sample = (row, title) => html`<div><h3>${title}</h3><pre class="sample" tabindex="0">${row.sample}</pre></div>`;
  return html`<section class="panel samples" aria-label="Samples"><h2>What it writes</h2>
    <div class="sides two">${before && sample(before, `${before.section} ${before.name}`)}${sample(figures, `${figures.section} ${figures.name}`)}</div></section>`;
}

function Lesson({ section, sections, known, link }) {
  const i = section.number, figures = known.get(i), earlier = sections[i - 2] ?? null, before = known.get(i - 1) ?? null;
  const inside = figures?.run && address("inside", new URLSearchParams({ run: figures.run }));
  return html`<div class="lesson">
    <section class="panel words" aria-label="The idea"><p class="quiet">Section ${i}: ${section.name}</p>
        <h2 class="idea">${capital(section.idea)}</h2>
        <p>${section.adds}</p><p><strong>${compared(figures, before)}</strong></p>
        <${Figures} figures=${figures} before=${before} />
        <p>Train it: <code>glassgpt ladder --section ${i}</code>${inside && html` · <a href=${inside} onClick=${link.follow}>see inside this model</a>`}</p></section>
    <figure class="panel drawing"><figcaption>${section.drawing.title}</figcaption>
      <div dangerouslySetInnerHTML=${{ __html: section.drawing.svg }}></div></figure>
    <${Writing} figures=${figures} before=${before} /></div>
    <${CodeDiff} key=${i} section=${section} before=${earlier} />`;
}

// --- the view -------------------------------------------------------------------------------------------------------

function useArrows(chosen, last) {
  const current = useRef(null);
  current.current = { chosen, last };  // a second key may come before an effect of the first has run
  useLayoutEffect(() => {
    const onKey = (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog, .scroll")) return;
      const { chosen, last } = current.current;
      const next = chosen === null ? (by > 0 ? 1 : last) : chosen + by;
      change({ section: next >= 1 && next <= last ? next : null });
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
}

export function Ladder({ params }) {
  const { answer, error } = useAnswer("/api/ladder", undefined, { again: true });
  const link = links(params), sections = answer?.sections ?? [];
  const asked = number(params, "section"), section = sections.find((found) => found.number === asked) ?? null;
  const chosen = section?.number ?? null;
  useArrows(chosen, sections.length);
  const title = html`<h1>What does each idea add?</h1>`;
  if (!answer) return html`<div>${title}${error && html`<p class="error" role="alert">${error}</p>`}</div>`;
  const climb = chosenClimb(answer.climbs, params.get("climb"), sections);
  const known = new Map(climb.rows.map((row) => [row.section, row]));
  const damaged = answer.climbs.filter((found) => found.problem);
  return html`
    <div>${title}
      <p class="answer">${climb.answer}</p>
      ${error && html`<p class="error" role="alert">${error}</p>`}
      ${damaged.map((found) => html`<p class="error" role="alert">The climb ${found.id} cannot be shown: ${found.problem}</p>`)}
      <div class="row"><p class="quiet">${climb.measured}</p>
        ${answer.climbs.length > 1 + damaged.length && html`<label>climb <select value=${climb.id} onChange=${(event) => change({ climb: event.target.value })}>
          ${answer.climbs.filter((found) => !found.problem).map((found) => html`<option key=${found.id} value=${found.id}>${found.id}</option>`)}</select></label>`}</div>
    </div>
    ${section === null ? html`<div class="overview"><${Rungs} sections=${sections} known=${known} link=${link} />
        ${climb.rows.length > 0 && html`<${Curves} rows=${climb.rows} chosen=${null} />`}</div>`
      : html`<${Steps} sections=${sections} chosen=${chosen} link=${link} />
        <${Lesson} section=${section} sections=${sections} known=${known} link=${link} />
        ${climb.rows.length > 0 && html`<${Curves} rows=${climb.rows} chosen=${chosen} />`}`}`;
}
