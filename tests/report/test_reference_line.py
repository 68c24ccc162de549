"""The least-squares line on the page: drawn in Chromium, told in words, and kept as SVG."""

from pathlib import Path

import pytest
from made_runs import make_run
from test_report_browser import browser  # noqa: F401  (a fixture)

from optbench import load_runs
from optbench.figures.curves import reference_of_panel
from optbench.report import page as report


def runs(folder: Path, least: float, **keys) -> Path:
    for seed in range(2):
        for name in ("adam", "sgd"):
            record = {"reference": {"train_loss": least}}
            make_run(
                folder / f"{name}{seed}-{least}-{len(keys)}", name, seed, record=record, **keys
            )
    return folder


def line(folder: Path, y: str = "train_loss") -> float | None:
    table = load_runs(folder)
    return reference_of_panel(table, table.drop_duplicates("run"), y)


def test_a_line_is_drawn_where_runs_agree_and_lines_stay_visible(tmp_path):
    assert line(runs(tmp_path / "a", 0.05)) == 0.05
    assert line(tmp_path / "a", "val_loss") is None
    assert line(runs(tmp_path / "far", 1e-9)) is None  # the lines would be squeezed
    two = runs(runs(tmp_path / "two", 0.05), 0.06, log__eval_train_examples=9)
    assert line(two) is None
    for wrong in ("text", None, {"train_loss": "low"}, {"train_loss": True}):
        folder = tmp_path / f"wrong{wrong}".replace("/", "")
        make_run(folder / "run", record={"reference": wrong})
        assert line(folder) is None


def test_each_panel_has_its_own_line(tmp_path):
    runs(tmp_path / "all", 0.05)
    runs(tmp_path / "all", 0.04, batch_size=32)
    table = load_runs(tmp_path / "all")
    first = table.drop_duplicates("run")
    found = {
        size: reference_of_panel(table, part, "train_loss")
        for size, part in first.groupby(first["batch_size"].astype(int))
    }
    assert found == {128: 0.05, 32: 0.04}
    assert reference_of_panel(table, first, "train_loss") is None


@pytest.mark.usefixtures("browser")
def test_the_page_draws_the_line(tmp_path, browser):  # noqa: F811
    report.write([runs(tmp_path / "runs", 0.05)], tmp_path / "report.html")
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("#curves canvas")
    label = page.query_selector("#curves .plot").get_attribute("aria-label")
    assert "The least-squares solution has 0.05. " in label
    assert "Dotted line: the least-squares solution" in page.locator("#curves").inner_text()
    svg = page.evaluate("new XMLSerializer().serializeToString(svgOf(curvePanels(), 'x'))")
    assert "least squares" in svg
    page.select_option("#control-y", "epochs.val_loss")
    assert "least-squares" not in page.locator("#curves").inner_text()
    context.close()
    assert wrong == []
