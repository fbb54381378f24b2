// Saves the view that is shown as one HTML file that opens offline: the app itself, and the answers that it was given.
import { html, useEffect, useRef, useState } from "glass/dom.js";
import { load, Refused } from "glass/api.js";
import { films } from "glass/film.js";
import { collect, holdsStep, pending, runsShown } from "glass/record.js";
import { saved } from "glass/saved.js";
import { read } from "glass/state.js";

const MOST_BYTES = 64e6;  // of all answers in a file, packed
const MOST_LETTERS = 80;  // of the names of runs in the name of a file

const many = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

// --- the file -------------------------------------------------------------------------------------------------------

function dataUrl(blob) {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function pack({ kind, body }) {
  const packed = new Blob([body]).stream().pipeThrough(new CompressionStream("gzip"));
  const url = await dataUrl(await new Response(packed).blob());
  return { kind, data: url.slice(url.indexOf(",") + 1) };
}

async function fetchFile(path) {
  const response = await fetch(path).catch(() => null);
  if (!response?.ok) throw new Refused("the server does not give its own pages: is glassgpt look still running?");
  return response.blob();
}

const inlined = async (path) => dataUrl(await fetchFile(path));

// The page of the server with each of its files as a data: URL. Its policy allows nothing of the network, and only the
// scripts that are named here: texts and names in `record` are data, and do not know the nonce.
async function buildPage(record) {
  const page = new DOMParser().parseFromString(await (await fetchFile("/")).text(), "text/html");
  const nonce = btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(18))));
  const policy = page.createElement("meta");
  policy.httpEquiv = "Content-Security-Policy";
  policy.content = `default-src 'none'; script-src 'nonce-${nonce}'; style-src 'unsafe-inline' data:; img-src data: blob:; base-uri 'none'; form-action 'none'`;
  page.querySelector("meta[charset]").after(policy);
  for (const link of page.querySelectorAll("link[rel=stylesheet]")) link.setAttribute("href", await inlined(link.getAttribute("href")));
  for (const script of page.scripts) {
    script.setAttribute("nonce", nonce);
    if (script.hasAttribute("src")) script.setAttribute("src", await inlined(script.getAttribute("src")));
  }
  const map = page.querySelector("script[type=importmap]");
  const modules = Object.entries(JSON.parse(map.textContent).imports).map(async ([name, path]) => [name, await inlined(path)]);
  map.textContent = JSON.stringify({ imports: Object.fromEntries(await Promise.all(modules)) }, null, 1);
  const data = page.createElement("script");
  data.type = "application/json";
  data.id = "saved";
  data.textContent = JSON.stringify(record).replaceAll("<", "\\u003c");  // so that no text ends the element
  page.body.prepend(data);
  return new Blob(["<!doctype html>\n", page.documentElement.outerHTML], { type: "text/html" });
}

// The list of the runs without those that are not shown: who gets the file need not know of them.
function onlyRuns(names, { kind, body }) {
  if (kind !== "json") return { kind, body };
  const { runs } = JSON.parse(body);
  return { kind, body: JSON.stringify({ runs: runs.filter(({ id }) => names.has(id)) }) };
}

// {record, left}: what the file holds, and how many answers it has no room for.
async function buildRecord(run) {
  const { view, params } = read();
  const [film] = [...films].map((found) => found.current);
  const names = runsShown(), listed = names.size || !run ? names : new Set([run.id]);
  const answers = {}, all = collect();
  let room = MOST_BYTES, left = all.length;
  for (const { key, path, question, found } of all) {
    const now = found ?? await load(path, question);
    const packed = await pack(path === "/api/runs" ? onlyRuns(listed, now) : now);
    room -= packed.data.length;
    if (room < 0) break;
    answers[key] = packed;
    left -= 1;
  }
  const record = {
    address: `/${view}?${params}`, view, runs: [...names], step: film?.step ?? null, time: new Date().toISOString(),
    kept: params.has("held") ? { ...sessionStorage } : {}, answers,
  };
  return { record, left };
}

