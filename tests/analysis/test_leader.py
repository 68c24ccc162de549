"""One rule says who leads: tables, figures, verdicts, caveats and the report ask it."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import make_run

from optbench.analysis.caveats import caveats
from optbench.analysis.comparison import compare
from optbench.analysis.latex import final_cells
from optbench.analysis.leader import leader_of, place, ranked
from optbench.analysis.pairing import by_seed
from optbench.analysis.summary import summary
from optbench.analysis.trials import order_of
from optbench.analysis.verdict import verdicts
from optbench.figures.finals import finals
from optbench.report.collect import collect

ONE = {"a": "a", "b": "b", "c": "c"}


def frame(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame(columns)


def final_loss(folder: Path, value: float) -> None:
    table = pd.read_csv(folder / "epochs.csv")
    for name in ("train_loss", "val_loss", "test_loss"):
        table.loc[table.index[-1], name] = value
    table.to_csv(folder / "epochs.csv", index=False)


def test_series_are_ordered_by_median_then_divergence_then_name():
    inf = math.inf
    part = frame(b=[1.0, 2.0, inf], a=[2.0, 2.0, 2.0], c=[0.0, 1.0, 9.0], d=[math.nan] * 3)
    assert ranked(part) == ["c", "a", "b"]
    assert ranked(-part, smaller=False) == ["c", "a", "b"]
    assert place(math.nan, True) > place(1e300, True)
    assert place(math.nan, False) > place(-1e300, False)


def test_the_leader_of_a_study_is_settled_by_validation():
    part = frame(a=[1.0, 1.0], b=[2.0, 2.0], c=[3.0, 3.0])
    assert leader_of(part, True, ONE) == ("a", False, ["a", "b", "c"])
    assert leader_of(part, True, ONE, ["b", "c", "a"]) == ("b", True, ["a", "b", "c"])
    assert leader_of(part, True, ONE, ["unknown"]).fixed is False
    two = {"a": "a", "b": "b", "c": "b"}
    # the values that are compared chose among b's settings
    assert leader_of(part, True, two, ["b", "a"]) == ("b", False, ["a", "b"])
    assert leader_of(part.iloc[:0], True, ONE) is None
    # who shares no seed with another leads only where nobody does
    apart = frame(a=[0.0, math.nan, math.nan], b=[math.nan, 2.0, 2.0], c=[math.nan, 3.0, 3.0])
    assert leader_of(apart, True, ONE).name == "b"
    assert leader_of(apart[["a", "b"]], True, ONE).name == "a"


def test_equal_trials_are_ordered_by_name():
    scores = pd.DataFrame({"optimizer": ["b", "a", "c", "d"], "score": [1.0, 1.0, 0.5, math.inf]})
    scores["repeat"] = 0
    assert order_of(scores, "val_loss") == ["c", "a", "b"]
    scores["score"] = [0.5, 0.9, -math.inf, 0.9]
    assert order_of(scores, "val_accuracy") == ["a", "d", "b"]


@pytest.mark.parametrize("seed", range(3))
def test_tables_figures_and_report_name_the_same_first(tmp_path: Path, seed: int) -> None:
    """Medians tie, and some runs diverge."""
    random = np.random.default_rng(seed)
    for name in ("sgd", "adam", "momentum", "nadam"):
        for number in range(3):
            lost = random.random() < 0.3
            folder = tmp_path / f"{name}{number}"
            make_run(folder, name, number, diverged_at=30 if lost else None)
            if not lost:
                final_loss(folder, float(random.integers(1, 3)))
    made = compare([tmp_path])
    order = ranked(by_seed(made, "train_loss"))
    assert summary(made)["variant"].tolist() == order
    assert final_cells(made, ["train_loss"])["train_loss"].index.tolist() == order
    rows = [text.get_text() for text in finals(made, "train_loss").axes[0].get_yticklabels()]
    assert rows == order
    data = collect([tmp_path])
    assert data["verdict"]["cards"][0]["leader"] == order[0]
    assert [row["cells"][0]["t"] for row in data["ranking"]["rows"]] == order
    first = [text for text in caveats(made) if "is first by" in text]
    assert all(text.startswith(f"{order[0]} is first") for text in first)


def test_verdict_and_report_of_a_study_name_the_same_leader(tmp_path: Path) -> None:
    """The best trial is another's than the best run on the test set, and two trials tie."""
    for name, trial, end in (("sgd", 1.0, 0.3), ("adam", 1.0, 0.5), ("momentum", 2.0, 0.1)):
        final_loss(make_run(tmp_path / "trials" / name, name, phase="trials"), trial)
        for seed in range(1, 9):
            folder = make_run(tmp_path / "tuned" / f"{name}{seed}", name, seed, phase="tuned")
            final_loss(folder, end + 0.01 * seed)
    manifest = {"tuning": {"metric": "val_loss", "pick": "final"}, "warnings": []}
    (tmp_path / "study.json").write_text(json.dumps(manifest))
    assert set(verdicts(compare([tmp_path]))["b"]) == {"adam"}
    (card,) = collect([tmp_path])["verdict"]["cards"]
    assert card["leader"] == "adam"
    assert card["headline"].startswith("These settings, of 1 search each: adam was chosen, yet")
