"""The report in a real browser: Chromium without a head, driven by Playwright.

Skipped where there is no Playwright or no Chromium. The browser is the system's (Debian:
`apt-get install chromium`), or the one that `playwright install chromium` fetched.
"""

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_runs import make_run, sweep

from optbench import load_runs
from optbench.analysis.series import assign_series
from optbench.figures.curves import aggregate
from optbench.report import page as report

api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
EVIL = "<script>alert(1)</script>"
WORSE = '"><img src=x onerror=alert(2)>'
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = [shutil.which(name) for name in NAMES]
        paths = [path for path in [*found, own] if path and Path(path).exists()]
        if not paths:
            pytest.skip(
                f"no Chromium: neither {', '.join(NAMES)} nor Playwright's own is installed"
            )
        # Chromium's sandbox does not work as root
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=paths[0], args=arguments)
        yield running
        running.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    sweep(folder, ("adam", "sgd", "momentum"), 6)
    sweep(folder, ("adam", "sgd", "momentum"), 6, model__batch_norm=True)
    for seed in range(2):
        make_run(folder / f"evil{seed}", EVIL, seed)
    make_run(folder / "lost", "rmsprop", 0, diverged_at=80)
    make_run(folder / WORSE, WORSE, 0)
    failed = {"status": "failed", "error": f"cannot read {EVIL}{WORSE}"}
    make_run(folder / "failed", WORSE, 9, record=failed)
    sides = [{"optimizer": name, "model.batch_norm": False} for name in ("adam", "sgd")]
    check = {"value": "train_loss", "lower": sides[0], "than": sides[1]}
    claim = {"text": f"Adam is faster. {EVIL}", "checks": [check]}
    (folder / "claim.json").write_text(json.dumps(claim))
    return folder


@pytest.fixture(scope="module")
def address(runs, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("page") / "report.html"
    report.write([runs], out)
    return out.as_uri()


@pytest.fixture
def open_page(browser, address) -> Iterator:
    """Opens the report; afterwards nothing was asked of a network, and nothing went wrong."""
    wrong: list[str] = []
    contexts = []

    def open_it(fragment: str = "", **options):
        options.setdefault("viewport", {"width": 1280, "height": 900})
        context = browser.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "dialog", lambda dialog: (wrong.append("dialog " + dialog.message), dialog.dismiss())
        )
        page.on(
            "request",
            lambda r: r.url.startswith(("file:", "data:", "blob:")) or wrong.append(r.url),
        )
        page.goto(address + fragment)
        page.wait_for_selector("#curves canvas")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert wrong == []


def test_the_page_of_a_study_begins_with_its_claim(open_page):
    first = open_page().locator("main section").first
    assert first.locator("h2").inner_text() == "Claim"
    assert first.locator("h3").inner_text() == "It held."
    assert EVIL in first.inner_text()


def labels(page) -> list[str]:
    """The text alternatives of the curves' panels."""
    return [node.get_attribute("aria-label") for node in page.query_selector_all("#curves .plot")]


def place(page) -> dict[str, float]:
    """Where the first panel of the curves is, once it is in view."""
    panel, before, box = page.locator("#curves .u-over").first, None, {}
    panel.evaluate("node => node.scrollIntoView({block: 'center'})")
    while box != before:  # what is drawn above it moves it
        before = box
        page.wait_for_timeout(100)
        box = panel.bounding_box()
    return box


def fragment(page) -> str:
    return page.evaluate("decodeURIComponent(location.hash)")


def test_the_sections_are_there_claim_and_verdict_first(open_page):
    page = open_page()
    sections = page.eval_on_selector_all("main section", "nodes => nodes.map(n => n.id)")
    assert sections[:4] == ["claim", "verdict", "curves", "ranking"]
    assert {"pairs", "target", "failures", "reproduce"} <= set(sections)
    assert page.locator("#verdict .card").count() == 2
    assert page.locator("#failures").get_by_text("the loss was not finite at step 80").count() == 1
    command = page.locator("#reproduce pre").first
    page.locator("#reproduce details.run summary").first.click()
    assert command.inner_text().startswith("python -m optbench")


