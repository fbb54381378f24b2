// Which tokens are alike to the chosen one: the nearest by their embeddings, and a map whose axes stay still in the film.
import { html, useLayoutEffect, useRef, useState } from "glass/dom.js";
import { useAnswer } from "glass/api.js";
import { change } from "glass/state.js";
import { fixed, percent, quoted, visible } from "glass/text.js";

const MARGIN = 28;  // pixels around the points, for their labels
const MOST_HIGH = 480;
const LINE = 14;  // the height of a label
const LETTER = 7.4, BOLD = 8.8;  // the width of a letter

export function Alike({ question }) {
  const { answer, error } = useAnswer("/api/embedding", question);
  return html`<section class="panel wide" aria-label="Which tokens are alike to it?" id="alike">
    <h2>which tokens are alike to ${answer && !error ? quoted(nameIn(answer.meta, answer.meta.id)) : "it"}?</h2>
    ${error && html`<p class="quiet">${error}</p>`}
    ${answer && !error && html`<${Shown} answer=${answer} axes=${question.axes} />`}</section>`;
}

const nameIn = (meta, id) => meta.names[id] ?? { text: `id ${id}` };

function Shown({ answer, axes }) {
  const { meta, arrays } = answer;
  const name = (id) => nameIn(meta, id);
  const near = [...arrays.near_ids.data];
  const similarities = arrays.similarities.data;
  return html`
    <p>${near.length === 0 ? "There is no other token." : html`The embedding most like that of <b class="mono">${quoted(name(meta.id))}</b> is that of
      ${" "}<b class="mono">${quoted(name(near[0]))}</b>: their cosine similarity is ${fixed(similarities[0])}.`}</p>
    <div class="alike">
      <table class="nearest"><thead><tr><th scope="col">token</th><th></th><th class="number" scope="col">cosine similarity</th></tr></thead>
        <tbody>${near.map((id, rank) => html`<tr key=${rank}>
          <th scope="row"><button class="plain mono" onClick=${() => change({ alike: id })} title="the tokens that are alike to this one">${visible(name(id))}</button></th>
          <td class="bar"><span style=${`width: ${100 * Math.max(0, similarities[rank])}%`}></span></td>
          <td class="number">${fixed(similarities[rank])}</td></tr>`)}</tbody></table>
      <${Map2d} ...${{ arrays, chosen: meta.id, near, name }} />
    </div>
    <p class="quiet">${arrays.ids.data.length === meta.vocabulary ? `All ${meta.vocabulary} tokens` : `The token and the ${arrays.ids.data.length - 1} tokens nearest to it at step ${axes}`},
      ${" "}by their embeddings. The axes are the two directions in which these embeddings differ most at step ${axes}; they are the
      same at every checkpoint, so that only the tokens move. The edges say what share of all differences each axis shows.</p>`;
}

function Map2d({ arrays, chosen, near, name }) {
  const figure = useRef(null);
  const [width, setWidth] = useState(480);
  useLayoutEffect(() => {
    const fit = () => setWidth(Math.max(200, Math.round(figure.current.getBoundingClientRect().width)));
    fit();  // at once: an observer would first let the map be seen at another width
    const observer = new ResizeObserver(fit);
    observer.observe(figure.current);
    return () => observer.disconnect();
  }, []);
  const ids = arrays.ids.data;
  const points = arrays.points.data;
  // The picture shows the frame of the axes' checkpoint, and more only where a point would be outside.
  const [[left, right], [low, high]] = [0, 1].map((axis) => {
    let [from, to] = arrays.frame.data.subarray(2 * axis, 2 * axis + 2);
    for (let at = axis; at < points.length; at += 2) [from, to] = [Math.min(from, points[at]), Math.max(to, points[at])];
    return [from, to];
  });
  const inner = width - 2 * MARGIN;
  const height = Math.round(Math.max(200, Math.min(width, MOST_HIGH, 2 * MARGIN + inner * (high - low) / (right - left || 1))));
  const scale = Math.min(inner / (right - left || 1), (height - 2 * MARGIN) / (high - low || 1));  // the same for both axes
  const x = (value) => width / 2 + scale * (value - (left + right) / 2);
  const y = (value) => height / 2 - scale * (value - (low + high) / 2);
  const rank = new Map([chosen, ...near].map((id, at) => [id, at]));
  const marks = Array.from(ids, (id, at) => ({ id, x: x(points[2 * at]), y: y(points[2 * at + 1]),
    text: visible(name(id)), rank: rank.get(id) ?? Infinity }));
  const labelled = withRoom(marks, width);
  const drawn = [...marks.filter(({ rank }) => rank > 0), ...marks.filter(({ rank }) => rank === 0)];  // nothing covers the chosen one
  const kind = ({ rank }) => (rank === 0 ? "chosen" : rank < Infinity ? "near" : "other");
  return html`<figure class="map2d" ref=${figure}>
    <svg width=${width} height=${height} role="img" aria-label=${`Map of ${ids.length} embeddings. Nearest to ${visible(name(chosen))}: ${near.slice(0, 5).map((id) => visible(name(id))).join(", ")}`}>
      <line class="axis" x1="0" x2=${width} y1=${y(0)} y2=${y(0)} /><line class="axis" y1="0" y2=${height} x1=${x(0)} x2=${x(0)} />
      <text class="unit" x=${width - 6} y=${height - 8}>across: ${percent(arrays.shares.data[0])} of the variance</text>
      <text class="unit" transform="translate(14, 6) rotate(-90)">up: ${percent(arrays.shares.data[1])} of the variance</text>
      ${drawn.map((mark) => html`<g key=${mark.id} class=${kind(mark)} style=${`transform: translate(${mark.x.toFixed(1)}px, ${mark.y.toFixed(1)}px)`}>
        <title>${mark.text}</title>
        ${labelled.has(mark.id) ? html`<text dy="0.35em">${mark.text}</text>` : html`<circle r="2" />`}</g>`)}
    </svg></figure>`;
}

// The tokens whose labels have room: first the chosen one, then the nearest, then the others in the order of their ids.
function withRoom(marks, width) {
  const boxes = [];
  const found = new Set();
  for (const mark of [...marks].sort((a, b) => (a.rank === b.rank ? a.id - b.id : a.rank - b.rank))) {
    const half = (mark.rank < Infinity ? BOLD : LETTER) * [...mark.text].length / 2 + 2;
    const box = [mark.x - half, mark.x + half, mark.y - LINE / 2, mark.y + LINE / 2];
    const free = box[0] >= 0 && box[1] <= width && boxes.every((other) => box[1] < other[0] || box[0] > other[1] || box[3] < other[2] || box[2] > other[3]);
    if (mark.rank > 0 && !free) continue;
    boxes.push(box);
    found.add(mark.id);
  }
  return found;
}
