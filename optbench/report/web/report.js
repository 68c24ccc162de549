/* The page: its sections from the data, its controls, and what redraws when they change. */

const parts = []; // whatever has a draw(): all follow the switches
const main = document.getElementById("main");
const nav = document.getElementById("nav");

function section(id, title, lead) {
  const node = el("section", { id, "aria-labelledby": id + "-title" }, el("h2", { id: id + "-title", tabindex: -1 }, title), lead ? el("p", { class: "lead" }, lead) : null);
  main.append(node);
  // the fragment belongs to the view, so a link scrolls instead of changing it
  nav.append(el("li", {}, el("a", { href: "#" + id, onclick: (event) => {
    event.preventDefault();
    node.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    document.getElementById(id + "-title").focus({ preventScroll: true });
  } }, title)));
  return node;
}

function redraw() {
  writeView();
  paintTheme();
  paintSwitches();
  for (const part of parts) part.draw();
}

/* ---- the head: what was compared, the switches ---- */

document.getElementById("facts").append(...DATA.facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));

const switches = document.getElementById("switches");
function paintSwitches() {
  for (const button of switches.querySelectorAll("button[data-name]")) {
    const on = shown(button.dataset.name);
    button.setAttribute("aria-pressed", on);
    button.firstChild.replaceWith(swatch(TOGGLES.get(button.dataset.name)));
  }
}
function buildSwitches() {
  for (const [name, entry] of TOGGLES)
    switches.append(el("button", { type: "button", class: "switch", "data-name": name, "aria-pressed": "true", onclick: () => {
      view.hide = shown(name) ? [...view.hide, name] : view.hide.filter((other) => other !== name);
      redraw();
    } }, swatch(entry), el("span", {}, entry.label)));
  if (TOGGLES.size > 2)
    switches.append(el("button", { type: "button", class: "switch plain", onclick: () => { view.hide = []; redraw(); } }, "all"));
}

document.getElementById("theme").addEventListener("click", () => {
  view.theme = darkPage() ? "light" : "dark";
  redraw();
});
function paintTheme() {
  if (view.theme) document.documentElement.dataset.theme = view.theme;
  else delete document.documentElement.dataset.theme;
  document.getElementById("theme").textContent = darkPage() ? "Light" : "Dark";
}

/* ---- the claim of a study, and the verdict ---- */

function claimSection() {
  const claim = DATA.claim;
  section("claim", "Claim").append(el("article", { class: "card " + claim.level },
    el("p", { class: "kicker" }, el("span", {}, "The study claims"), el("span", { class: "badge" }, claim.word)),
    el("p", { class: "claimed" }, claim.text), el("h3", {}, claim.headline), el("ul", {}, claim.checks.map((check) => el("li", {}, check.text))),
    claim.notes.map((text) => el("p", { class: "note" }, "Warning: " + text + ".")), claim.tests.map((text) => el("p", { class: "note" }, text))));
}