def test_an_optimizer_is_switched_off_everywhere_at_once(open_page):
    page = open_page()
    assert all("adam ends at" in text for text in labels(page))
    rows = page.locator('#ranking tbody tr[data-toggle="adam"]')
    heads = page.locator("#pairs .matrix thead th").all_inner_texts()
    assert rows.first.is_visible()
    assert "adam" in heads
    page.get_by_role("button", name="adam", exact=True).click()
    assert not any("adam ends at" in text for text in labels(page))
    assert not rows.first.is_visible()
    assert "adam" not in page.locator("#pairs .matrix thead th").all_inner_texts()
    assert "hide=adam" in fragment(page)
    page.get_by_role("button", name="adam", exact=True).click()
    assert all("adam ends at" in text for text in labels(page))
    assert "hide" not in fragment(page)


def test_the_pictures_follow_the_switches(open_page):
    page = open_page()
    source = "decodeURIComponent(document.querySelector('#target img').src)"
    assert "display=" not in page.evaluate(source)
    page.get_by_role("button", name="adam", exact=True).click()
    groups = re.findall(r'<g id="optimizer-(\w+)\.[\w-]+"( display="none")?', page.evaluate(source))
    assert {name for name, hidden in groups if hidden} == {"adam"}
    assert ("adam", "") not in groups
    assert ("sgd", "") in groups
    assert page.locator("#target .note").first.inner_text().startswith("Who is switched off is")
    page.get_by_role("button", name="all", exact=True).click()
    assert "display=" not in page.evaluate(source)


def test_all_optimizers_can_be_switched_off_and_the_charts_say_so(open_page):
    page = open_page()
    for button in page.locator("button.switch[data-name]").all():
        button.click()
    pressed = page.locator("button.switch[data-name]")
    assert {node.get_attribute("aria-pressed") for node in pressed.all()} == {"false"}
    assert page.locator("#curves .empty").first.inner_text() == "Switched off."
    assert all("Nothing is shown" in text for text in labels(page))


def test_a_curve_that_leaves_the_axis_has_its_name_at_the_top(open_page):
    page = open_page()
    found = page.evaluate(
        """() => { const line = (name, mid) => ({ name, x: [0, 1, 2], mid, low: null, high: null });
        const lines = [line("flat", [2, 5, 5]), line("lost", [2, 9, 99])];
        return endLabels({ x: { min: 0, max: 2 }, y: { min: 0, max: 10 } },
          { lines, logx: false, logy: false }, lines, (v) => 100 - 10 * v, 0, 100); }"""
    )
    assert {entry["text"]: entry["want"] for entry in found} == {"flat": 50, "lost": 0}


@pytest.mark.parametrize("dark", [False, True])
def test_small_things_stand_out_from_the_page(open_page, dark):
    page = open_page(color_scheme="dark" if dark else "light")
    for color in ("#e8c3d7", "#ecb78c", "#000000", "#ffffff", "#332288", "#56b4e9"):
        got = page.evaluate(f"legible('{color}')")
        paper = "#1f242b" if dark else "#f6f7f8"
        ends = sorted(luminance(text) for text in (got, paper))
        assert (ends[1] + 0.05) / (ends[0] + 0.05) >= 3


