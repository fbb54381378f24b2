import { html } from "glass/dom.js";

export function Runs() {
  return html`<h1>How does it learn?</h1>`;
}