function verdictSection() {
  const node = section("verdict", "Verdict");
  const percent = DATA.verdict.percent;
  const cards = DATA.verdict.cards;
  const words = { clear: "clear", partly: "partly", open: "cannot tell", none: "nothing to compare" };
  if (!cards.length) node.append(el("p", { class: "lead" }, DATA.verdict.nothing || "Cannot tell: there is nothing to compare in these runs."));
  const asked = DATA.verdict.candidate;
  if (asked) {
    const level = { better: "clear", worse: "partly" }[asked.outcome] || "open";
    const rows = asked.problems.map((pair) => el("tr", {}, el("th", { scope: "row" }, pair.problem), el("td", {}, pair.baseline),
      el("td", {}, el("span", { class: "word " + pair.outcome.replace(" ", "-") }, pair.outcome)),
      el("td", { class: "number" }, pair.difference === null ? "" : signed(pair.difference, percent), el("span", { class: "interval" }, intervalText(pair, percent))),
      el("td", { class: "number" }, String(pair.n)), el("td", { class: "number" }, fmt(pair.p))));
    node.append(el("article", { class: "card asked " + level },
      el("p", { class: "kicker" }, el("span", {}, `The candidate: ${asked.candidate}`), el("span", { class: "badge" }, asked.outcome)),
      el("h3", {}, asked.claim), el("p", { class: "note" }, "For a paper: " + asked.sentence), asked.caveats.map((text) => el("p", { class: "note" }, "Warning: " + text + ".")),
      el("details", { open: rows.length <= 8 }, el("summary", {}, "On each problem, candidate minus baseline"),
        el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The candidate on each problem" }, el("table", { class: "against" },
          el("thead", {}, el("tr", {}, ["problem", "baseline", "the candidate is", "difference, 95 % interval", "n", "p"].map((t) => el("th", { scope: "col" }, t)))),
          el("tbody", {}, rows))))));
  }
  const grid = el("div", { class: "cards", "data-count": Math.min(cards.length, 2) });
  for (const card of cards) {
    const rows = [
      ["Final " + DATA.verdict.column, `${fmt(card.value, percent)} (median of n = ${card.n}${card.lost ? `, ${card.lost} diverged` : ""})`],
      ["By how much", card.margin],
      ["Cost", card.cost],
      ["Learning rate", card.rate],
    ].filter(([, text]) => text);
    const against = card.against.length ? el("details", { open: card.against.length <= 8 }, el("summary", {}, `${card.leader} against the others`),
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Comparisons with " + card.leader }, el("table", { class: "against" },
        el("thead", {}, el("tr", {}, ["against", "the other is", "difference, 95 % interval", "n", "p"].map((t) => el("th", { scope: "col" }, t)))),
        el("tbody", {}, card.against.map((pair) => el("tr", {}, el("th", { scope: "row" }, pair.name),
          el("td", {}, el("span", { class: "word " + pair.word.replace(" ", "-") }, pair.word)),
          el("td", { class: "number" }, signed(pair.difference, percent), el("span", { class: "interval" }, intervalText(pair, percent))),
          el("td", { class: "number" }, String(pair.n)), el("td", { class: "number" }, fmt(pair.p)))))))) : null;
    grid.append(el("article", { class: "card " + card.level },
      el("p", { class: "kicker" }, el("span", {}, card.problem || "this problem"), el("span", { class: "badge" }, words[card.level])),
      el("h3", {}, card.headline), el("dl", {}, rows.map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text)))), against,
      card.settle ? el("p", { class: "note" }, "This settles it: ", el("code", {}, card.settle))
        : card.against.length && card.n < card.enough ? el("p", { class: "note" }, `With ${card.against.length} comparison${card.against.length > 1 ? "s" : ""} no test can pass below n = ${card.enough} seeds.`) : null,
      card.against.length ? el("p", { class: "note" }, `The leader was chosen by ${card.chosen}.`) : null));
  }
  if (cards.length > 4) {
    const rows = cards.map((card) => ({ toggle: "", cells: [
      { t: card.problem, v: card.problem, head: true }, { t: words[card.level], v: card.level }, { t: card.headline, v: card.leader },
      { t: fmt(card.value, percent), v: card.value }, { t: String(card.n), v: card.n }] }));
    sortable(node, "Verdicts", { columns: ["problem", "how clear", "verdict", "final " + DATA.verdict.column, "n"], rows });
    node.append(el("details", {}, el("summary", {}, "Each problem in full"), grid));
  } else node.append(grid);
  if (DATA.verdict.note) node.append(el("p", { class: "note" }, DATA.verdict.note));
  if (DATA.warnings.length)
    node.append(el("div", { class: "warnings" }, el("h3", {}, "What a reviewer would object to"), el("ul", {}, DATA.warnings.map((text) => el("li", {}, text))),
      DATA.warnings.some((text) => text.includes("seeds needed")) ? el("p", { class: "note" }, "Seeds needed: an estimate for the values and the pair named, by the test over all pairs; other values, pairs or tests need other numbers.") : null,
      DATA.toggles.length > 1 && DATA.names.length > DATA.toggles.length ? el("p", { class: "note" }, "As in the verdict, the first setting is compared with the best one of every other optimizer; where the first two are settings of one optimizer, with all settings.") : null));
}

/* ---- curves ---- */

