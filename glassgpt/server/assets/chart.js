// A chart of curves with uPlot: labels at the ends of the curves, values where the pointer is, a table for readers.
import { html, useEffect, useLayoutEffect, useRef, useState } from "glass/dom.js";
import { compact, exact, logTicks } from "glass/numbers.js";

const WHOLE = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((size) => size * 10 ** power)).flat();
const TABLE_ROWS = 12;
const LABEL_GAP = 14;  // CSS pixels between two labels at the ends of curves

export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Counts changes of the colours, for pictures that are drawn and not styled.
export function useTheme() {
  const [count, set] = useState(0);
  useEffect(() => {
    const change = () => set((before) => before + 1);
    const media = matchMedia("(prefers-color-scheme: dark)");
    media.addEventListener("change", change);
    addEventListener("themechange", change);
    return () => { media.removeEventListener("change", change); removeEventListener("themechange", change); };
  }, []);
  return count;
}

const font = () => `12px ${css("--sans")}`;

function fitted(context, text, most) {
  if (context.measureText(text).width <= most) return text;
  let short = text;
  while (short.length > 1 && context.measureText(`${short}…`).width > most) short = short.slice(0, -1);
  return `${short}…`;
}

// Text with a rim of the ground's colour, so that it can be read where it crosses a curve.
function write(context, text, x, y) {
  context.save();
  context.setLineDash([]);
  context.lineJoin = "round";
  context.lineWidth = 3 * devicePixelRatio;
  context.strokeStyle = css("--ground");
  context.strokeText(text, x, y);
  context.restore();
  context.fillText(text, x, y);
}

// The highest of the lines that the curve has yet to reach is named at the lower edge.
function drawLines(plot, lines) {
  const { ctx } = plot, { left, top, width, height } = plot.bbox, ratio = devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = css("--quiet");
  ctx.lineWidth = ratio;
  ctx.font = `${12 * ratio}px ${css("--sans")}`;
  ctx.textAlign = "right";
  ctx.setLineDash([3 * ratio, 4 * ratio]);
  const placed = lines.map((line) => ({ ...line, y: plot.valToPos(line.value, "y", true) }));
  const next = placed.filter(({ y }) => y > top + height).sort((a, b) => a.y - b.y)[0];
  if (next) Object.assign(next, { y: top + height, label: `↓ ${next.label}` });
  for (const { y, label } of placed) {
    if (!(y >= top && y <= top + height)) continue;
    if (y < top + height) {
      ctx.beginPath();
      ctx.moveTo(left, y);
      ctx.lineTo(left + width, y);
      ctx.stroke();
    }
    const above = y - top > 20 * ratio;
    ctx.textBaseline = above ? "bottom" : "top";
    write(ctx, fitted(ctx, label, width - 12 * ratio), left + width - 6 * ratio, y + (above ? -3 : 4) * ratio);
  }
  ctx.restore();
}

// The name of each curve at its end, pushed apart where they would cover each other.
function drawEnds(plot, curves, room) {
  const { ctx } = plot, { left, top, width, height } = plot.bbox, ratio = devicePixelRatio;
  const ends = [];
  curves.forEach((curve, i) => {
    if (!curve.end) return;
    const last = plot.data[i + 1]?.findLastIndex((found) => found != null) ?? -1;
    if (last < 0) return;
    ends.push({ curve, x: plot.valToPos(plot.data[0][last], "x", true), y: plot.valToPos(plot.data[i + 1][last], "y", true) });
  });
  ends.sort((a, b) => a.y - b.y);
  const gap = LABEL_GAP * ratio, lowest = top + height;
  ends.forEach((end, i) => { end.at = Math.max(end.y, top + gap / 2, i ? ends[i - 1].at + gap : 0); });
  for (let i = ends.length - 1; i >= 0; i -= 1) ends[i].at = Math.min(ends[i].at, (i < ends.length - 1 ? ends[i + 1].at : lowest + gap / 2) - gap);
  ctx.save();
  ctx.font = `${12 * ratio}px ${css("--sans")}`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  const right = left + width;
  for (const { curve, x, y, at } of ends) {
    ctx.fillStyle = ctx.strokeStyle = curve.color;
    if (right - x > 12 * ratio) {  // a thin line leads from a curve that ends early to its name
      ctx.lineWidth = ratio / 2;
      ctx.beginPath();
      ctx.moveTo(x, y);
      ctx.lineTo(right, at);
      ctx.stroke();
    }
    write(ctx, fitted(ctx, curve.end, (room - 8) * ratio), right + 6 * ratio, at);
  }
  ctx.restore();
}