def luminance(color: str) -> float:
    """As WCAG defines it."""
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_controls_change_axes_metric_spread_and_panels(open_page):
    page = open_page()
    ticks = "window.optbench.chart.charts[0].axes[1]._splits"
    logarithmic = page.evaluate(ticks)
    page.select_option("#control-yscale", "linear")
    steps = np.diff(page.evaluate(ticks))
    assert np.allclose(steps, steps[0])
    assert not np.allclose(np.diff(logarithmic), np.diff(logarithmic)[0])
    page.select_option("#control-x", "seconds")
    assert "against training time (s)" in labels(page)[0]
    page.select_option("#control-xscale", "log")
    assert page.evaluate("window.optbench.chart.charts[0].scales.x.distr") == 3
    page.select_option("#control-y", "epochs.test_accuracy")
    assert labels(page)[0].count("%") > 1
    lines = "window.optbench.chart.panels[0].lines.length"
    medians = page.evaluate(lines)
    page.select_option("#control-spread", "runs")
    assert page.evaluate(lines) > 2 * medians
    assert "thin lines: single runs" in page.locator("#curves .note").inner_text()
    before = page.locator("#curves .panel").count()
    page.select_option("#control-panels", "seed")
    assert page.locator("#curves .panel").count() > before
    page.locator("#control-smooth").fill("0.6")
    assert "Smoothed exponentially (weight 0.6)" in page.locator("#curves .note").inner_text()
    page.click("#reset-view")
    assert fragment(page) in ("", "#")
    assert page.locator("#curves .panel").count() == before


def until(page, expression: str) -> None:
    """Wait until it is true. Playwright's own way needs what the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never came true: {expression}")


def test_a_link_opens_the_same_view(open_page):
    page = open_page()
    page.select_option("#control-x", "step")
    page.select_option("#control-spread", "none")
    page.get_by_role("button", name="sgd", exact=True).click()
    box = place(page)
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60, steps=4)
    page.mouse.up()
    until(page, "window.optbench.chart.charts[0].scales.x.max < 360")
    shown = "window.optbench.chart.charts.map(c => [c.scales.x.min, c.scales.x.max])"
    zoomed = page.evaluate(shown)
    assert zoomed[0] == pytest.approx([90, 180], abs=3)
    assert zoomed[1] == zoomed[0]  # all panels together
    kept = page.evaluate("location.hash")
    other = open_page(kept)
    assert np.allclose(other.evaluate(shown), zoomed, rtol=1e-4)
    assert labels(other) == labels(page)
    assert other.locator("#control-spread").input_value() == "none"
    other.locator("#curves .u-over").first.dblclick()
    until(other, "window.optbench.chart.charts[0].scales.x.max === 360")
    assert "zoom" not in fragment(other)
    assert other.evaluate(shown)[0] == [0, 360]
    open_page("#y=nonsense&x=%00&hide=nobody&zoom=a..b&smooth=7")  # and no error


def test_zoom_works_as_often_as_one_likes(open_page):
    page = open_page()
    page.select_option("#control-x", "step")
    shown = "window.optbench.chart.charts[0].scales.x"
    for _ in range(3):
        box = place(page)
        page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60, steps=4)
        page.mouse.up()
        until(page, f"{shown}.max < 200")
        assert page.evaluate(f"[{shown}.min, {shown}.max]") == pytest.approx([90, 180], abs=3)
        page.locator("#curves .u-over").first.dblclick()
        until(page, f"{shown}.max === 360")
        assert page.evaluate(f"{shown}.min") == 0


def test_a_finger_zooms(open_page):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *spots: dict[str, float]) -> None:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": spots})

    def zoomed() -> re.Match | None:
        """Of the page's address, which changes some time after the finger is lifted."""
        for _ in range(80):
            if found := re.search(r"zoom=([\d.]+)\.\.([\d.]+)", fragment(page)):
                return found
            page.wait_for_timeout(25)
        return None

    for _ in range(3):  # on a busy machine the browser takes a slow finger for a long press
        box = place(page)
        at = [
            {"x": box["x"] + share * box["width"], "y": box["y"] + 60}
            for share in (0.2, 0.3, 0.4, 0.5, 0.6)
        ]
        touch("touchStart", at[0])
        for spot in at[1:]:
            touch("touchMove", spot)
        touch("touchEnd")
        if found := zoomed():
            break
    low, high = map(float, found.groups())
    assert (low, high) == (pytest.approx(2, abs=0.7), pytest.approx(6, abs=0.7))
    page.click("#reset-zoom")
    assert "zoom" not in fragment(page)


