// The last five minutes as charts. Owner of the plots.

import { paint } from "./colours.js";
import { count, duration, rate } from "./words.js";

const seconds = (values) => values.map((value) => (value == null ? "" : value < 59.95 ? duration(value) : `${count(value)} s`));
const numbers = (values) => values.map((value) => (value == null ? "" : Number.isInteger(value) ? count(value) : rate(value)));

const CHARTS = [
  { title: "Waiting and running", unit: count, axis: numbers, lines: [["waiting", "queued", "warn"], ["running", "running", "line-one"]] },
  { title: "Wait", unit: duration, axis: seconds, log: true, lines: [["p50", "wait_p50", "line-one"], ["p99", "wait_p99", "line-two"]] },
  { title: "Throughput per second", unit: rate, axis: numbers, lines: [["succeeded", "succeeded", "line-one"], ["failed", "failed", "bad"], ["refused", "rejected", "warn"]] },
  { title: "Run time", unit: duration, axis: seconds, log: true, lines: [["p50", "run_p50", "line-one"], ["p99", "run_p99", "line-two"]] },
];
const LOWEST = 1e-6; // what a logarithmic scale shows for nothing

const place = document.getElementById("charts");
let plots = [];

/** Redraw everything, for example when the colours have changed. */
export function redrawCharts() {
  for (const { plot } of plots) plot?.destroy();
  plots = [];
  place.replaceChildren();
}

export function showCharts(known) {
  if (plots.length === 0) plots = CHARTS.map(makeFigure);
  for (const figure of plots) {
    const columns = columnsOf(known, figure.chart);
    figure.plot ??= makePlot(figure, columns);
    figure.plot.setData(columns);
    if (figure.plot.cursor.left < 0) figure.plot.setLegend({ idx: columns[0].length - 1 }, false); // the latest
    figure.box.setAttribute("aria-label", tell(figure.chart, columns));
  }
}

/** The points of the seconds that are over, and the present one, which has the numbers of the header. */
function columnsOf(known, chart) {
  const column = (name) => {
    const number = known.series.indexOf(name);
    return [...known.columns[number], known.point[number]];
  };
  const clip = chart.log ? (value) => (value == null ? null : Math.max(value, LOWEST)) : (value) => value;
  return [column("time"), ...chart.lines.map(([, name]) => column(name).map(clip))];
}

function makeFigure(chart) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const box = document.createElement("div");
  caption.textContent = chart.title;
  box.className = "plot";
  box.setAttribute("role", "img");
  figure.append(caption, box);
  place.append(figure);
  const made = { chart, box, plot: null };
  new ResizeObserver(() => made.plot?.setSize(sizeOf(box))).observe(box);
  return made;
}

const sizeOf = (box) => ({ width: Math.max(200, box.clientWidth), height: 150 });

function makePlot({ chart, box }, columns) {
  const line = { stroke: paint("soft"), grid: { stroke: paint("line"), width: 1 }, ticks: { stroke: paint("line"), width: 1, size: 4 }, font: "11px system-ui" };
  const options = {
    ...sizeOf(box),
    cursor: { y: false, sync: { key: "minutes" }, points: { size: 6 }, drag: { x: false, y: false } },
    legend: { live: true },
    padding: [8, 20, 0, 0],
    scales: { x: { time: true }, y: chart.log ? { distr: 3, range: decades } : { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [{ ...line, size: 26, space: 62, values: clock }, yAxis(line, chart)],
    series: [{}, ...chart.lines.map(([label, , ink]) => ({ label, stroke: paint(ink), width: 1.5, points: { show: true, size: 4, fill: paint(ink), filter: alone }, spanGaps: false, value: (_, value) => (value == null ? "–" : chart.unit(value)) }))],
  };
  return new uPlot(options, columns, box);
}

/** The time of day, with seconds where minutes would not tell ticks apart. */
function clock(_, splits, __, ___, step) {
  const parts = { hour: "2-digit", minute: "2-digit", ...(step < 60 && { second: "2-digit" }), hourCycle: "h23" };
  return splits.map((split) => new Date(split * 1000).toLocaleTimeString("en-GB", parts));
}

/** The points between two gaps: a line through one point would not be seen. */
function alone(plot, series) {
  const values = plot.data[series];
  return [...values.keys()].filter((at) => values[at] != null && values[at - 1] == null && values[at + 1] == null);
}

function yAxis(line, chart) {
  const axis = { ...line, size: 58, values: (_, splits) => chart.axis(splits), space: 26 };
  if (!chart.log) return axis;
  const decadesOnly = (_, splits) => splits.map((value) => (Math.abs(Math.log10(value) % 1) < 1e-6 ? value : null));
  return { ...axis, filter: decadesOnly, grid: { ...line.grid, filter: decadesOnly }, ticks: { ...line.ticks, filter: decadesOnly } };
}

/** Whole powers of ten around the data, so that the scale rarely changes. */
function decades(_, low, high) {
  if (low == null || !Number.isFinite(low)) return [1e-4, 1];
  const bottom = 10 ** Math.floor(Math.log10(Math.max(low, LOWEST)));
  return [bottom, Math.max(bottom * 10, 10 ** Math.ceil(Math.log10(Math.max(high, LOWEST))))];
}

/** The text of a chart, for screen readers. */
function tell(chart, columns) {
  const latest = chart.lines.map(([label], number) => {
    const value = columns[number + 1].findLast((each) => each != null);
    return `${label} ${value == null ? "unknown" : chart.unit(value)}`;
  });
  return `${chart.title}, now: ${latest.join(", ")}`;
}