function curvePanels() {
  const metric = metricNow(), clock = view.x, facet = DATA.curves.facets.findIndex((f) => f.key === view.panels);
  const groups = new Map();
  for (const run of DATA.curves.runs) {
    const columns = run[metric.rows];
    if (!columns || columns[metric.key] === undefined || columns[clock] === undefined) continue;
    const key = [run.panel, facet < 0 ? 0 : run.keys[facet]];
    const id = key.join("/");
    if (!groups.has(id)) groups.set(id, { key, runs: [] });
    groups.get(id).runs.push(run);
  }
  const weight = Number(view.smooth);
  const sorted = [...groups.values()].sort((a, b) => a.key[0] - b.key[0] || a.key[1] - b.key[1]);
  return sorted.map(({ key, runs }) => {
    const head = facet < 0 ? "" : `${view.panels} = ${DATA.curves.facets[facet].values[key[1]]}`;
    const title = [DATA.curves.panels[key[0]], DATA.curves.panels[key[0]].includes(head) ? "" : head].filter(Boolean).join(", ");
    const lines = [];
    const starts = [];
    const within = new Set([head, title].flatMap((text) => text.replaceAll(" = ", "=").split(", ")));
    const label = (text) => text.split(", ").filter((part) => !within.has(part)).join(", ") || text;
    DATA.names.forEach((name, index) => {
      const own = runs.filter((run) => run.series === index);
      if (!own.length) return;
      const summed = aggregate(own, metric, clock);
      if (view.spread === "runs" && own.length > 1)
        for (const run of own) {
          const columns = run[metric.rows];
          lines.push({ ...name, run: `seed ${run.seed}`, faint: true, n: 1, x: Array.from(STORE[columns[clock]]), mid: smoothed(Array.from(STORE[columns[metric.key]], (v) => (Number.isFinite(v) ? v : null)), weight) });
        }
      const banded = view.spread === "band" && own.length > 1;
      lines.push({ ...name, label: label(name.label), n: own.length, x: summed.x, mid: smoothed(summed.mid, weight), low: banded ? smoothed(summed.low, weight) : null, high: banded ? smoothed(summed.high, weight) : null, ends: summed.ends });
      const first = summed.high.find((v) => v !== null);
      if (first !== undefined) starts.push(first);
    });
    keepBands(lines.filter((line) => line.run === undefined), metric.smaller);
    const logy = view.yscale ? view.yscale === "log" : metric.log;
    const capped = !metric.percent && starts.length && metric.key !== "lr";
    const top = (panel) => (capped ? limitOf(medianOf(starts), panel, panel.logy ? 4 : 2) : undefined);
    const least = metric.rows === "epochs" && metric.key === "train_loss" ? DATA.curves.references[key[0]] : null;
    return { title, reference: least, x: DATA.curves.clocks[clock], y: metric.label, logx: view.xscale === "log", logy, percent: metric.percent, whole: clock !== "seconds", lines, top };
  });
}

/* Bands of many lines cover each other: the best line at the end keeps its own. */
function keepBands(lines, smaller) {
  if (lines.length <= DATA.curves.bands) return;
  const end = (line) => (smaller ? 1 : -1) * (line.mid.at(-1) ?? (smaller ? Infinity : -Infinity));
  const best = Math.min(...lines.map(end));
  for (const line of lines) if (end(line) !== best) line.low = line.high = null;
}

function curveNote(panels) {
  const crowded = panels.some((p) => p.lines.filter((l) => l.run === undefined).length > DATA.curves.bands);
  const whose = crowded ? ` (in panels of more than ${DATA.curves.bands} lines only of the best)` : "";
  const spread = { band: `band${whose}: minimum to maximum of the runs that did not diverge`, runs: "thin lines: single runs", none: "spread hidden" }[view.spread];
  const counts = panels.flatMap((p) => p.lines.filter((l) => l.run === undefined).map((l) => l.n));
  const low = Math.min(...counts), high = Math.max(...counts);
  const n = low === high ? `${low} seed${low > 1 ? "s" : ""}` : `${low} to ${high} seeds`;
  let text = high > 1 ? `Median of ${n}; ${spread}.` : "One seed per line.";
  if (panels.some((p) => p.lines.some((l) => l.ends && l.ends.length))) text += " ✕ diverged, counted as infinitely bad from there.";
  if (panels.some((p) => p.reference !== null)) text += " Dotted line: the least-squares solution, below which no run can come.";
  if (Number(view.smooth)) text += ` Smoothed exponentially (weight ${view.smooth}): the lines shown, not the data of the tables.`;
  if (view.x === "seconds" && DATA.curves.timing) text += ` ${DATA.curves.timing[0].toUpperCase()}${DATA.curves.timing.slice(1)}.`;
  const rows = DATA.curves.rows[metricNow().rows];
  if (rows > DATA.curves.most) text += ` Thinned to ${DATA.curves.most} of ${rows} rows per run.`;
  return text + ABOUT;
}

