/* Charts: a list of panels drawn with uPlot. keep.js draws them again as SVG, figure.js puts them
   on the page.

   A panel is {title, x, y, logx, logy, percent, lines, top?, zoom?, reference?}; top: a number, or
   a function of the panel (see settle); reference: a value that no line can come below. A line is {name, toggle, color, dash, x, mid,
   low, high, n, dots, lost, ends, runs}. Values that do not exist are null. */

const LOOK = new Map(DATA.names.map((entry) => [entry.name, entry]));
const lookOf = (line) => (line.color ? line : null) || LOOK.get(line.name) || TOGGLES.get(line.toggle) || { color: "#777777", dash: [] };
const labelOf = (line) => line.label || line.name;

function usable(panel, value, log) {
  value = num(value);
  return Number.isFinite(value) && (!log || value > 0) ? value : null;
}

/* The lowest finite value of a panel, of all its lines: a switch does not change its scale. */
function lowest(panel) {
  let least = Infinity;
  for (const line of panel.lines) {
    const values = [...(line.mid || []), ...(line.low || []), ...[...(line.dots || []), ...(line.ends || [])].map((point) => point[1])];
    for (const value of values.map(num)) if (Number.isFinite(value)) least = Math.min(least, value);
  }
  return least;
}

/* Settle the y axes of a figure's panels: linear where a logarithmic one has no place for a value
   (all of them, where they share it), and where they end. Returns what to say of them. */
function settle(panels, shared) {
  const linear = panels.filter((panel) => panel.logy && lowest(panel) <= 0);
  for (const panel of shared && linear.length ? panels : linear) panel.logy = false;
  for (const panel of panels) if (typeof panel.top === "function") panel.top = panel.top(panel);
  return linear.length ? " The y axis is linear: a logarithmic one has no place for values of 0 or below." : "";
}

/* One line's points that the axes can show, each [x, mid, low, high]. */
function points(panel, line) {
  const out = [];
  line.x.forEach((x, i) => {
    const at = usable(panel, x, panel.logx);
    if (at === null) return;
    const y = (list) => (list ? usable(panel, list[i], panel.logy) : null);
    out.push([at, y(line.mid), y(line.low), y(line.high)]);
  });
  return out;
}

/* Where marks of a line lie higher than the axis goes: the x of each. */
function above(panel, line, top) {
  const marks = line.marks ? points(panel, line) : [];
  const dots = (line.dots || []).map(([x, y]) => [num(x), usable(panel, y, panel.logy)]);
  return [...marks, ...dots].filter(([, y]) => y !== null && y > top).map(([x]) => x);
}

/* The range of what is shown; a run that blew up does not squeeze the others (`panel.top`). */
function extent(values, log, top) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value === null || !Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return log ? [0.1, 1] : [0, 1];
  if (top !== undefined && top !== null && low < top) high = Math.min(high, top);
  if (log) {
    const pad = Math.max((high / low) ** 0.04, 1.02);
    return [low / pad, high * pad];
  }
  const pad = (high - low) * 0.05 || Math.abs(high) * 0.05 || 0.5;
  return [low - pad, high + pad];
}

/* A line's value at x between two of its points, straight on the axes as they are; null beyond. */
function valueAt(panel, line, x) {
  const own = points(panel, line).filter((p) => p[1] !== null);
  const next = own.findIndex((p) => p[0] >= x);
  if (next <= 0) return next && own.length ? null : own.length && own[0][0] === x ? own[0][1] : null;
  const [[x0, y0], [x1, y1]] = [own[next - 1], own[next]];
  const u = panel.logx ? Math.log : Number, v = panel.logy ? Math.log : Number, back = panel.logy ? Math.exp : Number;
  return back(v(y0) + ((v(y1) - v(y0)) * (u(x) - u(x0))) / (u(x1) - u(x0)));
}

