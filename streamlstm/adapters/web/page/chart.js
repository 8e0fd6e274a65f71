// The key view's chart: each feature with its expected band, and the score with its threshold under them.
import { themeColours } from "./strip.js";

const GAP_FACTOR = 5; // so many usual gaps without an event are shown as a hole

let loaded = null;

export function loadPlotly() {
  loaded ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = "/plotly.js";
    script.onload = () => done(globalThis.Plotly);
    script.onerror = () => {
      loaded = null;
      failed(new Error("The chart could not be loaded."));
    };
    document.head.append(script);
  });
  return loaded;
}

// Plotly shows UTC; shifted by the zone's offset it shows the viewer's time.
export const toAxis = (ms) => ms - new Date(ms).getTimezoneOffset() * 60000;
export function fromAxis(value) {
  const shifted = typeof value === "number" ? value : Date.parse(`${String(value).replace(" ", "T")}Z`);
  return shifted + new Date(shifted).getTimezoneOffset() * 60000;
}

// Bins of one width, kept in order; a later piece replaces what was there from its first bin on.
export class Bins {
  constructor() {
    this.columns = { bin: [] };
  }

  add(piece) {
    if (!piece.bin.length) return;
    const first = piece.bin[0], last = piece.bin[piece.bin.length - 1];
    const before = this.columns.bin.findIndex((bin) => bin >= first);
    const cut = before < 0 ? this.columns.bin.length : before;
    const after = this.columns.bin.findIndex((bin) => bin > last);
    for (const name of Object.keys(piece)) {
      const had = this.columns[name] || [];
      this.columns[name] = [...had.slice(0, cut), ...piece[name], ...(after < 0 ? [] : had.slice(after))];
    }
  }

  forgetBefore(bin) {
    const from = this.columns.bin.findIndex((one) => one >= bin);
    if (from <= 0) return;
    for (const name of Object.keys(this.columns)) this.columns[name] = this.columns[name].slice(from);
  }
}

export class Series {
  constructor(width) {
    this.width = width;
    this.score = new Bins();
    this.features = new Map();
    this.units = new Map();
  }

  add(piece) {
    this.score.add(piece.score);
    for (const { name, unit, ...bins } of piece.features) {
      if (!this.features.has(name)) this.features.set(name, new Bins());
      this.features.get(name).add(bins);
      this.units.set(name, unit);
    }
  }

  forgetBefore(ms) {
    const bin = Math.floor(ms / this.width);
    this.score.forgetBefore(bin);
    for (const bins of this.features.values()) bins.forgetBefore(bin);
  }

  get empty() {
    return this.score.columns.bin.length === 0;
  }
}

// Return x and the named columns, with a null where nothing came for long, so that the line breaks there.
function broken(bins, width, gapMs, names) {
  const { bin } = bins.columns;
  const x = [], columns = Object.fromEntries(names.map((name) => [name, []]));
  const far = Math.max(2, Math.ceil((GAP_FACTOR * gapMs) / width));
  for (let i = 0; i < bin.length; i++) {
    if (i > 0 && bin[i] - bin[i - 1] > far) {
      x.push(toAxis((bin[i - 1] + 1) * width));
      for (const name of names) columns[name].push(null);
    }
    x.push(toAxis(bin[i] * width));
    for (const name of names) columns[name].push(bins.columns[name]?.[i] ?? null);
  }
  return { x, ...columns };
}

function holes(bins, width, gapMs) {
  const { bin } = bins.columns;
  const far = Math.max(2, Math.ceil((GAP_FACTOR * gapMs) / width));
  const found = [];
  for (let i = 1; i < bin.length; i++) if (bin[i] - bin[i - 1] > far) found.push([(bin[i - 1] + 1) * width, bin[i] * width]);
  return found;
}

