// Asks the server. Answers are kept by question, so that what has been seen is there at once.
// A saved page has no server, and answers from what it holds.
import { useEffect, useRef, useState } from "glass/dom.js";
import { keyOf, record, show, use } from "glass/record.js";
import { replay, saved } from "glass/saved.js";

const MOST_KEPT = 300;
const PAUSE = 100;  // milliseconds between two questions of one part of a page, such as while an arrow key is held down
const kept = new Map();  // question -> promise of its answer

export class Refused extends Error {}

const types = { f32: Float32Array, f64: Float64Array, u8: Uint8Array, i32: Int32Array };

// A binary answer: {meta, arrays: {name: {data, shape}}}. See server/wire.py.
function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const start = Math.ceil((4 + length) / 8) * 8;
  const arrays = {};
  for (const [name, { dtype, shape, offset }] of Object.entries(header.arrays)) {
    const count = shape.reduce((product, size) => product * size, 1);
    arrays[name] = { data: new types[dtype](buffer, start + offset, count), shape };
  }
  return { meta: header.meta, arrays };
}

const readers = { json: JSON.parse, binary: unpack, refused: (sentence) => { throw new Refused(sentence); } };

// {kind, body}, as the server sends it: the body is an ArrayBuffer if the kind is binary, else a text.
export async function load(path, question, signal) {
  const options = question === undefined ? { signal } : {
    method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(question),
  };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the server does not answer: is glassgpt look still running?");
  }
  if (!response.ok) {
    const told = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
    if (response.status === 429) throw new Refused(told.error);  // it may answer the next time
    return { kind: "refused", body: told.error };
  }
  const binary = response.headers.get("content-type").startsWith("application/octet-stream");
  return binary ? { kind: "binary", body: await response.arrayBuffer() } : { kind: "json", body: await response.text() };
}

async function fetchAnswer(path, question, signal, again) {
  if (again) record(path, question, null);
  const found = saved ? await replay(keyOf(path, question)) : await load(path, question, signal);
  if (!again) record(path, question, found);
  return readers[found.kind](found.body);
}

// An answer that stays the same, such as a checkpoint's: asked once.
export function ask(path, question, signal) {
  const key = keyOf(path, question);
  use(key);
  if (!kept.has(key)) {
    const answer = fetchAnswer(path, question, signal, false);
    kept.set(key, answer);
    answer.catch(() => kept.delete(key));
    if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  }
  return kept.get(key);
}

// An answer that may change: asked each time.
export const askAgain = (path, question, signal) => fetchAnswer(path, question, signal, true);

// {answer, answered, error, refused, loading}: while a new answer is awaited, the last one stays, so that nothing flickers.
// `answered` is the question that it answers, and `refused` the one that the error is about.
// `version`: a number that changes when the question is to be asked once more.
export function useAnswer(path, question, { again = false, version = 0 } = {}) {
  const key = path === null ? null : keyOf(path, question);
  const [state, set] = useState({ answer: null, answered: null, error: null, refused: null, loading: true });
  const last = useRef(-PAUSE);
  useEffect(() => {
    if (key === null) {  // nothing is asked, so nothing is wrong any more
      set((before) => (before.error === null ? before : { ...before, error: null, refused: null }));
      return undefined;
    }
    const controller = new AbortController();
    let current = true;
    set((before) => ({ ...before, loading: true }));
    const attempt = () => (again ? askAgain : ask)(path, question, controller.signal).then(
      (answer) => current && set({ answer, answered: question, error: null, refused: null, loading: false }),
      (error) => {
        if (!current) return undefined;
        if (error.name === "AbortError") return attempt();  // another part of the page gave up the question that both had
        set((before) => ({ ...before, error: error.message, refused: question, loading: false }));
        return undefined;
      },
    );
    const pause = kept.has(key) ? 0 : last.current + PAUSE - performance.now();
    last.current = performance.now() + Math.max(0, pause);
    const soon = pause > 0 ? new Promise((done) => setTimeout(done, pause)).then(() => (current ? attempt() : undefined)) : attempt();
    const hide = show(path, question, soon);
    return () => { current = false; controller.abort(); hide(); };
  }, [key, again, version]);
  return state;
}
