/* Tables that sort, and the matrix of pairs. */

/* data: {columns, rows: [{toggle, cells: [{t, v, head}]}], note}. Clicking a header sorts.
   key: of the view, where the order is kept in the address. */
function sortable(host, title, data, key) {
  let column = -1, down = false;
  const order = [...data.rows.keys()];
  const body = el("tbody");
  const status = el("p", { class: "visually-hidden", role: "status", "aria-live": "polite" });
  const heads = data.columns.map((text, i) =>
    el("th", { scope: "col" }, el("button", { type: "button", onclick: () => sort(i, column === i ? !down : false) }, text, el("span", { class: "arrow", "aria-hidden": "true" }))));
  const table = el("table", { class: "sortable" }, el("caption", {}, title), el("thead", {}, el("tr", {}, heads)), body);

  const best = data.columns.map(() => null);
  function fill() {
    body.replaceChildren(...order.map((i) => data.rows[i]).map((row) =>
      el("tr", { hidden: !shown(row.toggle), "data-toggle": row.toggle }, row.cells.map((cell) =>
        cell.head
          ? el("th", { scope: "row" }, row.toggle ? swatch(LOOK.get(cell.t) || TOGGLES.get(row.toggle) || { color: "#777777", dash: [] }) : null, el("span", {}, cell.t))
          : el("td", { class: typeof num(cell.v) === "number" ? "number" : null }, cell.t)))));
  }
  function sort(i, falling) {
    [column, down] = [i, falling];
    if (key) {
      view[key] = (down ? "-" : "") + (i + 1);
      writeView();
    }
    order.sort((a, b) => {
      const [x, y] = [a, b].map((r) => num(data.rows[r].cells[i].v));
      const words = typeof x === "string" || typeof y === "string";
      const lost = (v) => v === null || Number.isNaN(v);
      if (!words && (lost(x) || lost(y))) return lost(x) - lost(y);
      const by = words ? String(x).localeCompare(String(y), "en", { numeric: true }) : x === y ? 0 : x < y ? -1 : 1;
      return (down ? -by : by) || a - b;
    });
    heads.forEach((head, k) => (k === i ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
    status.textContent = `Sorted by ${data.columns[i]}, ${down ? "descending" : "ascending"}`;
    fill();
  }
  function unsort() {
    column = -1;
    order.sort((a, b) => a - b);
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    fill();
  }
  fill();
  const rows = () => [data.columns, ...order.map((i) => data.rows[i].cells.map((cell) => cell.t))];
  host.append(
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, table), status,
    el("div", { class: "foot" }, el("p", { class: "note" }, data.note || ""), el("div", { class: "tools" },
      el("button", { type: "button", class: "small", "aria-label": `Download ${title} as CSV`, onclick: () => saveCsv(slug(title), rows()) }, "CSV"))));
  function draw() {
    const asked = key ? Number(view[key]) : 0;
    if (asked && (Math.abs(asked) - 1 !== column || asked < 0 !== down)) sort(Math.abs(asked) - 1, asked < 0);
    else if (key && !asked && column >= 0) unsort();
    else fill();
  }
  return { draw };
}

/* Row minus column, with what may be claimed of the row's optimizer. */
function matrix(host, entry, percent) {
  const box = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Pairwise differences" + (entry.problem ? ", " + entry.problem : "") });
  const mark = { better: "▲", worse: "▼", "cannot tell": "" };
  function draw() {
    const kept = entry.names.map((_, i) => i).filter((i) => shown(entry.toggles[i]));
    const head = el("tr", {}, el("td"), kept.map((i) => el("th", { scope: "col" }, entry.names[i])));
    const rows = kept.map((i) => el("tr", {}, el("th", { scope: "row" }, entry.names[i]), kept.map((k) => {
      if (i === k) return el("td", { class: "self" }, "");
      const cell = (entry.cells[entry.names[i]] || {})[entry.names[k]];
      if (!cell) return el("td", { class: "self" }, "no pairs");
      const detail = `${entry.names[i]} minus ${entry.names[k]}: ${signed(cell.difference, percent)}, ${unbounded(cell.low, cell.high) ? "" : "95 % interval "}${intervalText(cell, percent)}, n = ${cell.n}, p = ${fmt(cell.p)}: ${cell.word}`;
      return el("td", { class: "pair " + cell.word.replace(" ", "-"), title: detail },
        el("span", { class: "difference" }, `${mark[cell.word]} ${signed(cell.difference, percent)}`.trim()),
        el("span", { class: "p" }, `p = ${fmt(cell.p)}`), el("span", { class: "visually-hidden" }, `, ${cell.word}, n = ${cell.n}`));
    })));
    box.replaceChildren(el("table", { class: "matrix" }, el("caption", {}, entry.problem || "Row minus column"), el("thead", {}, head), el("tbody", {}, rows)));
  }
  draw();
  const csv = () => [["a", "b", "difference (a - b)", "low", "high", "n", "p (corrected for all pairs)", "a is"],
    ...entry.names.flatMap((a) => entry.names.filter((b) => entry.cells[a]?.[b]).map((b) => {
      const c = entry.cells[a][b];
      return [a, b, num(c.difference), ...(unbounded(c.low, c.high) ? ["", ""] : [num(c.low), num(c.high)]), c.n, c.p, c.word];
    }))];
  host.append(box, el("div", { class: "foot" }, el("p", { class: "note" }, entry.left_out ? `The best ${entry.names.length}; ${entry.left_out} more are left out.` : ""),
    el("div", { class: "tools" }, el("button", { type: "button", class: "small", "aria-label": "Download the pairs as CSV", onclick: () => saveCsv("pairs-" + slug(entry.problem), csv()) }, "CSV"))));
  return { draw };
}
