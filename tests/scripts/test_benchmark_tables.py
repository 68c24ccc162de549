"""The page on performance has the table of the committed measurements."""

from pathlib import Path

import pandas as pd

from scripts.benchmark.tables import BEGIN, END, models_table

ROOT = Path(__file__).resolve().parents[2]
CSV = ROOT / "results" / "benchmark" / "epochs_cpu.csv"


def test_page_has_the_table_of_the_committed_measurements():
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    made = page.split(BEGIN)[1].split(END)[0]
    assert "\n".join(models_table(pd.read_csv(CSV))) in made


def test_fastest_peer_is_bold_and_a_bound_is_none():
    rows = [("128", "optbench", 2.0), ("128", "jax", 1.0), ("128", "bound", 0.5)]
    table = pd.DataFrame(rows, columns=["model", "peer", "seconds"])
    assert models_table(table)[-1] == "| 128 | 2 | **1** | 0.5 |"