/* The ranges of both axes: of all that is shown and inside the zoom; panels of a figure may share y. */
function rangesOf(panel) {
  const zoom = panel.zoomable && view.zoom;
  const xs = [], ys = [];
  for (const line of visible(panel)) {
    for (const [x, ...values] of points(panel, line)) {
      xs.push(x);
      if (!zoom || (x >= zoom[0] && x <= zoom[1])) ys.push(...values);
    }
    if (zoom) ys.push(...zoom.map((x) => valueAt(panel, line, x)));
    for (const [x, y] of line.dots || []) {
      xs.push(num(x));
      ys.push(usable(panel, y, panel.logy));
    }
    for (const x of line.lost || []) xs.push(num(x));
  }
  if (panel.reference) ys.push(panel.reference);
  const limits = (list) => list.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
  let xRange = zoom || (panel.dotted ? extent(xs, panel.logx) : limits(xs));
  if (xRange[0] > xRange[1]) xRange = panel.logx ? [0.1, 1] : [0, 1];
  if (xRange[0] === xRange[1]) xRange = panel.logx ? [xRange[0] / 2, xRange[1] * 2] : [xRange[0] - 0.5, xRange[1] + 0.5];
  const empty = !ys.some((y) => y !== null && Number.isFinite(y));
  return { xRange, yRange: panel.yRange || extent(ys, panel.logy, panel.top), empty };
}

function shareY(panels) {
  if (panels.length < 2) return;
  const ranges = panels.map(rangesOf).filter((range) => !range.empty).map((range) => range.yRange);
  if (!ranges.length) return;
  const common = [Math.min(...ranges.map((r) => r[0])), Math.max(...ranges.map((r) => r[1]))];
  for (const panel of panels) panel.yRange = common;
}

function ticksOf(low, high, log, count, whole) {
  const all = allTicks(low, high, log, count);
  const found = whole ? all.filter(Number.isInteger) : all;
  return found.length ? found : all;
}

function allTicks(low, high, log, count) {
  if (log && high / low > 3) {
    const decades = Math.log10(high / low);
    const subs = [[1, 2, 5], [1, 3], [1]].find((list) => decades * list.length <= count + 1) || [1];
    const step = decades > count * 1.4 ? Math.ceil(decades / count) : 1;
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      if (e % step) continue;
      for (const sub of subs) {
        const value = sub * 10 ** e;
        if (value >= low && value <= high) found.push(+value.toPrecision(6));
      }
    }
    if (found.length > 1) return found;
  }
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((m) => m * power >= raw) * power;
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(+v.toPrecision(10));
  return found;
}

function tickText(value, percent) {
  if (percent) return String(+(100 * value).toPrecision(5));
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
    const [digits, power] = value.toExponential().split("e");
    const raised = String(+power).replace(/[-\d]/g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));
    return (digits === "1" ? "" : String(+(+digits).toPrecision(3)) + "·") + "10" + raised;
  }
  return String(+value.toPrecision(6)).replace("-", "−");
}

const visible = (panel) => panel.lines.filter((line) => shown(line.toggle));

/* In words what a panel shows: the text alternative. */
function describePanel(panel) {
  const parts = visible(panel).map((line) => {
    const last = (line.mid || []).findLast((v) => Number.isFinite(num(v)));
    const lost = line.lost && line.lost.length ? `, ${line.lost.length} diverged` : "";
    const ended = line.ends && line.ends.length ? `, ${line.ends.length} of ${line.n} diverged` : lost;
    return `${line.name} ends at ${last === undefined ? "nothing finite" : fmt(last, panel.percent)} (n = ${line.n}${ended})`;
  });
  const head = panel.title ? panel.title + ": " : "";
  const least = panel.reference ? `The least-squares solution has ${fmt(panel.reference)}. ` : "";
  return `${head}${panel.y} against ${panel.x}. ${least}${parts.join("; ") || "Nothing is shown."}`;
}