// The band as closed shapes, one for each stretch in which it is known.
function outline(x, low, high) {
  const xs = [], ys = [];
  for (let i = 0; i < x.length; i++) {
    if (low[i] === null || high[i] === null) continue;
    let end = i;
    while (end + 1 < x.length && low[end + 1] !== null && high[end + 1] !== null) end++;
    const places = Array.from({ length: end - i + 1 }, (_, place) => i + place), back = [...places].reverse();
    xs.push(...places.map((place) => x[place]), ...back.map((place) => x[place]), null);
    ys.push(...places.map((place) => high[place]), ...back.map((place) => low[place]), null);
    i = end;
  }
  return { x: xs, y: ys };
}

// Extremes of a bin become one up-and-down line, so that a spike is seen at any zoom.
function zigzag(x, low, high) {
  const xs = [], ys = [];
  for (let i = 0; i < x.length; i++) {
    xs.push(x[i]);
    ys.push(low[i]);
    if (high[i] !== low[i]) {
      xs.push(x[i]);
      ys.push(high[i]);
    }
  }
  return { x: xs, y: ys };
}

export function figure(series, { range, gapMs, about, narrow }) {
  const colour = themeColours();
  const { width } = series;
  const names = [...series.features.keys()];
  const rows = names.length + 1;
  const heights = [...names.map(() => 3), 2];
  const total = heights.reduce((sum, one) => sum + one, 0);
  const gap = 0.045;
  const traces = [], layout = base(colour, narrow), shapes = [], notes = [];
  let top = 1;
  heights.forEach((height, row) => {
    const share = (height / total) * (1 - gap * (rows - 1));
    const name = row === 0 ? "yaxis" : `yaxis${row + 1}`;
    layout[name] = axis(colour, [Math.max(0, top - share), top]);
    const label = row < names.length ? named(names[row], series.units.get(names[row])) : "score (decades of surprise)";
    notes.push({ text: label, x: 0, y: top, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 12, color: colour.muted } });
    top -= share + gap;
  });
  names.forEach((name, row) => {
    const y = row === 0 ? "y" : `y${row + 1}`;
    const bins = broken(series.features.get(name), width, gapMs, ["min", "max", "low", "expected", "high"]);
    const common = { yaxis: y, type: "scatter", mode: "lines", showlegend: row === 0, connectgaps: false };
    traces.push({ ...common, ...outline(bins.x, bins.low, bins.high), line: { width: 0 }, fill: "toself", fillcolor: colour.band, name: "expected, 99 % band", hoverinfo: "skip" });
    traces.push({ ...common, x: bins.x, y: bins.expected, line: { width: 1, color: colour.accent, dash: "dot" }, name: "expected", hovertemplate: "expected %{y:.4g}<extra></extra>" });
    const line = zigzag(bins.x, bins.min, bins.max);
    const lone = line.x.length < 150;
    traces.push({ ...common, ...line, mode: lone ? "lines+markers" : "lines", marker: { size: 3, color: colour.text }, line: { width: 1.3, color: colour.text }, name: "actual", hovertemplate: `%{y:.4g} ${escaped(series.units.get(name))}<extra></extra>` });
  });
  addScore(traces, series, rows, gapMs, colour, about);
  for (const [from, until] of holes(series.score, width, gapMs)) {
    shapes.push(box(from, until, colour.line, 0.45));
    if (until - from > (range[1] - range[0]) / 20) notes.push({ text: "no data", x: toAxis((from + until) / 2), y: 0.99, yref: "paper", yanchor: "top", showarrow: false, font: { size: 11, color: colour.muted } });
  }
  for (const [from, until] of warmUps(series.score, width)) {
    if (until < range[0] || from > range[1]) continue;
    shapes.push(box(from, until, colour.accent, 0.08));
    notes.push({ text: "warming up: no score yet", x: toAxis(Math.max(from, range[0])), y: 0.01, yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 11, color: colour.muted } });
  }
  for (const episode of about.episodes || []) {
    const at = toAxis(episode.since_ms);
    shapes.push({ type: "line", x0: at, x1: at, y0: 0, y1: 1, yref: "paper", line: { color: colour.unusual, width: 1, dash: "dot" } });
  }
  layout.xaxis = { ...axis(colour, undefined), type: "date", range: range.map(toAxis), anchor: rows === 1 ? "y" : `y${rows}`, showspikes: true, spikemode: "across", spikethickness: 1, spikecolor: colour.muted, spikedash: "solid", nticks: narrow ? 4 : 8 };
  layout.shapes = shapes;
  layout.annotations = notes;
  return { traces, layout };
}

