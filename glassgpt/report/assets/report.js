"use strict";
// Draws the curves with uPlot, and the sample player. The data is in #report-data; the colours are in the style sheet.

const report = JSON.parse(document.getElementById("report-data").textContent);
const $ = (id) => document.getElementById(id);
const css = (name, element = document.documentElement) => getComputedStyle(element).getPropertyValue(name).trim();
const SERIES = 7;
const WHOLE = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((size) => size * 10 ** power)).flat(); // steps
// The first SERIES runs have solid lines and full swatches; the next ones have the same colours and other strokes.
const DASHES = [[], [8, 4], [2, 4], [8, 4, 2, 4]];
const BORDERS = ["solid", "dashed", "dotted", "double"];
const several = report.runs.length > 1;

// --- numbers --------------------------------------------------------------------------------------------------------

// A value that is read: five significant digits.
function exact(value) {
  if (value == null) return "–";
  const size = Math.abs(value);
  if (size >= 10000 || (size >= 1000 && Number.isInteger(value))) return Math.round(value).toLocaleString("en");
  return size > 0 && size < 0.001 ? value.toExponential(3) : String(Number(value.toPrecision(5)));
}

// All labels of an axis have one unit, that of its largest.
function labels(ticks) {
  const largest = Math.max(...ticks.map(Math.abs));
  const [unit, letter] = [[1e9, " G"], [1e6, " M"], [1e3, " k"]].find(([size]) => largest >= 10 * size) ?? [1, ""];
  return ticks.map((value) => {
    const size = Math.abs(value);
    if (size > 0 && size < 0.001) return value.toExponential().replace("e-", "e−");
    return `${Number((value / unit).toPrecision(4))}${value === 0 ? "" : letter}`;
  });
}

// Round values between `low` and `high`, about `count` of them: 1, 2 and 5 times powers of ten, or equal distances if
// the range is less than a decade.
function logTicks(low, high, count) {
  if (high / low < 10) {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((size) => size * power).find((size) => size >= rough);
    const ticks = [];
    for (let i = Math.ceil(low / step); i * step <= high; i += 1) ticks.push(i * step);
    return ticks;
  }
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power += 1) {
    const sizes = high / low < 1000 ? [1, 2, 5] : [1];
    ticks.push(...sizes.map((size) => size * 10 ** power).filter((tick) => tick >= low && tick <= high));
  }
  return ticks;
}

// --- curves ---------------------------------------------------------------------------------------------------------

const plots = new Map(); // from the id of a chart to its uPlot
const hidden = new Set(); // the runs that are not drawn
const cells = new Map(); // of the legend of several runs: from `run chart` to its cell
let pointedAt; // its place for the x value at the pointer

function color(index) {
  return css(`--series-${index % SERIES}`);
}

// The points that can be drawn: a logarithmic axis cannot show zero.
function points(curve, axis, logX, logY) {
  const x = [], y = [];
  (curve.x[axis] ?? []).forEach((at, i) => {
    if (at === null || (logX && at <= 0)) return;
    x.push(at);
    y.push(logY && curve.y[i] <= 0 ? null : curve.y[i]);
  });
  return [x, y];
}

// With one run, training and validation have different colours. With several, each run has a colour.
function series(curve, chart, table) {
  const validation = curve.style === "validation";
  const stroke = curve.style === "skipped" ? css("--alarm") : color(several ? curve.run : validation ? 1 : 0);
  const last = table[1].findLast((value) => value !== null);
  const base = {
    label: curve.name, stroke, width: 2, points: { show: false }, show: !hidden.has(curve.run),
    dash: DASHES[Math.floor(curve.run / SERIES) % DASHES.length],
    value: (_, value, __, index) => exact(index === null ? last : value), // the last one while nothing is pointed at
  };
  if (curve.style === "faint") return { ...base, width: 1, alpha: 0.28, class: "unlisted", dash: [] };
  if (validation) return { ...base, points: { show: true, size: curve.y.length > 60 ? 3 : 7, fill: stroke } };
  if (curve.style === "skipped") {
    const reasons = new Map(table[0].map((x, i) => [x, curve.text[i]]));
    const said = (plot, index) => (index === null ? `${curve.text.length} ${several ? "skipped" : "in all"}` : reasons.get(plot.data[0][index]));
    return { ...base, paths: () => null, value: (plot, _, __, index) => said(plot, index) };
  }
  return { ...base, width: several && chart.loss ? 1 : 2, points: { show: table[0].length === 1, fill: stroke } };
}

