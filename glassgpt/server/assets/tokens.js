// Tokens: how does a text become numbers? One text through several tokenizers, and how a word is built, merge by merge.
import { html, useMemo, useState } from "glass/dom.js";
import { useAnswer } from "glass/api.js";
import { keyOf } from "glass/record.js";
import { change } from "glass/state.js";
import { quoted, spoken, visible } from "glass/text.js";
import { TextField, useText } from "glass/text-field.js";
import { TokenStrip, TokenText } from "glass/token-strip.js";

const EXAMPLES = [
  ["a sentence", "Before we proceed any further, hear me speak unbelievably well.\n"],
  ["numbers", "In 2026, 1,234,567 + 89 = 1,234,656."],
  ["code", "def double(number):\n    return 2 * number  # twice\n"],
  ["Chinese", "你好，世界。今天天气很好。"],
  ["emoji", "naïve café 👩‍🚀 🇪🇺 😀"],
];
const TINTS = 4;
const bytesOf = (text) => new TextEncoder().encode(text);
const many = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

export function Tokens({ run, params }) {
  const { text, lost } = useText(params, EXAMPLES[0][1]);
  const { answer, answered, error } = useAnswer(text ? "/api/tokens" : null, { text, run: run?.id ?? null });
  return html`
    <div><h1>How does a text become numbers?</h1>
      <p>${text && answer && !error ? summary(answer) : "A tokenizer cuts it into tokens, and each token has a number, its id."}</p></div>
    <${TextField} ...${{ text, lost, params, forget: ["pick", "token"], examples: EXAMPLES }} />
    ${error && text && html`<p class="error" role="alert">${error}</p>`}
    ${text && answer && !error && html`<${SideBySide} ...${{ answer, answered, params }} />`}`;
}

function summary({ letters, bytes, tokenizers }) {
  const counted = shownOf(tokenizers).filter((entry) => entry.count !== undefined);
  const counts = counted.map(({ label, count }, index) => `${index ? count.toLocaleString("en") : many(count, "token")} for ${label}`);
  const list = counts.length > 1 ? `${counts.slice(0, -1).join(", ")} and ${counts.at(-1)}` : counts.join("");
  return `This text of ${many(letters, "character")}${bytes === letters ? "" : ` (${many(bytes, "byte")})`} is ${list}.`;
}

// A run of characters has the same tokens as the tokenizer of characters, which is then left out.
function shownOf(tokenizers) {
  const own = tokenizers.find(({ name }) => name === "run");
  return tokenizers.filter(({ name }) => name !== "char" || own?.kind !== "char");
}

// `answered`: the question of this answer, {text, run}; the address may already ask another.
function SideBySide({ answer, answered, params }) {
  const [pointed, point] = useState(null);  // {name, index} of the token under the pointer
  const shown = useMemo(() => shownOf(answer.tokenizers).map((entry) => ({ ...entry, starts: entry.sizes && startsOf(entry.sizes) })), [answer]);
  const [name, index] = (params.get("pick") ?? "").split(":");
  const chosen = /^\d{1,6}$/.test(index ?? "") ? { name, index: Number(index) } : null;
  const range = rangeOf(shown, pointed) ?? rangeOf(shown, chosen);
  const source = pointed?.name ?? chosen?.name;
  const withIds = params.has("ids");
  return html`
    <div class="row"><button aria-pressed=${withIds} onClick=${() => change({ ids: withIds ? null : 1 })}>ids</button>
      <span class="quiet">Choose a token: the others show the same bytes, and a BPE shows how its word is built.</span></div>
    <div class="tokenizers">
      ${shown.map((entry) => {
        const index = chosen?.name === entry.name && chosen.index < entry.tokens?.length ? chosen.index : null;
        return html`<${Tokenizer} key=${entry.name} ...${{
          entry, withIds, most: answer.most_tokens, bytes: answer.bytes, chosen: index,
          marked: range && entry.name !== source ? within(entry, range) : null,
          onPoint: (index) => point(index === null ? null : { name: entry.name, index }),
        }} />${index !== null && html`<${Chosen} key="chosen" ...${{ entry, ...answered, index }} />`}`;
      })}
    </div>`;
}

function startsOf(sizes) {
  const starts = [0];
  for (const size of sizes) starts.push(starts.at(-1) + size);
  return starts;
}

// The bytes [from, to) of a token.
function rangeOf(shown, place) {
  const starts = place && shown.find(({ name }) => name === place.name)?.starts;
  return starts && place.index < starts.length - 1 ? [starts[place.index], starts[place.index + 1]] : null;
}

// The tokens that have some of these bytes.
function within({ starts, tokens }, [from, to]) {
  if (!starts) return null;
  const found = new Set();
  for (let index = 0; index < tokens.length; index++) if (starts[index] < to && starts[index + 1] > from) found.add(index);
  return found;
}