function select(label, key, options) {
  const id = "control-" + key;
  const node = el("select", { id, onchange: () => { view[key] = node.value; if (key === "x" || key === "xscale") view.zoom = null; redraw(); } },
    options.map(([value, text]) => el("option", { value }, text)));
  return { box: el("div", { class: "control" }, el("label", { for: id }, label), node), sync: () => (node.value = view[key]) };
}

function curveSection() {
  const node = section("curves", "Curves");
  if (!DATA.curves.metrics.length) {
    node.append(el("p", { class: "lead" }, "All runs diverged before a finite value was logged: there is no curve to draw."));
    return;
  }
  const doubles = new Set(DATA.curves.metrics.map((m) => m.label)).size < DATA.curves.metrics.length;
  const controls = [
    select("Metric", "y", DATA.curves.metrics.map((m) => [metricKey(m), doubles && m.rows === "steps" ? m.label + " (steps)" : m.label])),
    select("Against", "x", Object.entries(DATA.curves.clocks)),
    select("y axis", "yscale", [["", "as usual"], ["log", "logarithmic"], ["linear", "linear"]]),
    select("x axis", "xscale", [["linear", "linear"], ["log", "logarithmic"]]),
    select("Seeds", "spread", [["band", "median and band"], ["runs", "median and single runs"], ["none", "median alone"]]),
  ];
  if (DATA.curves.facets.length) controls.push(select("Panels by", "panels", [["", "problem"], ...DATA.curves.facets.map((f) => [f.key, f.key])]));
  const value = el("output", { for: "control-smooth" });
  const slider = el("input", { type: "range", id: "control-smooth", min: 0, max: 0.98, step: 0.02, oninput: () => { view.smooth = String(Number(slider.value)); value.textContent = view.smooth; redraw(); } });
  controls.push({ box: el("div", { class: "control" }, el("label", { for: "control-smooth" }, "Smoothing ", value), slider), sync: () => { slider.value = view.smooth; value.textContent = view.smooth; } });
  const bar = el("div", { class: "controls" }, controls.map((c) => c.box),
    el("div", { class: "control buttons" }, el("button", { type: "button", id: "reset-zoom", onclick: () => { view.zoom = null; redraw(); } }, "Reset zoom"),
      el("button", { type: "button", id: "reset-view", onclick: () => { view = { ...DEFAULTS, hide: [], theme: view.theme }; redraw(); } }, "Reset all")));
  node.append(bar);
  parts.push({ draw: () => controls.forEach((c) => c.sync()) });
  const chart = figure(node, { title: "Curves", note: curveNote, how: "Drag to zoom, double-click to see all. By keyboard: arrows read values, + and − zoom, 0 shows all.", make: curvePanels, sync: "curves", zoomable: true });
  parts.push(chart);
  window.optbench = { chart, aggregate, data: DATA, metricNow };
}

/* ---- the other sections ---- */

/* what few searches of each optimizer are about, as a sentence; of a sweep or many searches "" */
const ABOUT = DATA.settings ? ` ${DATA.settings}.` : "";
const dressed = (panels, more = {}) => () => panels.map((panel) => ({ ...panel, ...more }));