function addScore(traces, series, rows, gapMs, colour, about) {
  const y = rows === 1 ? "y" : `y${rows}`;
  const { width } = series;
  const bins = broken(series.score, width, gapMs, ["score", "threshold", "probability"]);
  const common = { yaxis: y, type: "scatter", mode: "lines", connectgaps: false };
  traces.push({ ...common, x: bins.x, y: bins.threshold, name: "threshold", line: { width: 1.3, color: colour.unusual, dash: "dash" }, hovertemplate: "threshold %{y:.2f}<extra></extra>" });
  traces.push({ ...common, x: bins.x, y: bins.score, name: "score", line: { width: 1.2, color: colour.muted }, hovertemplate: "score %{y:.2f}<extra></extra>" });
  const { bin, score, alert, status } = series.score.columns;
  const pick = (wanted) => bin.map((_, i) => i).filter(wanted);
  const opened = pick((i) => alert?.[i] && !alert[i - 1]);
  const missing = pick((i) => status?.[i] === 2);
  const marks = (places, symbol, name, color, ys) => {
    if (places.length) traces.push({ ...common, mode: "markers", x: places.map((i) => toAxis(bin[i] * width)), y: ys(places), name, marker: { symbol, size: 10, color, line: { width: 1.5, color } }, hovertemplate: `${name}<extra></extra>` });
  };
  marks(opened, "triangle-up", "alert opens", colour.unusual, (places) => places.map((i) => score[i]));
  marks(missing, "x-thin-open", "values missing", colour.raised, (places) => places.map(() => 0));
  const late = (about.late_ms || []).filter((ms) => bin.length && ms >= bin[0] * width);
  if (late.length) traces.push({ ...common, mode: "markers", x: late.map(toAxis), y: late.map(() => 0), name: "came too late", marker: { symbol: "diamond-open", size: 9, color: colour.raised, line: { width: 1.5 } }, hovertemplate: "came too late, not scored<extra></extra>" });
}

function warmUps(bins, width) {
  const { bin, status } = bins.columns;
  const found = [];
  for (let i = 0; i < bin.length; i++) {
    if (status[i] !== 1) continue;
    const from = bin[i] * width;
    while (i + 1 < bin.length && status[i + 1] === 1) i++;
    found.push([from, (bin[i] + 1) * width]);
  }
  return found;
}

const box = (from, until, fillcolor, opacity) => ({ type: "rect", x0: toAxis(from), x1: toAxis(until), y0: 0, y1: 1, yref: "paper", fillcolor, opacity, line: { width: 0 }, layer: "below" });

const axis = (colour, domain) => ({ domain, gridcolor: colour.line, linecolor: colour.line, zeroline: false, tickfont: { color: colour.muted, size: 11 }, fixedrange: Boolean(domain), nticks: domain ? 5 : undefined });

const base = (colour, narrow) => ({
  paper_bgcolor: "rgba(0,0,0,0)",
  plot_bgcolor: "rgba(0,0,0,0)",
  font: { family: getComputedStyle(document.body).fontFamily, color: colour.text, size: 12 },
  margin: { l: narrow ? 40 : 56, r: 12, t: 24, b: narrow ? 84 : 64 },
  hovermode: "x",
  hoverlabel: { bgcolor: colour.surface, bordercolor: colour.line, font: { color: colour.text } },
  dragmode: "pan",
  legend: { orientation: "h", traceorder: "normal", x: 0, y: -0.09, yanchor: "top", font: { size: 12 } },
  uirevision: "keep",
});

// Plotly reads a few tags in texts: none of ours may be taken for one.
const escaped = (text) => String(text).replace(/[&<>]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[sign]).replace(/[{}%$]/g, " ");
const named = (name, unit) => escaped(unit ? `${name} (${unit})` : name);
