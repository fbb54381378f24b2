// The text of a view. It is in the address, so that the view is a link, unless it is too long for one.
import { html, useEffect, useRef, useState } from "glass/dom.js";
import { tab } from "glass/saved.js";
import { address, go, read } from "glass/state.js";

const MOST_IN_ADDRESS = 6000;  // characters that a text may take in an address, where a letter may need nine
const HELD = "glassgpt.text";  // where the tab keeps a longer one
const PAUSE = 300;  // milliseconds without a key, after which the text counts as typed

// {text, lost}: the text of the address, or `opening`. Lost: the address is of a text that only another tab had.
export function useText(params, opening) {
  if (params.has("text")) return { text: params.get("text"), lost: false };
  const held = params.has("held") ? tab.getItem(HELD) : null;
  return { text: held ?? opening, lost: params.has("held") && held === null };
}

// Puts a text into the address, without what the address said about the tokens of the old one.
function keep(text, forget) {
  const { view, params } = read();
  const long = encodeURIComponent(text).length > MOST_IN_ADDRESS;
  if (long) tab.setItem(HELD, text);
  for (const name of ["text", "held", ...forget]) params.delete(name);
  params.set(long ? "held" : "text", long ? "1" : text);
  go(address(view, params), true);
}

// `text` is null while the opening one is read. Nothing can be typed then, which it would run into.
export function TextField({ text, lost, params, forget = [], examples = [] }) {
  const [typed, setTyped] = useState(null);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const set = (value) => { clearTimeout(timer.current); setTyped(null); keep(value, forget); };
  const type = (event) => {
    const value = event.target.value;
    setTyped(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => set(value), PAUSE);
  };
  return html`<div class="text-field">
    <label for="text">Your text</label>
    <textarea id="text" rows="3" spellcheck="false" value=${typed ?? text ?? ""} readOnly=${text === null} onInput=${type}></textarea>
    ${examples.length > 0 && html`<div class="row" role="group" aria-label="Examples"><span class="quiet">try</span>
      ${examples.map(([name, example]) => html`<button key=${name} onClick=${() => set(example)}>${name}</button>`)}</div>`}
    ${text === "" && html`<p class="quiet">Type or paste a text.</p>`}
    ${lost && html`<p class="error" role="alert">The text of this link was too long for an address: paste it here.</p>`}
    ${params.has("held") && !lost && html`<p class="quiet">This text is too long for an address: it stays in this tab, and a link to this view will not have it.</p>`}
  </div>`;
}
