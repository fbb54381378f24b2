"use strict";
// Draws the curves and the sample player. The data is in #report-data; the colours are defined in the style sheet.

const report = JSON.parse(document.getElementById("report-data").textContent);
const $ = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const SERIES = 7;
const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star"];

// --- curves ---------------------------------------------------------------------------------------------------------

// Plotly interprets some HTML tags in labels; escape them, because run names are plain text.
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

function color(index) {
  return css(`--series-${index % SERIES}`);
}

// A logarithmic axis cannot show zero: leave the point out.
function positions(curve, axis) {
  const x = curve.x[axis] ?? [];
  return $("log-x").checked ? x.map((value) => (value > 0 ? value : null)) : x;
}

// With one run, training and validation have different colours. With several, each run has a colour and one legend entry.
function trace(curve, axis, chart) {
  const several = report.runs.length > 1;
  const validation = curve.style === "validation";
  const base = {
    name: plain(curve.name), x: positions(curve, axis), y: curve.y, type: "scatter", mode: "lines",
    hovertemplate: "%{y:.5~g}",
    ...(several && { legendgroup: `run-${curve.run}`, showlegend: false }),
  };
  const ink = color(several ? curve.run : validation ? 1 : 0);
  const dash = DASHES[Math.floor(curve.run / SERIES) % DASHES.length];
  if (curve.style === "faint") {
    return { ...base, line: { color: ink, width: 1 }, opacity: 0.28, hoverinfo: "skip", hovertemplate: null,
      showlegend: false };
  }
  if (validation) {
    const marker = { color: ink, size: curve.y.length > 60 ? 3 : 7, symbol: SYMBOLS[curve.run % SYMBOLS.length] };
    return { ...base, mode: "lines+markers", line: { color: ink, width: 2, dash }, marker };
  }
  if (curve.style === "skipped") {
    const marker = { color: css("--alarm"), size: 11, symbol: "x" };
    return { ...base, mode: "markers", marker, text: curve.text.map(plain), hovertemplate: "%{text}" };
  }
  return { ...base, line: { color: ink, width: several && chart.loss ? 1 : 2, dash } };
}

// The legend entry of a run: a curve without points that represents all curves of the run.
function legendEntry(name, run) {
  const marker = { color: color(run), size: 7, symbol: SYMBOLS[run % SYMBOLS.length] };
  const dash = DASHES[Math.floor(run / SERIES) % DASHES.length];
  return { name: plain(name), x: [null], y: [null], type: "scatter", mode: "lines+markers", marker,
    line: { color: color(run), width: 2, dash }, legendgroup: `run-${run}` };
}

function layout(chart, axis, logX, logY) {
  const scale = { gridcolor: css("--line"), linecolor: css("--line"), zerolinecolor: css("--line"), automargin: true };
  return {
    font: { family: css("--text"), size: 13, color: css("--quiet") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 48, r: 12, t: 8, b: 40 },
    xaxis: { ...scale, title: { text: report.axes[axis], standoff: 8, font: { size: 12 } }, type: logX ? "log" : "linear", dtick: logX ? 1 : null,
      exponentformat: "B" },
    yaxis: { ...scale, type: logY && chart.loss ? "log" : "linear", tickformat: chart.ticks,
      rangemode: chart.from_zero ? "tozero" : "normal" },
    hovermode: "x unified",
    hoverlabel: { bgcolor: css("--paper"), bordercolor: css("--line"), font: { color: css("--ink") } },
    showlegend: chart.loss,
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
    // On touch screens, dragging scrolls the page.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    shapes: chart.loss ? cursor(axis) : [],
  };
}

function draw() {
  const axis = $("axis").value;
  for (const chart of report.charts) {
    const traces = chart.curves.map((curve) => trace(curve, axis, chart));
    if (chart.loss && report.runs.length > 1) traces.push(...report.runs.map(legendEntry));
    const settings = { displayModeBar: false, responsive: true, showTips: false };
    Plotly.react(chart.id, traces, layout(chart, axis, $("log-x").checked, $("log-y").checked), settings);
  }
}

// Apply a zoom on the x axis of one chart to all charts.
function linkZoom() {
  let linking = false;
  for (const chart of report.charts) {
    $(chart.id).on("plotly_relayout", async (change) => {
      const keys = Object.keys(change).filter((key) => key.startsWith("xaxis."));
      if (linking || keys.length === 0) return;
      linking = true;
      const update = Object.fromEntries(keys.map((key) => [key, change[key]]));
      await Promise.all(report.charts.filter((other) => other !== chart).map((other) => Plotly.relayout(other.id, update)));
      linking = false;
    });
  }
}

// --- samples --------------------------------------------------------------------------------------------------------

const samples = [...document.querySelectorAll(".film .sample")];
let shown = samples.length - 1;

// A vertical line on the loss chart at the step of the sample shown.
function cursor(axis) {
  const x = report.sample_at?.[axis]?.[shown];
  if (x === undefined || x === null) return [];
  const line = { color: css("--quiet"), width: 1, dash: "dot" };
  return [{ type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", layer: "below", line }];
}

function show(index) {
  shown = Math.max(0, Math.min(samples.length - 1, index));
  const all = $("all-samples").checked;
  samples.forEach((sample, i) => { sample.hidden = !all && i !== shown; });
  document.querySelector(".film").classList.toggle("one-at-a-time", !all);
  $("slider").value = shown;
  $("slider").setAttribute("aria-valuetext", samples[shown].querySelector("header").textContent);
  $("earlier").disabled = all || shown === 0;
  $("later").disabled = all || shown === samples.length - 1;
  $("slider").disabled = all;
  const loss = report.charts.find((chart) => chart.loss);
  if (loss) Plotly.relayout(loss.id, { shapes: all ? [] : cursor($("axis").value) });
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
  draw();
  linkZoom();
  for (const id of ["axis", "log-x", "log-y"]) $(id).addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
startFilm();
for (const swatch of document.querySelectorAll(".swatch")) swatch.style.background = color(Number(swatch.dataset.run));