def test_a_wide_table_keeps_its_names_in_view(open_page):
    page = open_page(viewport={"width": 390, "height": 844})
    table = page.locator("#ranking .scroll")
    name = table.locator("tbody th").first
    table.evaluate("node => { node.scrollLeft = 400; }")
    assert abs(name.bounding_box()["x"] - table.bounding_box()["x"]) < 2


def test_the_table_sorts(open_page):
    page = open_page()
    head = page.locator("#ranking thead th", has_text="final training loss")
    column = page.locator("#ranking thead th").all_inner_texts().index("final training loss")

    def values():
        texts = page.locator(f"#ranking tbody tr td:nth-child({column + 1})").all_inner_texts()
        return [float(t.split()[0]) if t != "diverged" else np.inf for t in texts]

    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(values())
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(values(), reverse=True)


def test_the_order_and_the_colours_are_kept_in_the_link(open_page):
    page = open_page()
    head = page.locator("#ranking thead th", has_text="final training loss")
    for _ in range(2):
        head.get_by_role("button").click()
    page.click("#theme")
    kept = page.evaluate("location.hash")
    other = open_page(kept)
    first = "document.querySelector('#ranking tbody tr').innerText"
    assert other.evaluate(first) == page.evaluate(first) != open_page().evaluate(first)
    there = other.locator("#ranking thead th", has_text="final training loss")
    assert there.get_attribute("aria-sort") == "descending"
    theme = "document.documentElement.dataset.theme"
    assert other.evaluate(theme) == page.evaluate(theme) == "dark"
    other.click("#reset-view")
    assert there.get_attribute("aria-sort") is None
    assert fragment(other) == "#theme=dark"
    open_page("#sort=99&theme=pink")  # and no error