function rest() {
  let node = section("ranking", "Ranked table", "Click a heading to sort.");
  parts.push(sortable(node, "Final values", DATA.ranking, "sort"));

  if (DATA.matrices.length || DATA.ranks) {
    node = section("pairs", "Pairs and ranks", DATA.matrices.length ? DATA.pairs_lead : null);
    for (const entry of DATA.matrices) parts.push(matrix(node, entry, DATA.verdict.percent));
    if (DATA.ranks) {
      node.append(el("h3", {}, "Critical-difference diagram"));
      parts.push(picture(node, "Critical difference", DATA.ranks, () => [["optimizer", "mean rank"], ...DATA.ranks.rows],
        { off: 'opacity="0.25"', note: "Nemenyi's test compares mean ranks alone, and not the differences: a bar may join two that the pairs or the verdict tell apart. Who is switched off is faded; ranks, bars and test stay those of all." + ABOUT }));
    }
  }
  if (DATA.rates) {
    node = section("rates", "Learning-rate sensitivity");
    const note = DATA.rates.some((p) => p.lines.some((l) => l.dots)) ? "A point per trial; the line joins the best trial of each half decade, whatever its other settings. ✕ diverged, ▲ above the axis." : "Median over seeds, band: minimum to maximum of those that did not diverge. ✕ at least one seed diverged, ▲ above the axis.";
    parts.push(figure(node, { title: "Learning rates", note: note + ABOUT, make: dressed(DATA.rates.map((p) => ({ ...p, top: capOf, lines: p.lines.map((l) => ({ ...l, marks: true })) })), { dotted: true }) }));
  }
  if (DATA.budget) {
    node = section("budget", "Tuning budget", "The best validation result to expect of so many random trials.");
    parts.push(figure(node, { title: "Tuning budget", note: "Bootstrapped from the trials of all searches of an optimizer, without the default one; band: 95 % interval." + ABOUT, make: dressed(DATA.budget.map((p) => ({ ...p, top: capOf })), { whole: true }) }));
  }
  if (DATA.searched) {
    node = section("searched", "What was searched", "The trials of each optimizer varied these hyperparameters, within these ends.");
    parts.push(sortable(node, "Searched spaces", DATA.searched));
    if (DATA.chosen) parts.push(sortable(node, "Chosen settings", DATA.chosen));
    if (DATA.spread) parts.push(sortable(node, "Spread over searches and over seeds", DATA.spread));
  }
  if (DATA.reached) {
    node = section("target", "Time to target");
    if (DATA.reached_figure) parts.push(picture(node, "Times to target", DATA.reached_figure, () => [DATA.reached.columns, ...DATA.reached.rows.map((r) => r.cells.map((c) => c.t))],
      { off: 'display="none"', note: "Who is switched off is left out; the target and the axes stay those of all." + ABOUT }));
    parts.push(sortable(node, "Time to target", DATA.reached));
  }
  if (DATA.performance) {
    node = section("profile", "Performance profile", "The share of problems on which an optimizer came within a multiple of the fastest.");
    parts.push(figure(node, { title: "Performance profile", note: "Medians over seeds; the higher, the more problems." + ABOUT, make: dressed(DATA.performance.panels.map((p) => ({ ...p, lines: p.lines.map((l) => ({ ...l, stairs: true })) }))) }));
    parts.push(sortable(node, "Benchmark scores", DATA.performance.table));
  }
  if (DATA.layers) layerSection();
  failures();
  reproduce();
}

/* So many times the start, as far as losses have multiples: where one is negative, as far above
   the start as the lowest value lies below it (as optbench.analysis.final_values.untrained_limit). */
function limitOf(start, panel, factor) {
  const least = lowest(panel);
  const limit = least < 0 ? 2 * start - least : factor * start;
  return limit > start ? limit : undefined;
}

/* A multiple of the median of what a panel shows, where one value would squeeze the rest. */
function capOf(panel) {
  if (panel.percent) return undefined;
  const values = panel.lines.flatMap((l) => [...(l.mid || []), ...(l.dots || []).map((d) => d[1])]).map(num).filter(Number.isFinite).sort((a, b) => a - b);
  return values.length ? limitOf(values[values.length >> 1], panel, panel.logy ? 20 : 4) : undefined;
}

function layerSection() {
  const node = section("layers", "Layers", "Statistics of the layers while training, medians over the seeds.");
  if (!DATA.layers.metrics.includes(view.layer)) view.layer = DATA.layers.metrics.includes("update_ratio") ? "update_ratio" : DATA.layers.metrics[0];
  DEFAULTS.layer = view.layer;
  const control = select("Statistic", "layer", DATA.layers.metrics.map((m) => [m, m.replaceAll("_", " ")]));
  node.append(el("div", { class: "controls" }, control.box));
  const make = () => {
    const log = !/mean|fraction|rank/.test(view.layer);
    const panels = new Map();
    for (const line of DATA.layers.lines) {
      if (!line.values[view.layer]) continue;
      if (!panels.has(line.panel)) panels.set(line.panel, { title: line.panel, x: "optimizer steps", y: view.layer.replaceAll("_", " "), logx: false, logy: log, percent: false, lines: [] });
      panels.get(line.panel).lines.push({ ...line, mid: line.values[view.layer] });
    }
    return [...panels.values()];
  };
  parts.push({ draw: control.sync });
  control.sync();
  const known = new Set(DATA.layers.lines.map((line) => line.toggle));
  const lacking = [...TOGGLES.keys()].filter((name) => !known.has(name));
  const without = lacking.length ? ` Of ${lacking.join(", ")} there is nothing: not logged, or diverged before.` : "";
  parts.push(figure(node, { title: "Layers", note: "A panel per layer, each with its own y axis." + without, make, ownY: true }));
}

