/* Charts as they are kept: drawn as SVG, that as PNG, and their numbers as CSV. */

function svgOf(panels, title, note = "") {
  const columns = panels.length > 1 ? 2 : 1, W = 560, H = 360;
  const rows = Math.ceil(panels.length / columns);
  const names = [...new Map(panels.flatMap((p) => visible(p).filter((l) => l.run === undefined)).map((l) => [l.name, l])).values()];
  const total = W * columns;
  const told = names.map((line) => clip((LOOK.get(line.name) || line).label || line.name, 30) + ` (n = ${line.n})`);
  const per = Math.max(1, Math.floor(total / (46 + Math.max(0, ...told.map(textWidth)))));
  const legend = 24 + 18 * Math.ceil(names.length / per);
  const notes = wrapped(note, Math.floor((total - 40) / 6.2));
  const foot = legend + 16 * notes.length;
  const root = svgEl("svg", { xmlns: SVG, viewBox: `0 0 ${total} ${H * rows + foot}`, width: total, height: H * rows + foot, "font-family": "system-ui, sans-serif", "font-size": 12 });
  root.append(svgEl("title", {}, title), svgEl("desc", {}, panels.map(describePanel).join(" ")), svgEl("rect", { width: "100%", height: "100%", fill: "#ffffff" }));
  panels.forEach((panel, index) => {
    const ox = (index % columns) * W, oy = Math.floor(index / columns) * H;
    const box = { left: ox + 64, top: oy + 34, right: ox + W - 20, bottom: oy + H - 50 };
    const lines = visible(panel);
    const own = lines.map((line) => points(panel, line));
    const { xRange: xr, yRange: yr } = rangesOf(panel);
    const scale = (range, log, from, to) => (v) => {
      const t = log ? Math.log(v / range[0]) / Math.log(range[1] / range[0]) : (v - range[0]) / (range[1] - range[0] || 1);
      return +(from + t * (to - from)).toFixed(2);
    };
    const X = scale(xr, panel.logx, box.left, box.right), Y = scale(yr, panel.logy, box.bottom, box.top);
    const id = "clip" + index;
    const cut = svgEl("clipPath", { id });
    cut.append(svgEl("rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top }));
    root.append(cut, svgEl("text", { x: ox + 16, y: oy + 20, "font-weight": 600 }, panel.title || title));
    for (const t of ticksOf(...yr, panel.logy, 6)) {
      root.append(svgEl("line", { x1: box.left, x2: box.right, y1: Y(t), y2: Y(t), stroke: "#dddddd" }));
      root.append(svgEl("text", { x: box.left - 6, y: Y(t) + 4, "text-anchor": "end" }, tickText(t, panel.percent)));
    }
    for (const t of ticksOf(...xr, panel.logx, 7, panel.whole)) {
      root.append(svgEl("line", { x1: X(t), x2: X(t), y1: box.top, y2: box.bottom, stroke: "#eeeeee" }));
      root.append(svgEl("text", { x: X(t), y: box.bottom + 16, "text-anchor": "middle" }, tickText(t)));
    }
    root.append(svgEl("text", { x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle" }, panel.x));
    const mid = (box.top + box.bottom) / 2;
    root.append(svgEl("text", { x: ox + 14, y: mid, "text-anchor": "middle", transform: `rotate(-90 ${ox + 14} ${mid})` }, panel.y));
    if (panel.reference) {
      const at = Y(panel.reference);
      root.append(svgEl("line", { x1: box.left, x2: box.right, y1: at, y2: at, stroke: "#555555", "stroke-dasharray": "2 3" }));
      root.append(svgEl("text", { x: box.right - 4, y: at + 14 < box.bottom ? at + 12 : at - 3, "text-anchor": "end", "font-size": 11, fill: "#555555" }, "least squares"));
    }
    const beside = counter();
    lines.forEach((line, i) => {
      const look = lookOf(line), part = svgEl("g", { "clip-path": `url(#${id})` });
      const drawn = own[i].filter((p) => p[1] !== null);
      const band = own[i].filter((p) => p[2] !== null && p[3] !== null);
      if (line.low && !line.faint && band.length > 1)
        part.append(svgEl("path", { fill: look.color, "fill-opacity": 0.15, d: "M" + [...band.map((p) => `${X(p[0])},${Y(p[3])}`), ...band.reverse().map((p) => `${X(p[0])},${Y(p[2])}`)].join("L") + "Z" }));
      const path = line.stairs ? drawn.map((p, k) => (k ? `H${X(p[0])}V${Y(p[1])}` : `M${X(p[0])},${Y(p[1])}`)).join("") : "M" + drawn.map((p) => `${X(p[0])},${Y(p[1])}`).join("L");
      const wide = line.faint ? 0.9 : 2;
      if (drawn.length) part.append(svgEl("path", { fill: "none", stroke: look.color, "stroke-opacity": line.faint ? 0.5 : 1, "stroke-width": wide, "stroke-dasharray": look.dash.map((d) => d * wide).join(" "), d: path }));
      for (const [x, y] of line.dots || []) {
        const at = usable(panel, y, panel.logy);
        if (at !== null) part.append(svgEl("circle", { cx: X(num(x)), cy: Y(at), r: 3, fill: look.color, "fill-opacity": 0.45 }));
      }
      root.append(part);
      for (const x of above(panel, line, yr[1])) root.append(svgEl("text", { x: X(x), y: box.top + 9, fill: look.color, "text-anchor": "middle" }, "▲"));
      for (const x of line.lost || []) root.append(svgEl("text", { x: X(num(x)) - 9 * beside(x), y: box.top + 4, fill: look.color, "text-anchor": "middle" }, "✕"));
      for (const [x, y] of line.ends || []) if (y > 0 || !panel.logy) root.append(svgEl("text", { x: X(x), y: Math.max(box.top + 4, Y(y) + 4), fill: look.color, "text-anchor": "middle" }, "✕"));
    });
  });
  names.forEach((line, i) => {
    const x = 20 + (i % per) * (total / per), y = H * rows + 14 + 18 * Math.floor(i / per);
    const look = lookOf(line);
    root.append(svgEl("line", { x1: x, x2: x + 26, y1: y - 4, y2: y - 4, stroke: look.color, "stroke-width": 2, "stroke-dasharray": look.dash.map((d) => d * 2).join(" ") }));
    root.append(svgEl("text", { x: x + 32, y }, told[i]));
  });
  notes.forEach((text, i) => root.append(svgEl("text", { x: 20, y: H * rows + legend + 4 + 16 * i, fill: "#555555" }, text)));
  return root;
}

/* A text in lines of at most so many letters. */
function wrapped(text, most) {
  const lines = [];
  for (const word of text.split(/\s+/).filter(Boolean))
    if (lines.length && lines.at(-1).length + word.length < most) lines[lines.length - 1] += " " + word;
    else lines.push(word);
  return lines;
}

const svgText = (root) => '<?xml version="1.0" encoding="UTF-8"?>\n' + new XMLSerializer().serializeToString(root);

function savePng(name, text) {
  const image = new Image();
  image.onload = () => {
    const canvas = el("canvas", { width: image.width * 2, height: image.height * 2 });
    const context = canvas.getContext("2d");
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(name + ".png", blob));
  };
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
}

/* Every number of the panels, a line per point; low and high are the ends of the band. */
function csvOf(panels) {
  const { x, y } = panels[0] || { x: "x", y: "y" };
  const rows = [["panel", "series", "run", x, y.replace(" (%)", " (fraction)"), "low", "high", "n"]];
  for (const panel of panels)
    for (const line of visible(panel)) {
      line.x.forEach((x, i) => rows.push([panel.title, line.name, line.run ?? "", num(x), ...[line.mid, line.low, line.high].map((l) => (l ? finite(l[i]) : "")), line.n]));
      for (const [x, y] of line.dots || []) rows.push([panel.title, line.name, "each", num(x), num(y), "", "", 1]);
      for (const x of line.lost || []) rows.push([panel.title, line.name, "diverged", num(x), "", "", "", 1]);
    }
  return rows;
}
const finite = (v) => (Number.isFinite(num(v)) ? num(v) : "");