function reading(panel, x) {
  const rows = [];
  for (const line of visible(panel)) {
    if (line.run !== undefined) continue;
    const own = points(panel, line).filter((p) => p[1] !== null);
    if (!own.length) continue;
    const distance = (p) => Math.abs(panel.logx ? Math.log(p[0] / x) : p[0] - x);
    const near = own.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    rows.push({ line, at: near[0], y: near[1], low: near[2], high: near[3] });
  }
  return rows.sort((a, b) => b.y - a.y);
}

const readingText = (panel, row) => {
  const spread = row.line.n > 1 && row.low !== null && row.high !== null && row.low !== row.high;
  const ends = spread ? ` [${fmt(row.low, panel.percent)}, ${fmt(row.high, panel.percent)}]` : "";
  return `${fmt(row.y, panel.percent)}${ends}  n = ${row.line.n}`;
};

/* Whether the lines have room for their names at their ends. */
const named = (panel) => visible(panel).filter((line) => line.run === undefined);
const labelled = (panel, width) => width > 480 && named(panel).length <= 14;

function drawPanel(host, panel, options) {
  const dark = darkPage();
  const lines = visible(panel);
  const width = Math.max(240, Math.floor(host.clientWidth));
  const height = width < 420 ? 250 : 320;
  const tables = [], series = [{}], bands = [];
  for (const line of lines) {
    const look = lookOf(line), color = ink(look.color, dark);
    const own = points(panel, line);
    const columns = [own.map((p) => p[0])];
    const wide = line.faint ? 1 : 2;
    const dash = look.dash.map((d) => d * wide * 0.9);
    const base = { scale: "y", spanGaps: true, points: { show: false } };
    if (line.low && !line.faint) {
      columns.push(own.map((p) => p[3]), own.map((p) => p[2]));
      series.push({ ...base, width: 0, stroke: "transparent" }, { ...base, width: 0, stroke: "transparent" });
      bands.push({ series: [series.length - 2, series.length - 1], fill: withAlpha(color, 0.16) });
    }
    columns.push(own.map((p) => p[1]));
    series.push({
      ...base, label: line.name, stroke: withAlpha(color, line.faint ? 0.55 : 1), width: wide,
      dash: dash.length ? dash : undefined, paths: line.stairs ? uPlot.paths.stepped({ align: 1 }) : undefined,
      points: { show: own.length === 1 || Boolean(line.dots || line.marks), size: 6, fill: color },
    });
    tables.push(columns);
  }
  const data = tables.length ? uPlot.join(tables) : [[0, 1], [null, null]];
  if (!tables.length) series.push({ scale: "y" });
  const { xRange, yRange, empty } = rangesOf(panel);
  const axis = { stroke: cssColor("--soft"), font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif",
                 grid: { stroke: cssColor("--rule"), width: 1 }, ticks: { show: false }, gap: 6 };
  const words = !lines.length ? "Switched off." : empty ? "Nothing here." : null;
  const none = words && el("p", { class: "empty" }, words);
  const labels = labelled(panel, width);
  const nameRoom = labels ? Math.min(220, 14 + Math.max(0, ...named(panel).map((l) => textWidth(clip(labelOf(l), 26) + " ✕")))) : 12;
  const tip = el("div", { class: "tip", hidden: true });
  const chart = new uPlot(
    {
      width, height, padding: [10, nameRoom, 0, 0], legend: { show: false },
      scales: {
        x: { time: false, distr: panel.logx ? 3 : 1, range: () => xRange },
        y: { distr: panel.logy ? 3 : 1, range: () => yRange },
      },
      axes: [
        { ...axis, label: panel.x, labelSize: 22, size: 30, values: (u, v) => v.map((t) => tickText(t)),
          splits: () => ticksOf(...xRange, panel.logx, width < 420 ? 4 : 7, panel.whole), filter: (u, v) => v },
        { ...axis, size: 56, values: (u, v) => v.map((t) => tickText(t, panel.percent)),
          splits: () => ticksOf(...yRange, panel.logy, 6), filter: (u, v) => v },
      ],
      series, bands,
      cursor: {
        y: false, points: { show: false }, sync: options.sync ? { key: options.sync, setSeries: false } : undefined,
        drag: { x: Boolean(panel.zoomable), y: false, setScale: false },
        bind: { dblclick: () => () => options.reset && setTimeout(options.reset) },
      },
      select: { show: Boolean(panel.zoomable), left: 0, top: 0, width: 0, height: 0 },
      hooks: {
        draw: [(u) => extras(u, panel, lines, labels, dark)],
        setCursor: [(u) => showTip(u, panel, tip)],
        setSelect: [(u) => {
          if (u.select.width < 8 || !options.zoom) return;
          const ends = [u.select.left, u.select.left + u.select.width].map((p) => u.posToVal(p, "x"));
          // uPlot is still within the event: it would leave its listeners behind
          setTimeout(() => options.zoom(ends));
        }],
      },
    },
    data, host,
  );
  chart.over.append(tip);
  if (none) chart.over.append(none);
  touched(chart.over);
  return chart;
}

