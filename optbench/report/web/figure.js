/* Figures on the page: charts, or a picture, with their words, their numbers and their buttons. */

/* A figure: its panels, what it says in words, a table of its numbers, and buttons to keep it. */
function figure(host, { title, note, how, make, sync, zoomable, ownY }) {
  const status = el("p", { class: "visually-hidden", role: "status", "aria-live": "polite" });
  const grid = el("div", { class: "panels" });
  const words = el("p", { class: "note" });
  const table = el("details", { class: "numbers" }, el("summary", {}, "The numbers as a table"));
  const name = () => slug(`${title} ${panels[0].y}`);
  let panels = [], charts = [];
  const button = (text, label, action) => el("button", { type: "button", class: "small", "aria-label": `Download ${title} as ${label}`, onclick: action }, text);
  const tools = el("div", { class: "tools" },
    button("CSV", "CSV", () => saveCsv(name(), csvOf(panels))),
    button("PNG", "PNG", () => savePng(name(), svgText(svgOf(panels, title, words.textContent)))),
    button("SVG", "SVG", () => save(name() + ".svg", new Blob([svgText(svgOf(panels, title, words.textContent))], { type: "image/svg+xml" }))));
  host.append(el("figure", { class: "chart", "aria-label": title }, grid, el("figcaption", {}, el("div", {}, words, how ? el("p", { class: "hint" }, how) : null), tools), table, status));

  const zoom = zoomable && ((ends) => { view.zoom = ends; writeView(); draw(); });
  const reset = zoomable && (() => { view.zoom = null; writeView(); draw(); });

  function keys(event, chart, panel, box) {
    const move = { ArrowRight: 1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
    const room = chart.over.clientWidth;
    let left = chart.cursor.left >= 0 ? chart.cursor.left : 0;
    if (move) left = step(left, move, chart, panel);
    else if (event.key === "Home") left = 0;
    else if (event.key === "End") left = room;
    else if ((event.key === "+" || event.key === "-") && zoom) {
      const at = left / room, grow = event.key === "+" ? 0.25 : -0.5;
      const ends = [grow * at * room, room - grow * (1 - at) * room].map((p) => chart.posToVal(p, "x"));
      within(ends, panel);
      event.preventDefault();
      return;
    } else if (event.key === "0" && reset) return reset();
    else if (event.key === "Escape") left = -10;
    else return;
    event.preventDefault();
    left = Math.min(room - 0.5, Math.max(event.key === "Escape" ? -10 : 0, left));
    chart.keyed = true;
    chart.setCursor({ left, top: left < 0 ? -10 : chart.over.clientHeight / 3 });
    const x = chart.posToVal(left, "x"), rows = reading(panel, x);
    status.textContent = left < 0 || !rows.length ? "" : `${panel.x} ${fmt(nearest(rows, x))}. ` + rows.map((row) => `${row.line.name} ${readingText(panel, row)}`).join("; ");
  }

  /* Zoom to these ends, or to what there is of them. */
  function within(ends, panel) {
    const whole = rangesOf({ ...panel, zoomable: false }).xRange;
    const [low, high] = [Math.max(ends[0], whole[0]), Math.min(ends[1], whole[1])];
    if (low <= whole[0] && high >= whole[1]) reset();
    else zoom([low, high]);
  }

  /* The cursor's next place: that of a point further on, and not nearer than can be told apart. */
  function step(left, move, chart, panel) {
    const room = chart.over.clientWidth;
    const own = visible(panel).flatMap((line) => points(panel, line).map((point) => chart.valToPos(point[0], "x")));
    const way = Math.sign(move), sorted = [...new Set(own)].filter((place) => place > -1 && place < room + 1).sort((a, b) => way * (a - b));
    for (let k = 0; k < Math.abs(move); k++) {
      const next = sorted.find((place) => way * (place - left) > Math.max(0.5, room / 250));
      if (next === undefined) return left;
      left = next;
    }
    return left;
  }

  function fill() {
    if (!table.open) return;
    const body = csvOf(panels), most = 400;
    const cells = body.slice(1, most + 1);
    const node = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Numbers of ${title}` }, el("table", {},
      el("caption", {}, body.length > most + 1 ? `${title}: the first ${most} of ${body.length - 1} points; the CSV has them all` : title),
      el("thead", {}, el("tr", {}, body[0].map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, cells.map((row) => el("tr", {}, row.map((cell, i) => (i === 1 ? el("th", { scope: "row" }, String(cell)) : el("td", {}, typeof cell === "number" ? fmt(cell) : String(cell)))))))));
    table.querySelector(".scroll")?.remove();
    table.append(node);
  }
  table.addEventListener("toggle", fill);

  function draw() {
    if (zoomable) document.getElementById("reset-zoom").disabled = !view.zoom;
    const focused = grid.contains(document.activeElement) ? [...grid.children].indexOf(document.activeElement.closest(".panel")) : -1;
    charts.forEach((chart) => chart.destroy());
    panels = make();
    if (zoomable) for (const panel of panels) panel.zoomable = true;
    const scale = settle(panels, !ownY);
    if (!ownY) shareY(panels);
    grid.dataset.count = Math.min(panels.length, 3);
    const boxes = panels.map((panel) => {
      const plot = el("div", { class: "plot", tabindex: 0, role: "group", "aria-roledescription": "chart", "aria-label": describePanel(panel) + " Arrow keys read values." });
      return el("div", { class: "panel" }, panel.title ? el("h3", {}, panel.title) : null, el("div", { class: "y-label" }, panel.y), plot);
    });
    grid.replaceChildren(...boxes);
    charts = panels.map((panel, i) => {
      const plot = boxes[i].querySelector(".plot");
      const chart = drawPanel(plot, panel, { sync, zoom, reset });
      // the switches name optimizers, and not always what a line is
      if (!labelled(panel, plot.clientWidth) && named(panel).some((line) => line.name !== line.toggle || labelOf(line) !== line.name))
        boxes[i].append(el("ul", { class: "legend" }, named(panel).map((line) => el("li", {}, swatch(lookOf(line)), labelOf(line)))));
      plot.addEventListener("keydown", (event) => keys(event, chart, panel, plot));
      plot.addEventListener("blur", () => { chart.keyed = false; chart.setCursor({ left: -10, top: -10 }); });
      return chart;
    });
    if (focused >= 0) boxes[focused]?.querySelector(".plot").focus();
    words.textContent = (typeof note === "function" ? note(panels) : note || "") + scale;
    table.querySelector(".scroll")?.remove();
    fill();
  }
  draw();
  return { draw, get panels() { return panels; }, get charts() { return charts; } };
}

/* A picture made by matplotlib: an image cannot run anything, whatever its text says. On a dark page
   its colours are those of the other charts. off: the attribute of what belongs to an optimizer that
   is switched off. */
function picture(host, title, image, csv, { note, off }) {
  const name = slug(title);
  const shownAs = el("img", { alt: `${title}: ${image.alt}. ${image.caption}`, class: "picture" });
  const button = (text, action) => el("button", { type: "button", class: "small", "aria-label": `Download ${title} as ${text}`, onclick: action }, text);
  host.append(el("figure", { class: "chart" },
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, shownAs),
    el("figcaption", {}, el("p", { class: "note" }, note), el("div", { class: "tools" },
      button("CSV", () => saveCsv(name, csv())),
      button("PNG", () => savePng(name, kept)),
      button("SVG", () => save(name + ".svg", new Blob([kept], { type: "image/svg+xml" })))))));
  let kept = image.svg;
  const draw = () => {
    // as text: a parsed document would run into the page's policy with its styles
    kept = image.svg.replace(/<g id="(optimizer-[\w-]+)\.[\w-]+"/g, (group, name) => (name in image.groups && !shown(image.groups[name]) ? `${group} ${off}` : group));
    const paper = cssColor("--paper");
    const text = !darkPage() ? kept : kept
      .replace(/#[0-9a-f]{6}\b/gi, (color) => (/#ffffff/i.test(color) ? paper : /#dddddd/i.test(color) ? cssColor("--rule") : ink(color, true)))
      .replace("<svg ", `<svg fill="${cssColor("--ink")}" `);
    shownAs.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  };
  draw();
  return { draw };
}