def test_ticks_of_counts_are_whole_and_marks_above_the_axis_are_told(open_page):
    page = open_page()
    assert page.evaluate("ticksOf(1, 4, false, 7, false)") == [1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert page.evaluate("ticksOf(1, 4, false, 7, true)") == [1, 2, 3, 4]
    line = "{marks: true, x: [1, 2, 3], mid: [0.5, 7, null], dots: [[4, 9], [5, 1]]}"
    assert page.evaluate(f"above({{logx: false, logy: true}}, {line}, 5)") == [2, 4]


def test_charts_have_a_place_for_values_of_zero_and_below(open_page):
    page = open_page()
    source = """() => {
        const panel = (y) => ({
            logy: true, top: (p) => limitOf(-1, p, 4), lines: [{ mid: [-1, -2], dots: [[1, y]] }],
        });
        const panels = [panel(-3), panel(4)];
        return [settle(panels, true), panels.map((p) => p.logy), panels[0].top];
    }"""
    note, logarithmic, top = page.evaluate(source)
    assert "y axis is linear" in note
    assert logarithmic == [False, False]
    assert top == 1  # as far above the start of -1 as the lowest value, -3, lies below it
    source = "settle([{logy: true, lines: [{mid: [1, null]}]}], true)"
    assert page.evaluate(source) == ""


def test_hovering_and_the_keyboard_show_values_and_n(open_page):
    page = open_page()
    box = place(page)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    tip = page.locator("#curves .tip").first
    tip.wait_for()
    assert re.search(r"adam\s*[\d.]+ \[[\d.]+, [\d.]+\]\s+n = 6", tip.inner_text())
    page.mouse.move(5, 5)
    page.keyboard.press("Tab")
    page.locator("#curves .plot").first.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    told = page.locator("#curves [role=status]").inner_text()
    assert told.startswith("epochs 9.")  # of ten: the point before the last
    assert "n = 6" in told
    page.keyboard.press("+")
    assert "zoom=" in fragment(page)
    page.keyboard.press("0")
    assert "zoom=" not in fragment(page)


def test_everything_is_reached_by_tab_and_shows_its_focus(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
        width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert width != "0px"
    assert {"theme", "switch", "control-y", "control-smooth", "plot", "small"} <= seen


def test_a_chart_downloads_as_csv_svg_and_png(open_page, tmp_path):
    page = open_page()
    kept = {}
    for kind in ("CSV", "SVG", "PNG"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Download Curves as {kind}").click()
        kept[kind] = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(kept[kind])
    with kept["CSV"].open() as file:
        rows = list(csv.DictReader(file))
    assert kept["CSV"].name == "curves-training-loss-cross-entropy-nats.csv"
    assert set(rows[0]) >= {"epochs", "training loss (cross entropy, nats)"}
    assert {row["series"] for row in rows} >= {"adam", "sgd", "momentum", EVIL}
    adam = [row for row in rows if row["series"] == "adam"]
    assert {row["n"] for row in adam} == {"6"}
    text = kept["SVG"].read_text("utf-8")
    assert "<path" in text
    assert "adam (n = 6)" in text
    assert "band: minimum to maximum" in text
    assert EVIL not in text
    assert kept["PNG"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for name in ("Times to target as PNG", "Final values as CSV", "the pairs as CSV"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Download {name}").first.click()
        assert waiting.value.path().stat().st_size > 100


def test_text_from_configurations_shows_as_text(open_page):
    page = open_page()
    assert page.get_by_role("button", name=EVIL).count() == 1
    assert page.locator("#ranking tbody th", has_text=EVIL).count() >= 1
    assert page.locator("script").count() == 2
    assert EVIL in labels(page)[0]
    assert page.get_by_role("button", name=WORSE, exact=True).count() == 1
    failures = page.locator("#failures").inner_text()
    assert f"cannot read {EVIL}{WORSE}" in failures
    page.fill("#run-filter", "onerror")
    assert page.locator("#reproduce .note", has_text=WORSE).count() >= 1  # its folder
    for summary in page.locator("summary").all():
        if summary.is_visible():
            summary.click()
    for button in page.locator("button.switch").all():
        button.hover()
    assert page.locator("img[src=x], [onerror]").count() == 0


def test_the_policy_keeps_foreign_script_out(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.evaluate(
        """() => { const s = document.createElement("script"); s.textContent = "window.owned = 1";
        document.body.append(s); const i = document.createElement("img");
        i.setAttribute("onerror", "window.owned = 2"); i.src = "data:,";
        document.body.append(i); }"""
    )
    page.wait_for_timeout(100)
    assert page.evaluate("window.owned") is None
    page.close()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_width_scrolls_sideways(open_page, width):
    page = open_page(viewport={"width": width, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_is_dark_by_preference_and_by_the_button(open_page):
    page = open_page(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 150
    page.click("#theme")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.click("#theme")
    assert page.evaluate(background) == dark


@pytest.mark.parametrize("clock", ["step", "seconds"])
def test_the_medians_are_those_of_the_figures(open_page, runs, clock):
    page = open_page()
    table = load_runs(runs)
    plan = assign_series(table)
    drawn = page.evaluate(
        """(clock) => { const b = window.optbench, m = b.metricNow(), out = {};
        for (const run of b.data.curves.runs) {
          const key = b.data.curves.panels[run.panel] + "/" + b.data.names[run.series].name;
          (out[key] ||= []).push(run);
        }
        for (const key in out) out[key] = b.aggregate(out[key], m, clock);
        return out; }""",
        clock,
    )
    compared = 0
    for (panel, name), part in plan.runs.groupby([plan.runs["panel"].map(str), "variant"]):
        rows = table[table["run"].isin(set(part["run"]))]
        want = aggregate(rows, "train_loss", clock)
        title = f"batch_norm = {'true' if 'True' in panel else 'false'}"
        keys = [key for key in drawn if key.endswith(f"{title}/{name}")]
        assert len(keys) == 1
        got = drawn[keys[0]]
        np.testing.assert_allclose(got["x"], want.x, rtol=1e-5)
        for ours, theirs in ((got["mid"], want.median), (got["low"], want.low)):
            np.testing.assert_allclose(np.array(ours, dtype=float), theirs, rtol=1e-5)
        assert got["n"] == want.seeds
        assert len(got["ends"]) == want.diverged
        compared += 1
    assert compared == 9


def test_reduced_motion_and_print_are_obeyed(open_page):
    page = open_page(reduced_motion="reduce")
    page.get_by_role("link", name="Reproduce").click()
    assert page.evaluate("document.activeElement.id") == "reproduce-title"
    page.emulate_media(media="print")
    assert not page.locator(".bar").is_visible()


@pytest.fixture(scope="module")
def settings_page(browser, tmp_path_factory) -> Iterator:
    """A page of one optimizer at six learning rates, by two values of its momentum."""
    folder = tmp_path_factory.mktemp("settings")
    for momentum in (0.0, 0.9):
        for lr in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3):
            for seed in range(2):
                lost = 200 if lr > 0.1 else None
                where = folder / f"{momentum}-{lr}-{seed}"
                make_run(where, "momentum", seed, lr, lost, optimizer__momentum=momentum)
    report.write([folder], folder / "report.html")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto((folder / "report.html").as_uri())
    page.wait_for_selector("#curves canvas")
    yield page
    context.close()


def test_many_settings_have_panels_and_names_in_them(settings_page):
    titles = settings_page.locator("#curves .panel h3").all_inner_texts()
    assert titles == ["momentum = 0", "momentum = 0.9"]
    panels = "window.optbench.chart.panels.map((p) => p.lines.map(labelOf))"
    for names in settings_page.evaluate(panels):
        assert names == [f"lr={lr:g}" for lr in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)]
    lines = settings_page.evaluate("DATA.rates[0].lines.map((l) => [labelOf(l), l.color])")
    assert [name for name, _ in lines] == ["momentum=0", "momentum=0.9"]
    assert "#777777" not in {color for _, color in lines}
    switches = settings_page.locator("#switches button").all_inner_texts()
    assert switches[0] == "lr=0.001, momentum=0"
    assert settings_page.locator("#curves .legend").count() == 0  # the names are in the charts
    settings_page.set_viewport_size({"width": 400, "height": 800})
    settings_page.wait_for_selector("#curves .legend")
    legend = settings_page.locator("#curves .legend").first.locator("li").all_inner_texts()
    assert legend == [f"lr={lr:g}" for lr in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)]
    settings_page.set_viewport_size({"width": 1280, "height": 900})


def test_shades_keep_their_order_on_a_dark_page(settings_page):
    light = "(dark) => DATA.names.map((n) => ink(n.color, dark)).map((c) => [1, 3, 5].map((i) =>"
    light += "parseInt(c.slice(i, i + 2), 16)))"
    light += ".map(([r, g, b]) => 0.299 * r + 0.587 * g + 0.114 * b)"
    by_day, by_night = (np.array(settings_page.evaluate(light, dark)) for dark in (False, True))
    order = np.argsort(by_day)
    assert (np.diff(by_day[order][::2]) > 5).all()
    assert (np.diff(by_night[order][::2]) < -5).all()
    assert by_night.min() > 90  # and stand out from the page


def test_bands_of_many_lines_are_of_the_best_and_crosses_stand_side_by_side(settings_page):
    settings_page.evaluate("view.panels = ''; redraw()")
    banded = "window.optbench.chart.panels[0].lines.filter((l) => l.low).map((l) => l.name)"
    ends = settings_page.evaluate(
        "window.optbench.chart.panels[0].lines.map((l) => [l.mid.at(-1) ?? Infinity, l.name])"
    )
    assert len(ends) == 12
    assert settings_page.evaluate(banded) == [min(ends)[1]]
    assert "only of the best" in settings_page.locator("#curves figcaption").inner_text()
    places = settings_page.evaluate("((at) => [1, 1, 2].map((x) => at(x)))(counter())")
    assert places == [0, 1, 0]