/* uPlot listens to a mouse: a finger that moves sideways is one (up and down scrolls the page). */
function touched(over) {
  const kinds = { pointerdown: "mousedown", pointermove: "mousemove", pointerup: "mouseup" };
  for (const [kind, mouse] of Object.entries(kinds))
    over.addEventListener(kind, (event) => {
      if (event.pointerType !== "touch") return;
      // uPlot takes a move by nothing for a stray one
      over.dispatchEvent(new MouseEvent(mouse, { bubbles: true, clientX: event.clientX, clientY: event.clientY, movementX: 1 }));
    });
}

/* How many crosses are there already: they stand side by side, so that none covers another. */
function counter() {
  const count = new Map();
  return (x) => {
    count.set(x, (count.get(x) ?? -1) + 1);
    return count.get(x);
  };
}

/* Dots, crosses and names, on uPlot's canvas. */
function extras(u, panel, lines, labels, dark) {
  const { ctx } = u, ratio = uPlot.pxRatio, box = u.bbox;
  const X = (v) => u.valToPos(v, "x", true), Y = (v) => u.valToPos(v, "y", true);
  ctx.save();
  const cross = (x, y, color) => {
    const r = 4 * ratio;
    for (const [stroke, width] of [[cssColor("--paper"), 4.5], [color, 2.2]]) {
      ctx.beginPath();
      ctx.strokeStyle = stroke;
      ctx.lineWidth = width * ratio;
      ctx.moveTo(x - r, y - r); ctx.lineTo(x + r, y + r);
      ctx.moveTo(x - r, y + r); ctx.lineTo(x + r, y - r);
      ctx.stroke();
    }
  };
  if (panel.reference) {
    const at = Y(panel.reference);
    ctx.strokeStyle = ctx.fillStyle = cssColor("--soft");
    ctx.lineWidth = ratio;
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(box.left, at); ctx.lineTo(box.left + box.width, at);
    ctx.stroke();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = "right";
    const below = at + 14 * ratio < box.top + box.height;  // where no curve is
    ctx.textBaseline = below ? "top" : "bottom";
    ctx.fillText("least squares", box.left + box.width - 4 * ratio, at + (below ? 2 : -2) * ratio);
  }
  ctx.setLineDash([]);
  const beside = counter();
  for (const line of lines) {
    const color = ink(lookOf(line).color, dark);
    ctx.fillStyle = withAlpha(color, 0.45);
    for (const [x, y] of line.dots || []) {
      const at = usable(panel, y, panel.logy);
      if (at === null || at > u.scales.y.max) continue;
      ctx.beginPath();
      ctx.arc(X(num(x)), Y(at), 3 * ratio, 0, 7);
      ctx.fill();
    }
    ctx.fillStyle = color;
    for (const x of above(panel, line, u.scales.y.max)) {
      const r = 4.5 * ratio;
      ctx.beginPath();
      ctx.moveTo(X(x) - r, box.top + 1.6 * r); ctx.lineTo(X(x) + r, box.top + 1.6 * r); ctx.lineTo(X(x), box.top);
      ctx.fill();
    }
    const edge = panel.percent ? box.top + box.height : box.top;
    for (const x of line.lost || []) cross(X(num(x)) - 9 * ratio * beside(x), edge, color);
    for (const [x, y] of line.ends || []) {
      const at = usable(panel, y, panel.logy);
      if (at === null || x < u.scales.x.min || x > u.scales.x.max) continue;
      cross(X(x), Math.min(Math.max(Y(at), box.top), box.top + box.height), color);
    }
  }
  if (labels) {
    ctx.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    for (const { text, y, color } of endLabels(u.scales, panel, lines, (v) => Y(v) / ratio, box.top / ratio, (box.top + box.height) / ratio)) {
      ctx.fillStyle = legible(color, dark);
      ctx.fillText(text, box.left + box.width + 6 * ratio, y * ratio);
    }
  }
  ctx.restore();
}