function dashedLine(plot, from, to, ink) {
  const { ctx } = plot;
  ctx.save();
  ctx.strokeStyle = ink;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([3 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(...from);
  ctx.lineTo(...to);
  ctx.stroke();
  ctx.restore();
}

// Labelled horizontal lines, such as the loss of a model that knows nothing, and the step of the sample shown. The
// highest of those that the curve has yet to reach is named at the lower edge.
function drawMarks(plot, chart, axis) {
  const { left, top, width, height } = plot.bbox, ink = css("--quiet"), { ctx } = plot;
  const lines = chart.lines.map((line) => ({ ...line, y: plot.valToPos(line.value, "y", true) }));
  const next = lines.filter(({ y }) => y > top + height).sort((a, b) => a.y - b.y)[0];
  if (next) Object.assign(next, { y: top + height, label: `↓ ${next.label}` });
  for (const { y, label } of lines) {
    if (!(y >= top && y <= top + height)) continue;
    if (y < top + height) dashedLine(plot, [left, y], [left + width, y], ink);
    ctx.save();
    ctx.font = `${12 * devicePixelRatio}px ${css("--text")}`;
    ctx.fillStyle = ink;
    ctx.textAlign = "right";
    const above = y - top > 20 * devicePixelRatio;
    ctx.textBaseline = above ? "bottom" : "top";
    ctx.fillText(label, left + width - 6 * devicePixelRatio, y + (above ? -3 : 4) * devicePixelRatio);
    ctx.restore();
  }
  const at = chart.loss && !showsAll() ? report.sample_at?.[axis]?.[shown] : null;
  if (at == null || at < plot.scales.x.min || at > plot.scales.x.max) return;
  const x = plot.valToPos(at, "x", true);
  dashedLine(plot, [x, top], [x, top + height], ink);
}

// A cross for each step that was not applied.
function drawCrosses(plot, chart) {
  const { ctx } = plot, size = 4 * devicePixelRatio;
  chart.curves.forEach((curve, i) => {
    if (curve.style !== "skipped" || !plot.series[i + 1].show) return;
    ctx.save();
    ctx.beginPath();
    ctx.rect(plot.bbox.left - size, plot.bbox.top - size, plot.bbox.width + 2 * size, plot.bbox.height + 2 * size);
    ctx.clip();
    ctx.strokeStyle = css("--alarm");
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.beginPath();
    plot.data[i + 1].forEach((value, index) => {
      if (value == null) return;
      const x = plot.valToPos(plot.data[0][index], "x", true), y = plot.valToPos(value, "y", true);
      for (const slope of [1, -1]) {
        ctx.moveTo(x - size, y - slope * size);
        ctx.lineTo(x + size, y + slope * size);
      }
    });
    ctx.stroke();
    ctx.restore();
  });
}

function rangeOf(chart, log) {
  return (_, low, high) => {
    if (low == null) return log ? [1, 10] : [0, 1];
    if (log) return low < high ? [low / (high / low) ** 0.04, high * (high / low) ** 0.04] : [low / 2, high * 2];
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    return [chart.from_zero && low >= 0 ? 0 : low - room, high + room];
  };
}

function options(chart, tables, axis, logX, logY) {
  const element = $(chart.id), ink = css("--quiet"), font = `12px ${css("--text")}`;
  const lines = { stroke: css("--line"), width: 1 };
  const common = { stroke: ink, font, grid: lines, ticks: { ...lines, size: 4 }, values: (_, ticks) => labels(ticks) };
  const ticks = (log, count) => log && { splits: (_, __, low, high) => logTicks(low, high, count), filter: (_, found) => found };
  return {
    width: element.clientWidth,
    height: parseFloat(css("--plot-height", element)),
    padding: [12, 24, 0, 0],
    scales: {
      x: { time: false, distr: logX ? 3 : 1, range: logX ? (_, low, high) => [low, high] : undefined },
      y: { distr: logY ? 3 : 1, range: rangeOf(chart, logY) },
    },
    axes: [
      { ...common, size: 28, space: 80, label: report.axes[axis], labelFont: font, labelSize: 18, labelGap: 0,
        ...(axis === "step" && { incrs: WHOLE }), ...ticks(logX, 6) },
      { ...common, size: 56, ...ticks(logY, 7) },
    ],
    series: [
      { label: report.axes[axis], value: (plot, value, _, index) => exact(index === null ? plot.data[0].at(-1) : value) },
      ...chart.curves.map((curve, i) => series(curve, chart, tables[i])),
    ],
    legend: { show: !several },
    // Pointing at one chart points at the same step of all; on touch screens, dragging scrolls the page.
    cursor: {
      y: false,
      drag: { x: !matchMedia("(pointer: coarse)").matches, y: false },
      sync: { key: "report", filters: { pub: (event) => ["mousemove", "mouseleave"].includes(event) } },
      points: { size: 7 },
    },
    hooks: {
      drawAxes: [(plot) => drawMarks(plot, chart, axis)],
      draw: [(plot) => drawCrosses(plot, chart)],
      setCursor: [(plot) => several && showValues(plot, chart)],
      setScale: [(plot, scale) => scale === "x" && linkZoom(plot)],
    },
  };
}

// Zooming in one chart zooms all of them; the double click that zooms out gives each its own whole range.
function linkZoom(plot) {
  const { min, max } = plot.scales.x;
  for (const other of plots.values()) {
    if (other !== plot && (other.scales.x.min !== min || other.scales.x.max !== max)) other.setScale("x", { min, max });
  }
}

function draw() {
  for (const plot of plots.values()) plot.destroy();
  plots.clear();
  const axis = $("axis").value, logX = $("log-x").checked;
  const drawn = report.charts.map((chart) => {
    const logY = chart.loss && $("log-y").checked;
    const tables = chart.curves.map((curve) => points(curve, axis, logX, logY));
    return [chart.id, new uPlot(options(chart, tables, axis, logX, logY), uPlot.join(tables), $(chart.id))];
  });
  for (const [id, plot] of drawn) plots.set(id, plot);
  paintSwatches();
}

function fit() {
  for (const [id, plot] of plots) {
    const size = { width: $(id).clientWidth, height: parseFloat(css("--plot-height", $(id))) };
    if (size.width !== plot.width || size.height !== plot.height) plot.setSize(size);
  }
}

function paintSwatches() {
  for (const swatch of document.querySelectorAll(".swatch")) {
    const run = Number(swatch.dataset.run), stroke = Math.floor(run / SERIES) % DASHES.length;
    swatch.style.background = stroke === 0 ? color(run) : "none";
    swatch.style.border = `${stroke === 3 ? 3 : 2}px ${BORDERS[stroke]} ${color(run)}`;
  }
}

// --- the legend of several runs -------------------------------------------------------------------------------------

// One table for all charts: a row for each run, with its values where the pointer is, or its last ones.
function startLegend() {
  const add = (parent, tag, text = "") => {
    const element = parent.appendChild(document.createElement(tag));
    element.textContent = text;
    return element;
  };
  const columns = report.charts.flatMap(({ id, title, loss }) =>
    loss ? [[id, "Training loss"], [`${id} validation`, "Validation loss"]] : [[id, title]]);
  const check = (cell, text, run) => {
    const label = add(cell, "label"), box = add(label, "input");
    Object.assign(box, { type: "checkbox", checked: true });
    if (run !== undefined) Object.assign(add(label, "span"), { className: "swatch" }).dataset.run = run;
    add(label, "span", text);
    return box;
  };
  const head = add(add($("runs"), "thead"), "tr"), body = add($("runs"), "tbody");
  const all = check(add(head, "th"), "all runs");
  pointedAt = Object.assign(add(head.firstChild, "span"), { className: "pointed-at" });
  for (const [, title] of columns) add(head, "th", title);
  const boxes = report.runs.map((name, run) => {
    const row = add(body, "tr"), box = check(add(row, "th"), name, run);
    for (const [id, title] of columns) {
      cells.set(`${run} ${id}`, add(row, "td", "–"));
      row.lastChild.dataset.column = title;
    }
    box.addEventListener("change", () => {
      showRun(run, box.checked);
      all.checked = hidden.size === 0;
    });
    return box;
  });
  all.addEventListener("change", () => boxes.forEach((box, run) => {
    box.checked = all.checked;
    showRun(run, box.checked);
  }));
}

function showRun(run, show) {
  if (show) hidden.delete(run);
  else hidden.add(run);
  for (const { id, curves } of report.charts) {
    const plot = plots.get(id);
    plot.batch(() => curves.forEach((curve, i) => curve.run === run && plot.setSeries(i + 1, { show })));
  }
}

// A skipped step stands beside the training loss.
function showValues(plot, chart) {
  const found = new Map();
  chart.curves.forEach((curve, i) => {
    const at = plot.cursor.idxs?.[i + 1] ?? null, { value } = plot.series[i + 1];
    const text = value(plot, at === null ? null : plot.data[i + 1][at], i + 1, at);
    const cell = `${curve.run} ${chart.id}${curve.style === "validation" ? " validation" : ""}`;
    found.set(cell, found.has(cell) ? `${found.get(cell)}, ${text}` : text);
  });
  for (const [cell, text] of found) cells.get(cell).textContent = text;
  const { idx } = plot.cursor;
  pointedAt.textContent = idx == null ? "" : `${plot.series[0].label}: ${exact(plot.data[0][idx])}`;
}

// --- samples --------------------------------------------------------------------------------------------------------

const samples = [...document.querySelectorAll(".film .sample")];
let shown = samples.length - 1;

function showsAll() {
  return $("all-samples")?.checked ?? true;
}

function show(index) {
  shown = Math.max(0, Math.min(samples.length - 1, index));
  const all = showsAll();
  samples.forEach((sample, i) => { sample.hidden = !all && i !== shown; });
  document.querySelector(".film").classList.toggle("one-at-a-time", !all);
  $("slider").value = shown;
  $("slider").setAttribute("aria-valuetext", samples[shown].querySelector("header").textContent);
  $("earlier").disabled = all || shown === 0;
  $("later").disabled = all || shown === samples.length - 1;
  $("slider").disabled = all;
  for (const plot of plots.values()) plot.redraw(false, false);
}

function startFilm() {
  if (samples.length < 2) return;
  $("player").hidden = false;
  // Use the height of the longest sample, so that the page does not jump between samples.
  const tallest = Math.max(...samples.map((sample) => sample.querySelector("pre").scrollHeight));
  document.querySelector(".film").style.setProperty("--tallest", `${tallest}px`);
  $("slider").max = samples.length - 1;
  $("slider").addEventListener("input", () => show(Number($("slider").value)));
  $("earlier").addEventListener("click", () => show(shown - 1));
  $("later").addEventListener("click", () => show(shown + 1));
  $("all-samples").addEventListener("change", () => show(shown));
  show(shown);
}

// --- start ----------------------------------------------------------------------------------------------------------

if (report.charts.length > 0) {
  if (several) startLegend();
  draw();
  for (const id of ["axis", "log-x", "log-y"]) $(id).addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("resize", fit);
}
startFilm();
paintSwatches();