// "glassgpt-inside-demo-step-2000.html"
function fileName({ view, runs, step }) {
  const names = runs.join("-").replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, MOST_LETTERS);
  return `${["glassgpt", view, names, step === null ? "" : `step-${step}`].filter(Boolean).join("-")}.html`;
}

function download(file, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// --- the checkpoints ------------------------------------------------------------------------------------------------

// The checkpoints of all films on the page, and how many of them are recorded with all that is shown.
function checkpoints() {
  const runs = new Map([...films].map(({ current: { run, steps } }) => [run.id, steps]));  // two films may be of one run
  const all = [...runs].flatMap(([run, steps]) => steps.map((step) => holdsStep(run, step)));
  return { count: all.length, held: all.filter(Boolean).length };
}

// Waits until every part of the page has its answer. `drawn()`: a promise that what has changed is drawn.
async function settle(drawn) {
  for (;;) {
    await drawn();
    const awaited = pending();
    if (!awaited.length) return;
    await Promise.all(awaited);
  }
}

// Shows each checkpoint that is not recorded, so that the view asks for all that it shows of it.
async function playAll(drawn, stopped, tell) {
  const { view } = read();
  for (const film of films) {
    const { step: before, steps, run } = film.current;
    for (const [index, step] of steps.entries()) {
      if (stopped()) break;
      if (holdsStep(run.id, step)) continue;
      tell(`checkpoint ${index + 1} of ${steps.length} …`);
      film.current.show(index);
      await settle(drawn);
    }
    if (read().view !== view) return;
    film.current.show(steps.indexOf(before));
    await settle(drawn);
  }
}

// --- on the page ----------------------------------------------------------------------------------------------------

export function Save({ view, run }) {
  const [told, tell] = useState(null);  // {text, busy?, plays?, more?, failed?}
  const [done, wait] = useState(null);
  useEffect(() => done?.(), [done]);  // the effects of one drawing run together: all parts have asked what they need
  const drawn = () => new Promise((resolve) => { wait(() => resolve); });
  const stopped = useRef(false);
  const stop = () => { stopped.current = true; };
  useEffect(() => () => { stop(); tell(null); }, [view]);
  const save = async (all) => {
    stopped.current = false;
    try {
      if (all) await playAll(drawn, () => stopped.current, (text) => tell({ text, busy: true, plays: true }));
      if (stopped.current) { tell(null); return; }
      tell({ text: "saving …", busy: true });
      await settle(drawn);
      const { record, left } = await buildRecord(run);
      const file = await buildPage(record), name = fileName(record), { count, held } = checkpoints();
      download(file, name);
      tell({
        text: `Saved ${name}, ${(file.size / 1e6).toFixed(1)} MB${count > 1 ? `, with ${held} of ${many(count, "checkpoint")}` : ""}.${
          left ? ` ${many(left, "older answer")} had no room.` : ""}`, more: held < count,
      });
    } catch (error) {
      tell({ text: `Not saved: ${error.message}`, failed: true });
      if (!(error instanceof Refused)) throw error;
    }
  };
  return html`<button onClick=${() => save(false)} disabled=${told?.busy} title="save this view as one file that opens offline">save</button>
    <div role="status" class=${told ? "saving" : "sr-only"}>${told && html`
      <span class=${told.failed ? "error" : ""}>${told.text}</span>
      ${told.more && html`<button onClick=${() => save(true)}>save with all checkpoints</button>`}
      ${told.plays && html`<button onClick=${stop}>stop</button>`}
      ${!told.busy && html`<button onClick=${() => tell(null)}>close</button>`}`}</div>`;
}

const shellWord = (name) => (/^[\w./-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`);

// What a saved page says of itself.
export function SavedNote() {
  const { runs, step, time } = saved;
  const when = new Date(time).toLocaleString("en", { dateStyle: "long", timeStyle: "short" });
  const what = [runs.length && `${runs.length > 1 ? "runs" : "run"} ${runs.join(", ")}`, step !== null && `step ${step.toLocaleString("en")}`];
  return html`<p class="saved-note quiet">Saved page: ${[...what, when].filter(Boolean).join(" · ")} · the live view: <code>glassgpt look ${runs.map(shellWord).join(" ")}</code></p>`;
}