/* The names at the lines' ends, moved apart so that none covers another. */
function endLabels(scales, panel, lines, Y, top, bottom) {
  const found = [];
  for (const line of lines) {
    if (line.run !== undefined) continue;
    const own = points(panel, line).filter((p) => p[1] !== null && p[0] <= scales.x.max);
    const lost = line.ends && line.ends.length ? " ✕" : ""; // where it ends is not where the name stands
    const inside = own.filter((p) => p[0] >= scales.x.min);
    const end = valueAt(panel, line, scales.x.max) ?? (inside.length ? inside.at(-1)[1] : null);
    if (end !== null) found.push({ text: clip(labelOf(line), 26) + lost, want: Math.max(top, Y(end)), color: lookOf(line).color });
  }
  found.sort((a, b) => a.want - b.want);
  const step = Math.min(14, (bottom - top) / Math.max(1, found.length));
  let last = top - step / 2;
  for (const entry of found) last = entry.y = Math.max(entry.want, last + step);
  let below = bottom + step / 2;
  for (const entry of found.reverse()) below = entry.y = Math.min(entry.y, below - step);
  return found;
}

const PEN = document.createElement("canvas").getContext("2d");
function textWidth(text) {
  PEN.font = "600 12px system-ui, sans-serif";
  return PEN.measureText(text).width;
}
// long names often differ at their ends alone
const clip = (text, most) =>
  text.length > most ? text.slice(0, most - 1 - (most >> 1)) + "…" + text.slice(-(most >> 1)) : text;

function showTip(u, panel, tip) {
  const { left, top } = u.cursor;
  if (left === undefined || left < 0 || !(u.cursor.event || u.keyed)) {
    tip.hidden = true;
    return;
  }
  const x = u.posToVal(left, "x");
  const rows = reading(panel, x);
  tip.replaceChildren(
    el("div", { class: "tip-x" }, `${panel.x}: ${fmt(rows.length ? nearest(rows, x) : x)}`),
    ...rows.slice(0, 14).map((row) =>
      el("div", { class: "tip-row" }, swatch(lookOf(row.line)), el("b", {}, clip(labelOf(row.line), 28)), el("span", {}, readingText(panel, row)))),
  );
  tip.hidden = !rows.length;
  const room = u.over.clientWidth;
  const wide = tip.offsetWidth;
  const place = left + 14 + wide < room ? left + 14 : left - 14 - wide;
  tip.style.left = Math.max(-50, Math.min(place, room - wide)) + "px";
  tip.style.top = Math.max(0, Math.min((top < 0 ? 0 : top) - 20, u.over.clientHeight - tip.offsetHeight)) + "px";
}

const nearest = (rows, x) => rows.map((r) => r.at).reduce((a, b) => (Math.abs(b - x) < Math.abs(a - x) ? b : a));
