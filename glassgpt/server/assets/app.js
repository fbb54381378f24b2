// The frame of every view: navigation, the choice of the run, the theme, help.
import { html, render, useEffect, useRef, useState } from "glass/dom.js";
import { useAnswer } from "glass/api.js";
import { OF_RUN, address, change, follow, useAddress } from "glass/state.js";
import { Heads } from "glass/heads.js";
import { Inside } from "glass/inside.js";
import { Ladder } from "glass/ladder.js";
import { Loss } from "glass/loss.js";
import { Runs } from "glass/runs.js";
import { Save, SavedNote } from "glass/save.js";
import { browser, saved } from "glass/saved.js";
import { Tokens } from "glass/tokens.js";

const VIEWS = [
  ["runs", "Runs", Runs],
  ["tokens", "Tokens", Tokens],
  ["inside", "Inside", Inside],
  ["loss", "Loss", Loss],
  ["heads", "Neurons and heads", Heads],
  ["ladder", "Ladder", Ladder],
];
const NEEDS_NO_RUN = new Set([Runs, Tokens, Ladder]);
const FOR_DECODERS = new Set([Loss, Heads]);  // they ask what comes next in a text
const SHARED = ["run", "step", "text", "held", "token"];  // what a view hands on to the next one
const KEYS = [
  ["← →", "the token before or after; in Ladder, the section"], ["[ ]", "the checkpoint before or after"], ["space", "play the film of the checkpoints"],
  ["h", "the heads"], ["l", "the prediction layer by layer"], ["?", "this help"],
];

function Theme() {
  const [theme, set] = useState(browser.getItem("theme") ?? "auto");
  useEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    browser.setItem("theme", theme);
    dispatchEvent(new Event("themechange"));
  }, [theme]);
  const next = { auto: "light", light: "dark", dark: "auto" }[theme];
  return html`<button onClick=${() => set(next)} title="light, dark, or as the system">theme: ${theme}</button>`;
}

function RunPicker({ runs, run }) {
  const usable = runs.filter((card) => card.inspectable);
  if (!usable.length) return null;
  const missing = run && !run.inspectable;
  const choose = (event) => change({ ...Object.fromEntries(OF_RUN.map((name) => [name, null])), run: event.target.value }, { replaces: false });
  return html`<label>run <select value=${run?.id} onChange=${choose}>
    ${missing && html`<option value=${run.id} disabled>${run.id}</option>`}
    ${usable.map((card) => html`<option key=${card.id} value=${card.id}>${card.id}</option>`)}
  </select></label>`;
}

function Help() {
  const dialog = useRef(null);
  useEffect(() => {
    const onKey = (event) => {
      if (event.key === "?" && !/INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) dialog.current.showModal();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  return html`<button onClick=${() => dialog.current.showModal()} aria-label="keys">?</button>
    <dialog ref=${dialog} aria-label="Keys"><h1>Keys</h1>
      <table><tbody>${KEYS.map(([key, what]) => html`<tr><th scope="row"><kbd>${key}</kbd></th><td>${what}</td></tr>`)}</tbody></table>
      <form method="dialog"><button>close</button></form>
    </dialog>`;
}

function App() {
  const { view, params } = useAddress();
  const [version, askAnew] = useState(0);
  const { answer, error } = useAnswer("/api/runs", undefined, { again: true, version });
  useEffect(() => {
    const other = () => askAnew((count) => count + 1);
    addEventListener("runschange", other);
    return () => removeEventListener("runschange", other);
  }, []);
  const runs = answer?.runs ?? [];
  const asked = params.get("run"), named = runs.find((card) => card.id === asked);
  const run = named ?? runs.find((card) => card.inspectable) ?? null;
  const [, title, View] = VIEWS.find(([name]) => name === view) ?? VIEWS[0];
  const elsewhere = saved && view !== saved.view;
  const lacksModel = run && !run.inspectable && !NEEDS_NO_RUN.has(View);
  const otherKind = run && !lacksModel && FOR_DECODERS.has(View) && ["encoder", "encoder-decoder"].includes(run.kind);
  useEffect(() => { document.title = `${title} · GlassGPT`; }, [title]);

  // A link inside a view goes away with the view, or with the list of sections. The focus then waits at the top.
  const main = useRef(null), place = `${view} ${params.has("section")}`, before = useRef(place);
  useEffect(() => {
    if (before.current !== place && document.activeElement === document.body) main.current.focus({ preventScroll: true });
    before.current = place;
  }, [place]);

  const link = (name) => {
    const shared = new URLSearchParams(SHARED.filter((key) => params.has(key)).map((key) => [key, params.get(key)]));
    return address(name, shared);
  };
  return html`
    <header>
      <a class="brand" href=${address("runs", new URLSearchParams())} onClick=${follow}>GlassGPT</a>
      <nav aria-label="Views">${VIEWS.filter(([name]) => !saved || name === saved.view).map(([name, label]) => html`
        <a key=${name} href=${link(name)} onClick=${follow} aria-current=${name === view ? "page" : undefined}>${label}</a>`)}
      </nav>
      <div class="row">${!["runs", "ladder"].includes(view) && html`<${RunPicker} runs=${runs} run=${run} />`}${saved || otherKind ? null : html`<${Save} view=${view} run=${NEEDS_NO_RUN.has(View) ? null : run} />`}<${Theme} /><${Help} /></div>
    </header>
    ${saved && html`<${SavedNote} />`}
    <main tabindex="-1" ref=${main}>
      ${error && html`<p class="error" role="alert">${error}</p>`}
      ${elsewhere ? html`<p role="status">This saved page holds one view, ${VIEWS.find(([name]) => name === saved.view)[1]}. The live view has the others.</p>` : html`
      ${answer && !runs.length && !NEEDS_NO_RUN.has(View) && html`<h1>There is no run yet</h1><p>Train one with <code>glassgpt train char-tiny</code>, and it appears here.</p>`}
      ${lacksModel && html`<p class="error" role="alert">There is no model to look into in ${run.id}: ${run.problem ?? (run.steps.length ? `this version does not know its architecture ${run.architecture}` : "it has no checkpoint yet")}.</p>`}
      ${run && asked !== null && !named && !NEEDS_NO_RUN.has(View) && html`<p role="status">There is no run ${asked} here; this is ${run.id}.</p>`}
      ${otherKind && html`<h1>${title}</h1><p role="status">This view is for models that predict what comes next in a text, and ${run.id} is an ${run.kind}: see <a href=${link("inside")} onClick=${follow}>Inside</a>.</p>`}
      ${answer && (runs.length > 0 || NEEDS_NO_RUN.has(View)) && !lacksModel && !otherKind && html`<${View} runs=${runs} run=${run} params=${params} />`}`}
    </main>`;
}

render(html`<${App} />`, document.getElementById("app"));
