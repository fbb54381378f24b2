// In a page that was saved as a file: what it holds. save.js writes it, and api.js answers from it.
const element = document.getElementById("saved");

// {address, view, runs, step, time, kept, answers: {question: {kind, data}}}; null in a page of the server.
export const saved = element && JSON.parse(element.textContent);

// The answer that was recorded for a question, or the reason why there is none.
export async function replay(key) {
  const found = saved.answers[key];
  if (!found) return { kind: "refused", body: "this saved page holds only what was seen before it was saved" };
  const packed = atob(found.data), bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i += 1) bytes[i] = packed.charCodeAt(i);
  const whole = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
  return { kind: found.kind, body: await (found.kind === "binary" ? whole.arrayBuffer() : whole.text()) };
}

class Memory extends Map {
  getItem(name) { return this.get(name) ?? null; }
  setItem(name, value) { this.set(name, value); }
}

// What the tab and the browser remember. A file has no storage of its own: it shares one with all files, or is refused it.
export const tab = saved ? new Memory(Object.entries(saved.kept)) : sessionStorage;
export const browser = saved ? new Memory() : localStorage;
