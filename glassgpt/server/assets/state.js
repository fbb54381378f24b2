// What a page shows is in its address, so that a view is a link.
import { useEffect, useState } from "glass/dom.js";
import { saved } from "glass/saved.js";

const START = saved ? "#" : "";  // a file keeps its path: what it shows comes after a #
const listeners = new Set();
export const OF_RUN = ["step", "edits", "head", "key", "token", "pick", "alike", "neuron", "part", "target"];  // another run has others

export function read() {
  const [path, query] = saved ? (location.hash.startsWith("#/") ? location.hash.slice(1) : saved.address).split(/\?(.*)/s)
    : [location.pathname, location.search];
  return { view: path.slice(1) || "runs", params: new URLSearchParams(query) };
}

// Changes some parameters of the address; null removes one. A change that `replaces` adds no step to the history.
export function change(changes, { view = read().view, replaces = true } = {}) {
  const params = read().params;
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") params.delete(name);
    else params.set(name, String(value));
  }
  go(address(view, params), replaces);
}

export function address(view, params) {
  const query = params.toString();
  return `${START}/${view}${query ? `?${query}` : ""}`;
}

export function go(url, replaces = false) {
  const before = read().view;
  if (replaces) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  for (const listener of listeners) listener();
  if (read().view !== before) scrollTo(0, 0);  // another view begins at its top
}

// What a click on a link to a view does. The browser itself opens another tab or window.
export function follow(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(event.currentTarget.getAttribute("href"));
}

addEventListener("popstate", () => { for (const listener of listeners) listener(); });

export function useAddress() {
  const [, redraw] = useState(0);
  useEffect(() => {
    const listener = () => redraw((count) => count + 1);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
  return read();
}

// A number of the address, or null.
export function number(params, name) {
  const text = params.get(name);
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : null;
}