function Tokenizer({ entry, withIds, most, bytes, chosen, marked, onPoint }) {
  const title = html`<h2>${entry.label}${entry.kind && entry.name === "run" && `, ${entry.kind}`}</h2>`;
  if (!entry.available) return html`<section class="panel missing">${title}<p class="quiet">Not at hand: ${entry.how}.</p></section>`;
  if (entry.problem) return html`<section class="panel">${title}<p class="error">No tokens: ${entry.problem}.</p></section>`;
  return html`<section class="panel" aria-label=${entry.label}>${title}
    <p class="figures"><b>${many(entry.count, "token")}</b> <span class="quiet">· ${(bytes / entry.count).toFixed(2)} bytes each ·
      ${" "}${entry.name === "char" ? `the ${many(entry.vocab_size, "character")} of this text` : `out of ${many(entry.vocab_size, "id")}`}</span></p>
    <${Strip} ...${{ entry, withIds, chosen, marked, onPoint }} />
    ${entry.count > most && html`<p class="quiet">The first ${most.toLocaleString("en")} tokens are shown; all are counted.</p>`}
  </section>`;
}

function Strip({ entry, withIds, chosen, marked, onPoint }) {
  const { tokens, name, label } = entry;
  const colours = useMemo(() => tokens.map((_, index) => `var(--tint-${index % TINTS})`), [tokens]);
  const captions = useMemo(() => (withIds ? tokens.map(({ id }) => id) : null), [tokens, withIds]);
  return html`<${TokenStrip} ...${{ tokens, colours, captions, chosen, marked, onPoint }} label=${`Tokens of ${label}`}
    onChoose=${(index) => change({ pick: `${name}:${index}` })} />`;
}

const hex = (data) => [...data].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

function Chosen({ entry, text, run, index }) {
  const token = entry.tokens[index];
  const data = token.bytes ?? hex(bytesOf(token.text));
  const size = data ? data.split(" ").length : 0;
  const word = entry.words && entry.starts ? wordAt(text, entry.words, entry.starts[index]) : null;
  return html`<section class="panel chosen" aria-label="The chosen token" aria-live="polite"><h2>${entry.label}</h2>
    <p><b class="mono">${quoted(token)}</b> has id <b>${token.id.toLocaleString("en")}</b>, and ${many(size, "byte")}: <span class="mono">${data}</span>${token.bytes && ", which are no whole character"}.</p>
    ${word && html`<${Merges} ...${{ entry, word, run }} />`}</section>`;
}

// The word that has a byte of the text, by the bytes at which words start.
function wordAt(text, starts, place) {
  let last = 0;
  while (last + 1 < starts.length && starts[last + 1] <= place) last++;
  const data = bytesOf(text);
  const following = starts[last + 1] ?? data.length;
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(data.subarray(starts[last], following));
}

function Merges({ entry, word, run }) {
  const question = { text: word, name: entry.name, run };
  const { answer, answered, error, refused } = useAnswer("/api/merges", question);
  const isThis = (other) => keyOf("", other) === keyOf("", question);
  const title = html`<h3>how the word <span class="mono">${quoted({ text: word })}</span> is built</h3>`;
  if (error && isThis(refused)) return html`${title}<p class="quiet">${error}</p>`;
  if (!answer || !isThis(answered)) return title;
  const { steps } = answer;
  return html`${title}
    <p class="quiet">It begins as ${many(steps[0].parts.length, "byte")}. ${steps.length > 1
      ? "Each step merges the pair whose token has the lowest id, the small number between two parts: it was learned first."
      : "No pair of them is a token."}</p>
    <ol class="merges" start="0">${steps.map((step, number) => html`<${Step} key=${number} step=${step} before=${steps[number - 1]} />`)}</ol>`;
}

function Step({ step, before }) {
  const { parts, ranks, place } = step;
  const looked = before && before.place === null;
  const next = place === null ? `${many(parts.length, "token")}: ${parts.map(({ id }) => id).join(", ")}`
    : `merge ${spoken(parts[place])} and ${spoken(parts[place + 1])}, id ${ranks[place]}`;
  return html`<li><span class="sr-only">${parts.map(spoken).join(", ")}; ${next}</span>
    <span class="parts" aria-hidden="true">${parts.map((part, index) => html`
      <span class=${partClass(index, place, before)} title=${`${visible(part)}  id ${part.id}`}><${TokenText} token=${part} /></span>
      ${index < ranks.length && html`<small class=${index === place ? "next" : ""}>${ranks[index] ?? ""}</small>`}`)}
      ${looked && html`<span class="quiet">the whole word is in the vocabulary</span>`}
      ${place === null && html`<span class="quiet">${parts.length === 1 ? "id" : "ids"} ${parts.map(({ id }) => id).join(", ")}</span>`}
    </span></li>`;
}

function partClass(index, place, before) {
  if (place !== null && (index === place || index === place + 1)) return "part next";
  return before?.place === index ? "part made" : "part";
}
