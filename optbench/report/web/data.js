/* The report's data: decoding, the view that the address keeps, medians over seeds. */

const DATA = JSON.parse(document.getElementById("data").textContent);

const STORE = DATA.curves.arrays.map((text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Float32Array(bytes.buffer); // little-endian, as every machine with a browser is
});

/* ---- the view: what the address's fragment holds ---- */

const DEFAULTS = {
  y: "epochs." + DATA.view.y,
  x: DATA.view.x,
  yscale: DATA.view.log === false ? "linear" : "",
  xscale: "linear",
  spread: "band",
  smooth: "0",
  panels: DATA.view.panels,
  layer: "",
  sort: "", // of the ranked table: the number of a column, negative for descending
  theme: "",
  hide: [],
  zoom: null,
};
let view = { ...DEFAULTS };

function readView() {
  view = { ...DEFAULTS, hide: [] };
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [key, value] of given) {
    if (key === "hide") view.hide = value.split("\n").filter((name) => TOGGLES.has(name));
    else if (key === "zoom") {
      const ends = value.split("..").map(Number);
      view.zoom = ends.length === 2 && ends.every(Number.isFinite) ? ends : null;
    } else if (key in DEFAULTS) view[key] = value;
  }
  const valid = (key, allowed) => {
    if (!allowed.includes(view[key])) view[key] = DEFAULTS[key];
  };
  valid("y", DATA.curves.metrics.map(metricKey));
  valid("x", Object.keys(DATA.curves.clocks));
  valid("yscale", ["", "linear", "log"]);
  valid("xscale", ["linear", "log"]);
  valid("spread", ["band", "runs", "none"]);
  valid("panels", ["", ...DATA.curves.facets.map((f) => f.key)]);
  valid("theme", ["", "light", "dark"]);
  valid("sort", ["", ...DATA.ranking.columns.flatMap((_, i) => [`${i + 1}`, `-${i + 1}`])]);
  valid("layer", DATA.layers ? DATA.layers.metrics : [""]);
  if (!(Number(view.smooth) >= 0 && Number(view.smooth) < 1)) view.smooth = "0";
  if (DATA.curves.metrics.length && !DATA.curves.metrics.some((m) => metricKey(m) === view.y))
    view.y = metricKey(DATA.curves.metrics[0]);
}

function writeView() {
  const kept = new URLSearchParams();
  for (const [key, value] of Object.entries(view)) {
    if (key === "hide") value.length && kept.set("hide", value.join("\n"));
    else if (key === "zoom") value && kept.set("zoom", value.map((v) => +v.toPrecision(6)).join(".."));
    else if (value !== DEFAULTS[key]) kept.set(key, value);
  }
  history.replaceState(null, "", "#" + kept);
}

const TOGGLES = new Map(DATA.toggles.map((entry) => [entry.name, entry]));
const shown = (name) => !view.hide.includes(name);
const metricKey = (metric) => metric.rows + "." + metric.key;
const metricNow = () => DATA.curves.metrics.find((m) => metricKey(m) === view.y);

/* ---- medians over seeds: the same as optbench.figures.curves.aggregate ---- */

function medianOf(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/* The runs of one series on the steps that its complete runs share. A diverged run counts as
   infinitely bad from its divergence on; low and high are of those that did not diverge. */
function aggregate(runs, metric, clock) {
  const worst = metric.smaller ? Infinity : -Infinity;
  const columns = runs.map((run) => run[metric.rows]);
  let steps = columns.map((c) => STORE[c.step]);
  const ends = new Set(steps.filter((_, i) => !runs[i].diverged).map((own) => own[own.length - 1]));
  if (clock === "seconds" && ends.size > 1)  // Infinity: the last row
    steps = steps.map((own, i) => (runs[i].diverged ? own : [...own.slice(0, -1), Infinity]));
  const complete = steps.filter((_, i) => !runs[i].diverged);
  let grid = complete[0] || steps.reduce((a, b) => (b.length > a.length ? b : a));
  for (const other of complete.slice(1)) {
    if (other === grid) continue;
    const known = new Set(other);
    grid = grid.filter((step) => known.has(step));
  }
  const places = steps.map((own) => new Map(Array.from(own, (step, i) => [step, i])));
  const out = { x: [], mid: [], low: [], high: [], n: runs.length, ends: [] };
  for (const step of grid) {
    const all = [], good = [], xs = [];
    runs.forEach((run, i) => {
      const at = places[i].get(step);
      let value = at === undefined ? worst : STORE[columns[i][metric.key]][at];
      if (Number.isNaN(value)) value = worst;
      if (at !== undefined) xs.push(STORE[columns[i][clock]][at]);
      all.push(value);
      if ((!run.diverged || !complete.length) && Number.isFinite(value)) good.push(value);
    });
    const mid = medianOf(all);
    const drawn = Number.isFinite(mid);
    out.x.push(medianOf(xs));
    out.mid.push(drawn ? mid : null);
    out.low.push(drawn && good.length ? Math.min(...good) : null);
    out.high.push(drawn && good.length ? Math.max(...good) : null);
  }
  runs.forEach((run, i) => {
    if (run.diverged) {
      const values = STORE[columns[i][metric.key]];
      let last = values.length - 1;
      while (last >= 0 && !Number.isFinite(values[last])) last--;
      if (last >= 0) out.ends.push([STORE[columns[i][clock]][last], values[last]]);
    }
  });
  return out;
}

/* Exponential smoothing, corrected for its start (as Adam's moments are). */
function smoothed(values, weight) {
  if (!weight) return values;
  let mean = 0, mass = 0;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return null;
    mean = weight * mean + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return mean / mass;
  });
}