// Steps that were not applied: crosses at the lower edge.
function drawCrosses(plot, crosses) {
  const { ctx } = plot, { left, top, width, height } = plot.bbox, size = 4 * devicePixelRatio, y = top + height - 2 * size;
  ctx.save();
  ctx.strokeStyle = css("--removed");
  ctx.lineWidth = 2 * devicePixelRatio;
  ctx.beginPath();
  for (const value of crosses) {
    const x = plot.valToPos(value, "x", true);
    if (!(x >= left && x <= left + width)) continue;
    for (const slope of [1, -1]) { ctx.moveTo(x - size, y - slope * size); ctx.lineTo(x + size, y + slope * size); }
  }
  ctx.stroke();
  ctx.restore();
}

function rangeOf(fromZero, log) {
  return (_, low, high) => {
    if (low == null) return log ? [1, 10] : [0, 1];
    if (log) return low < high ? [low / (high / low) ** 0.04, high * (high / low) ** 0.04] : [low / 2, high * 2];
    const space = (high - low || Math.abs(high) || 1) * 0.05;
    return [fromZero && low >= 0 ? 0 : low - space, high + space];
  };
}

function roomFor(curves, width) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = font();
  const widest = Math.max(0, ...curves.filter((curve) => curve.end).map((curve) => context.measureText(curve.end).width));
  return Math.max(16, Math.min(Math.ceil(widest) + 12, width < 560 ? 84 : 150));
}

function options(latest, width, height, show) {
  const { curves, x, logX, logY, fromZero } = latest.current;
  const room = roomFor(curves, width), grid = { stroke: css("--line"), width: 1 };
  const common = { stroke: css("--quiet"), font: font(), grid, ticks: { ...grid, size: 4 } };
  const ticks = (log, count) => log && { splits: (_, __, low, high) => logTicks(low, high, count), filter: (_, found) => found };
  return {
    width, height, padding: [10, room, 0, 0], legend: { show: false },
    scales: {
      x: { time: false, distr: logX ? 3 : 1, range: logX ? (_, low, high) => [low, high] : undefined },
      y: { distr: logY ? 3 : 1, range: rangeOf(fromZero, logY) },
    },
    axes: [
      { ...common, size: 28, space: 56, label: x.label, labelFont: font(), labelSize: 18, labelGap: 0, values: (_, found) => x.format(found),
        incrs: x.steps ?? WHOLE, ...ticks(logX, 6) },
      { ...common, size: 52, values: (_, found) => compact(found), ...ticks(logY, 7) },
    ],
    series: [{}, ...curves.map((curve) => ({
      label: curve.label, stroke: curve.color, width: curve.faint ? 1 : 2, alpha: curve.faint ?? 1,
      points: { show: curve.points ?? false, size: 5, fill: curve.color }, dash: curve.dash,
    }))],
    cursor: {
      y: false, points: { size: 7 },
      drag: { x: !matchMedia("(pointer: coarse)").matches, y: false, setScale: false },
      sync: { key: "runs", scales: ["x", null], filters: { pub: (event) => ["mousemove", "mouseleave"].includes(event) } },
      bind: { dblclick: () => () => { latest.current.onZoom(null, null); } },
    },
    hooks: {
      draw: [(plot) => { drawLines(plot, latest.current.lines ?? []); drawEnds(plot, curves, room); drawCrosses(plot, latest.current.crosses ?? []); }],
      setCursor: [show],
      setSelect: [(plot) => {
        const { left, width: chosen } = plot.select;
        if (chosen < 4) return;
        const [low, high] = [left, left + chosen].map((at) => plot.posToVal(at, "x"));
        plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        latest.current.onZoom(low, high);
      }],
    },
  };
}

