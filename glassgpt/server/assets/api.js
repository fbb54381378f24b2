// Asks the server. Answers are kept by question, so that what has been seen is there at once.
import { useEffect, useRef, useState } from "glass/dom.js";

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

async function fetchAnswer(path, question, signal) {
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
    throw new Refused(told.error);
  }
  const binary = response.headers.get("content-type").startsWith("application/octet-stream");
  return binary ? unpack(await response.arrayBuffer()) : response.json();
}

// An answer that stays the same, such as a checkpoint's: asked once.
export function ask(path, question, signal) {
  const key = `${path} ${JSON.stringify(question)}`;
  if (!kept.has(key)) {
    const answer = fetchAnswer(path, question, signal);
    kept.set(key, answer);
    answer.catch(() => kept.delete(key));
    if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  }
  return kept.get(key);
}

// An answer that may change: asked each time.
export const askAgain = (path, question, signal) => fetchAnswer(path, question, signal);

// {answer, answered, error, loading}: while a new answer is awaited, the last one stays, so that nothing flickers.
// `answered` is the question that it answers.
// `version`: a number that changes when the question is to be asked once more.
export function useAnswer(path, question, { again = false, version = 0 } = {}) {
  const key = path === null ? null : `${path} ${JSON.stringify(question)}`;
  const [state, set] = useState({ answer: null, answered: null, error: null, loading: true });
  const last = useRef(-PAUSE);
  useEffect(() => {
    if (key === null) return undefined;
    const controller = new AbortController();
    let current = true;
    set((before) => ({ ...before, loading: true }));
    const attempt = () => (again ? askAgain : ask)(path, question, controller.signal).then(
      (answer) => current && set({ answer, answered: question, error: null, loading: false }),
      (error) => {
        if (!current) return;
        if (error.name === "AbortError") attempt();  // another part of the page gave up the question that both had
        else set((before) => ({ ...before, error: error.message, loading: false }));
      },
    );
    const pause = kept.has(key) ? 0 : last.current + PAUSE - performance.now();
    last.current = performance.now() + Math.max(0, pause);
    if (pause > 0) new Promise((done) => setTimeout(done, pause)).then(() => current && attempt());
    else attempt();
    return () => { current = false; controller.abort(); };
  }, [key, again, version]);
  return state;
}