function failures() {
  const bad = DATA.runs.runs.filter((run) => run.status !== "completed");
  const node = section("failures", "Diverged, failed and missing runs");
  const lists = [...DATA.failed_jobs.map((job) => ["failed before it began", job.command, job.message]), ...DATA.missing.map((text) => ["missing", text, ""]), ...DATA.left_out.map((text) => ["left out", text, ""])];
  if (!bad.length && !lists.length) {
    node.append(el("p", {}, "None: every run came to its end."));
    return;
  }
  const rows = [...bad.map((run) => [run.status, `${run.name}, seed ${run.seed}${run.phase ? ", " + run.phase : ""} (${run.run})`, run.message]), ...lists];
  const data = { columns: ["what", "which", "message"], rows: rows.map((row) => ({ toggle: "", cells: row.map((t, i) => ({ t, v: t, mono: i === 1 })) })), note: "A diverged run counts as the worst value in every statistic; failed and missing ones are in none." };
  parts.push(sortable(node, "Runs that did not complete", data));
}

function reproduce() {
  const node = section("reproduce", "Reproduce", "The command of each run, and its configuration. Versions and machine are at the end.");
  const most = 25;
  const list = el("div", { class: "runs" });
  const filter = el("input", { type: "search", id: "run-filter", oninput: fill, placeholder: "adam seed=1 …" });
  const count = el("p", { class: "note", role: "status" });
  function fill() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = DATA.runs.runs.filter((run) => shown(run.name) && words.every((w) => `${run.run} ${run.phase} ${run.status} ${run.command}`.toLowerCase().includes(w)));
    count.textContent = found.length > most ? `The first ${most} of ${found.length} runs; the filter finds the others.` : `${found.length} runs`;
    list.replaceChildren(...found.slice(0, most).map((run) => el("details", { class: "run" },
      el("summary", {}, el("b", {}, run.name), el("span", {}, `seed ${run.seed}`), run.phase ? el("span", { class: "tag" }, run.phase) : null, run.status !== "completed" ? el("span", { class: "tag bad" }, run.status) : null, el("code", {}, run.command.replace("python -m optbench ", ""))),
      el("pre", { tabindex: 0 }, run.command), el("button", { type: "button", class: "small", onclick: (event) => copy(event.target, run.command) }, "Copy"),
      el("p", { class: "note" }, run.run), pairsTable("What differs from other runs", run.differs))));
  }
  fill();
  const all = () => DATA.runs.runs.map((run) => [run.run, run.name, run.seed, run.phase, run.status, run.message, run.command]);
  node.append(el("div", { class: "controls" }, el("div", { class: "control" }, el("label", { for: "run-filter" }, "Find runs"), filter),
    el("div", { class: "control buttons" }, el("button", { type: "button", onclick: () => saveCsv("runs", [["run", "optimizer", "seed", "phase", "status", "message", "command"], ...all()]) }, "All as CSV"))), count, list,
    el("details", {}, el("summary", {}, `Configuration that all ${DATA.runs.runs.length} runs share`), pairsTable("Shared configuration", DATA.runs.shared)));
  parts.push({ draw: fill });
  node.append(el("h3", {}, "Versions and machine"), ...DATA.machines.map((m) => el("div", { class: "machine" }, el("p", {}, `${m.runs} run${m.runs > 1 ? "s" : ""}`), pairsTable("Versions and machine", m.facts))));
}

function pairsTable(title, pairs) {
  const rows = Object.entries(pairs);
  if (!rows.length) return null;
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, el("table", { class: "pairs" }, el("tbody", {}, rows.map(([key, value]) => el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, String(value)))))));
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy";
  }
}

/* ---- begin ---- */

readView();
buildSwitches();
paintTheme();
if (DATA.claim) claimSection();
verdictSection();
curveSection();
rest();
redraw();
let width = innerWidth;
let waiting = 0;
addEventListener("resize", () => {
  if (innerWidth === width) return; // a phone's address bar changes the height alone
  width = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(() => parts.forEach((part) => part.draw()), 120);
});
addEventListener("hashchange", () => { readView(); redraw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