// Evenly spaced rows of what is drawn, for those who read and do not look.
function Table({ title, x, curves }) {
  const named = curves.filter((curve) => !curve.faint && curve.data[0].length);
  const longest = named.reduce((found, curve) => (curve.data[0].length > found.length ? curve.data[0] : found), []);
  const count = Math.min(TABLE_ROWS, longest.length);
  const places = Array.from({ length: count }, (_, i) => longest[Math.round(i * (longest.length - 1) / Math.max(1, count - 1))]);
  const near = ([xs, ys], at) => {
    let best = null;
    for (let i = 0; i < xs.length && xs[i] <= at; i += 1) if (ys[i] != null) best = ys[i];
    return best;
  };
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${title}, table"><table>
    <thead><tr><th scope="col" class="number">${x.label}</th>${named.map((curve) => html`<th scope="col" class="number">${curve.label}</th>`)}</tr></thead>
    <tbody>${places.map((at) => html`<tr><th scope="row" class="number">${x.exact(at)}</th>
      ${named.map((curve) => html`<td class="number">${exact(near(curve.data, at))}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

// curves: [{label, color, end?, faint? (its opacity), points?, dash?, data: [x values, y values]}]; lines: [{value, label}];
// crosses: x values; x: {label, steps?, format(ticks), exact(value)};
// onZoom(from, to); version: changes with the data.
export function Chart(props) {
  const { title, curves, lines = [], x, logX, logY, height = 180, describe, theme, version } = props;
  const box = useRef(null), readout = useRef(null), plot = useRef(null), latest = useRef(props), [table, openTable] = useState(false);
  latest.current = props;
  const shape = JSON.stringify([theme, logX, logY, x.label, height, curves.map(({ label, color, end, faint, points }) => [label, color, end, faint, points])]);

  const show = (chart) => {
    const { curves: drawn, x: axis } = latest.current, { idx, idxs } = chart.cursor;
    const parts = drawn.map((curve, i) => {
      if (curve.faint) return null;
      const values = chart.data[i + 1], at = idx == null ? null : idxs[i + 1];
      const value = at == null ? (idx == null ? values?.findLast((found) => found != null) : null) : values[at];
      return value == null ? null : drawn.length === 1 ? exact(value) : `${curve.label} ${exact(value)}`;
    });
    const where = idx == null ? "last" : `${axis.label} ${axis.exact(chart.data[0][idx])}`;
    readout.current.textContent = [where, ...parts.filter(Boolean)].join("  ·  ");
  };

  const made = useRef(false);
  useLayoutEffect(() => {
    plot.current = new uPlot(options(latest, box.current.clientWidth, height, show), uPlot.join(curves.map((curve) => curve.data)), box.current);
    made.current = true;
    show(plot.current);
    const observer = new ResizeObserver(() => {
      const width = box.current.clientWidth;
      if (width > 0 && width !== plot.current.width) plot.current.setSize({ width, height });
    });
    observer.observe(box.current);
    return () => { observer.disconnect(); plot.current.destroy(); };
  }, [shape]);

  useLayoutEffect(() => {
    if (!made.current) plot.current.setData(uPlot.join(curves.map((curve) => curve.data)));
    made.current = false;
    show(plot.current);
  }, [shape, version, JSON.stringify(lines)]);

  return html`<figure class="chart">
    <figcaption class="row spread"><h2>${title}</h2><span ref=${readout} class="quiet readout" aria-hidden="true"></span></figcaption>
    <div ref=${box} role="img" aria-label=${describe} style="min-height: ${height}px"></div>
    <details onToggle=${(event) => openTable(event.currentTarget.open)}><summary>as a table</summary>
      ${table && html`<${Table} title=${title} x=${x} curves=${curves} />`}</details>
  </figure>`;
}
