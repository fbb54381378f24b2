// Remembers the answers that this page was given, so that a view can be saved with what it has shown.
import { read } from "glass/state.js";

const MOST = 300;  // answers
const answers = new Map();  // key -> {key, path, question, views, found}, the last used last
const parts = new Set();  // the questions whose answers are on the page now: {path, question, pending}

export const keyOf = (path, question) => `${path} ${JSON.stringify(question)}`;

// The run that a question is about: it is named in the question or in the path.
function runOf({ path, question }) {
  const named = /^\/api\/runs\/([^/]+)/.exec(path);
  return question?.run ?? (named && decodeURIComponent(named[1]));
}

const isShown = (key) => [...parts].some((part) => keyOf(part.path, part.question) === key);

// `found`: {kind, body}, or null for an answer that may change, which is asked for once more when the view is saved.
export function record(path, question, found) {
  const key = keyOf(path, question), views = answers.get(key)?.views ?? new Set();
  answers.set(key, { key, path, question, views, found });
  use(key);
  for (const old of answers.keys()) {
    if (answers.size <= MOST) break;
    if (!isShown(old)) answers.delete(old);
  }
}

// A view has used an answer that it may have got before.
export function use(key) {
  const answer = answers.get(key);
  if (!answer) return;
  answer.views.add(read().view);
  answers.delete(key);
  answers.set(key, answer);  // it is the last one now
}

// A part of the page shows the answer to a question until the function that comes back is called. `settled`: a promise.
export function show(path, question, settled) {
  const part = { path, question, pending: settled };
  settled?.then(() => { part.pending = null; });
  parts.add(part);
  return () => parts.delete(part);
}

// The promises of the answers that the page still waits for.
export const pending = () => [...parts].map((part) => part.pending).filter(Boolean);

// The names of the runs that the page shows.
export const runsShown = () => new Set([...parts].map(runOf).filter(Boolean));

// Whether all that the page shows of a run is recorded for another step too.
export function holdsStep(run, step) {
  const dated = [...parts].filter((part) => runOf(part) === run && part.question?.step !== undefined);
  return dated.every(({ path, question }) => answers.has(keyOf(path, { ...question, step })));
}

// What is on the page, and what this view was told before of the runs that it shows; the last used first.
export function collect() {
  const { view } = read(), runs = runsShown();
  const belongs = (answer) => answer.views.has(view) && (!runOf(answer) || runs.has(runOf(answer)));
  const all = [...answers.values()].reverse(), shown = all.filter(({ key }) => isShown(key));
  return [...shown, ...all.filter((answer) => belongs(answer) && !shown.includes(answer))];
}