/* ---- words and numbers ---- */

const num = (value) =>
  value === "inf" ? Infinity : value === "-inf" ? -Infinity : value === null ? NaN : value;

function fmt(value, percent) {
  value = num(value);
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "–" : value > 0 ? "∞" : "−∞";
  if (percent) return (100 * value).toFixed(2) + " %";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(+value.toPrecision(4));
  return text.replaceAll("-", "−");
}

const signed = (value, percent) => {
  value = num(value);
  if (!Number.isFinite(value)) return fmt(value);
  return (value > 0 ? "+" : "") + (percent ? fmt(100 * value) + " pt" : fmt(value));
};

/* An interval in words; of so few pairs that it is the whole line there is none. */
const unbounded = (low, high) => (low === null && high === null) || (num(low) === -Infinity && num(high) === Infinity);
const intervalText = ({ low, high, n }, percent) =>
  unbounded(low, high) ? `no 95 % interval at n = ${n}` : `${signed(low, percent)} to ${signed(high, percent)}`;

/* An element from text and elements only: nothing from the data is ever parsed as markup. */
function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.className = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}

const SVG = "http://www.w3.org/2000/svg";
function svgEl(tag, props = {}, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(props)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/* ---- colours: lighter on a dark page, and the same hue ---- */

const darkPage = () =>
  view.theme ? view.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

/* Shades of an optimizer's settings: the darkest must become the lightest, and keep their order. */
const SHADES = new Set([...DATA.names, ...(DATA.rates || []).flatMap((panel) => panel.lines)].filter((entry) => entry.shade).map((entry) => entry.color));
const hex = (parts) => "#" + parts.map((p) => Math.round(p).toString(16).padStart(2, "0")).join("");

function ink(color, dark = darkPage()) {
  if (!dark) return color;
  const parts = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
  const lightness = ([red, green, blue]) => (0.299 * red + 0.587 * green + 0.114 * blue) / 255;
  const light = lightness(parts);
  if (SHADES.has(color)) {
    const most = Math.max(...parts), full = parts.map((p) => (most ? (255 * p) / most : 255));
    const want = 0.88 - 0.52 * light, own = lightness(full);
    return hex(full.map((p) => (want > own ? p + ((255 - p) * (want - own)) / (1 - own) : (p * want) / own)));
  }
  // the darkest become the lightest, so that two shades of one hue stay two shades
  const mix = light < 0.4 ? (0.62 + 0.8 * (0.4 - light) - light) / (1 - light) : 0;
  return hex(parts.map((p) => p + (255 - p) * mix));
}

/* A colour that small things are told by: with a contrast of at least 3 on the page. */
function legible(color, dark = darkPage()) {
  const rgb = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
  const light = (parts) => {
    const [r, g, b] = parts.map((p) => (p <= 10 ? p / 3294 : ((p / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const paper = light(rgb(dark ? "#1f242b" : "#f6f7f8")); // --wash, the nearest to the colours
  let parts = rgb(ink(color, dark));
  while (Math.max(light(parts) / paper, paper / light(parts)) < 3)
    parts = parts.map((p) => (dark ? p + Math.ceil((255 - p) * 0.05) : Math.floor(p * 0.95)));
  return hex(parts);
}

const withAlpha = (color, alpha) => color + Math.round(255 * alpha).toString(16).padStart(2, "0");
const cssColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function swatch(entry) {
  const icon = svgEl("svg", { width: 26, height: 10, "aria-hidden": "true", class: "swatch" });
  const line = svgEl("line", { x1: 1, x2: 25, y1: 5, y2: 5, "stroke-width": 2.4, stroke: legible(entry.color) });
  if (entry.dash.length) line.setAttribute("stroke-dasharray", entry.dash.map((d) => d * 1.5).join(" "));
  icon.append(line);
  return icon;
}

function save(name, blob) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 2000);
}

const slug = (text) => text.toLowerCase().replace(/[^\w]+/g, "-").replace(/^-|-$/g, "") || "chart";
const csvCell = (value) => {
  const text = value === null || value === undefined || Number.isNaN(value) ? "" : typeof value === "number" ? String(value).replace("Infinity", "inf") : String(value);
  // a spreadsheet runs what begins like a formula
  const plain = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? "'" + text : text;
  return /[",\n]/.test(plain) ? '"' + plain.replaceAll('"', '""') + '"' : plain;
};
const saveCsv = (name, rows) =>
  save(name + ".csv", new Blob([rows.map((row) => row.map(csvCell).join(",")).join("\n") + "\n"], { type: "text/csv" }));
