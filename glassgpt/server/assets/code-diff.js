// Two versions of a file as one: what was removed, what was added, and a little around it.
import { html, useState } from "glass/dom.js";
import { count } from "glass/numbers.js";

const AROUND = 2;  // unchanged lines that are shown before and after a change
const SIGNS = { added: "+", removed: "−", same: " " };

const counts = (line) => line.kind !== "same" && !line.aside && line.text.trim() !== "";

// Lines in groups: {lines, folded}. What is removed but says nothing about the code, such as a docstring, is left out.
function folded(lines) {
  const shown = lines.filter((line) => !(line.aside && line.kind === "removed"));
  const visible = new Uint8Array(shown.length), changes = shown.some(counts);
  if (!changes) visible.fill(1, shown.findIndex((line) => /^(class|def) /.test(line.text)));
  shown.forEach((line, i) => {
    if (counts(line)) visible.fill(1, Math.max(0, i - AROUND), i + AROUND + 1);
  });
  const bare = (i) => visible[i] && shown[i].kind === "same" && shown[i].text.trim() === "";
  for (let i = 0; changes && i < shown.length; i += 1) if (bare(i) && !visible[i - 1]) visible[i] = 0;  // no blank line begins
  for (let i = shown.length - 1; changes && i >= 0; i -= 1) if (bare(i) && !visible[i + 1]) visible[i] = 0;  // or ends a part
  const groups = [];
  shown.forEach((line, i) => {
    if (!groups.length || groups.at(-1).folded !== !visible[i]) groups.push({ folded: !visible[i], lines: [] });
    groups.at(-1).lines.push(line);
  });
  for (const group of groups) if (group.lines.length === 1) group.folded = false;  // as long as the line that hides it
  return groups;
}

function hidden(lines) {
  if (lines.every((line) => line.aside || line.text.trim() === "")) return "of docstring and imports";
  return lines.every((line) => line.kind === "same") ? "as before" : "without a change of the code";
}

// The text with the words that changed marked.
function words({ text, changed }) {
  const parts = [];
  let at = 0;
  for (const [from, to] of changed) {
    parts.push(text.slice(at, from), html`<b>${text.slice(from, to)}</b>`);
    at = to;
  }
  return [...parts, text.slice(at)];
}

function Line({ line, whole }) {
  const kind = line.aside && !whole ? "same" : line.kind, tag = { added: "ins", removed: "del", same: "span" }[kind];
  return html`<div class="line ${kind}${line.aside ? " aside" : ""}">
    <span class="place" aria-hidden="true">${line.new ?? ""}</span><span class="sign" aria-hidden="true">${SIGNS[kind]}</span>
    <${tag}>${kind === "same" ? line.text : words(line)}</${tag}></div>`;
}

export function CodeDiff({ section, before }) {
  const [open, set] = useState(new Set()), [whole, showWhole] = useState(false);
  const groups = whole ? [{ folded: false, lines: section.lines }] : folded(section.lines);
  const title = before === null ? "The code" : `What changes in the code, from ${before.name} to ${section.name}`;
  return html`<section class="panel" aria-label="Code">
    <div class="row spread"><h2>${title}</h2>
      <span class="row">${before !== null && html`<span class="quiet">lines: <span class="better">+${count(section.n_added)}</span> <span class="worse">−${count(section.n_removed)}</span></span>`}
        <button aria-pressed=${whole} onClick=${() => showWhole(!whole)}>the whole file</button></span></div>
    <div class="code scroll" tabindex="0" role="region" aria-label="Code of ${section.file}"><div>
      ${groups.map((group, i) => (group.folded && !open.has(i)
        ? html`<button key=${`fold ${i}`} class="fold" onClick=${() => set(new Set([...open, i]))}>⋯ ${count(group.lines.length)} lines ${hidden(group.lines)}</button>`
        : group.lines.map((line) => html`<${Line} key=${`${line.old} ${line.new}`} line=${line} whole=${whole} />`)))}
    </div></div>
    <p class="quiet hint"><code>${section.file}</code>, ${count(section.n_lines)} lines${!whole && before !== null ? ". Docstrings, imports and the model's name change too; “the whole file” shows them." : ""}</p>
  </section>`;
}
