"""Folders that are rare, and easily said wrong: some seeds apart, some settings more, some lost."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import make_run

from optbench.analysis.candidate.judge import judge
from optbench.analysis.caveats import caveats
from optbench.analysis.claims.judge import judge_claim
from optbench.analysis.columns import filter_runs
from optbench.analysis.comparison import Options, compare
from optbench.analysis.targets import resolve_target
from optbench.analysis.tuned.chosen import result_text
from optbench.analysis.tuned.spread import spreads
from optbench.analysis.verdict import verdict_texts
from optbench.common.errors import UserError
from optbench.in_memory import InMemoryComparison
from optbench.report.collect import collect
from optbench.report.sections.runs import missing
from optbench.report.terminal import judged

STUDY = {"tuning": {"metric": "val_loss", "pick": "final"}, "warnings": []}


def ending(folder: Path, value: float) -> None:
    """Write the final losses of a run."""
    table = pd.read_csv(folder / "epochs.csv")
    for name in ("train_loss", "val_loss", "test_loss"):
        table.loc[table.index[-1], name] = value
    table.to_csv(folder / "epochs.csv", index=False)


def runs_of(folder: Path, name: str, seeds: range, value: float = 0.3, **settings: object) -> None:
    for seed in seeds:
        place = folder / f"{name}{seed}-{len(list(folder.glob('*')))}"
        ending(make_run(place, name, seed, **settings), value + 0.01 * seed)


def tuned_study(folder: Path, ends: dict[str, tuple[float, float]], **settings: object) -> None:
    """Make a tuned study. ends: of each optimizer the trial's loss and the tuned one's."""
    for name, (trial, end) in ends.items():
        place = folder / "trials" / f"{name}{len(list(folder.rglob('*')))}"
        ending(make_run(place, name, phase="trials", **settings), trial)
        lost = {"diverged_at": 30} if math.isinf(end) else {}
        for seed in range(1, 9):
            place = folder / "tuned" / f"{name}{seed}-{len(list(folder.rglob('*')))}"
            made = make_run(place, name, seed, phase="tuned", **lost, **settings)
            if not lost:
                ending(made, end + 0.01 * seed)
    (folder / "study.json").write_text(json.dumps(STUDY))


def first_cells(folder: Path) -> list[list[str]]:
    return [[cell["t"] for cell in row["cells"]] for row in collect([folder])["ranking"]["rows"]]


def test_a_pairs_text_begins_with_its_own_outcome(tmp_path):
    for name, end in (("mine", 0.1), ("adam", 0.5), ("sgd", 0.1)):
        runs_of(tmp_path, name, range(8), end)
    verdict = InMemoryComparison(compare([tmp_path])).verdict("mine", "adam")
    assert verdict.outcome == "better"
    assert verdict.text.startswith("mine is better than adam: ")


def test_each_schedule_of_a_tuned_study_has_its_row(tmp_path):
    for schedule, more in (("constant", 0.0), ("cosine", 0.5)):
        ends = {"sgd": (1.0, 0.3 + more), "adam": (1.0, 0.2 + more)}
        tuned_study(tmp_path, ends, schedule__name=schedule)
    rows = {cells[0]: cells[1].split()[0] for cells in first_cells(tmp_path)}
    assert rows == {
        "adam schedule=constant": "0.2450",
        "sgd schedule=constant": "0.3450",
        "adam schedule=cosine": "0.7450",
        "sgd schedule=cosine": "0.8450",
    }


def test_runs_beside_a_tuned_study_have_rows_with_their_values(tmp_path):
    tuned_study(tmp_path, {"sgd": (1.0, 0.3), "adam": (1.0, 0.5)})
    for lr in (0.1, 0.01):
        runs_of(tmp_path, "lion", range(1, 9), 0.05, lr=lr)
    rows = {cells[0]: cells[1].split()[0] for cells in first_cells(tmp_path)}
    assert rows["lion lr=0.1 (not tuned)"] == rows["lion lr=0.01 (not tuned)"] == "0.09500"
    assert rows["sgd"] == "0.3450"


def test_a_value_that_chose_the_settings_judges_no_selection_either(tmp_path):
    tuned_study(tmp_path, {"sgd": (1.0, 0.3), "adam": (1.0, 0.5)})
    for where in ([], ["phase=tuned"]):
        with pytest.raises(UserError, match="val_loss chose the settings"):
            judge(compare([tmp_path], Options(where=where)), "adam", y="val_loss")
        page = collect([tmp_path], options=Options(where=where, y="val_loss"))
        assert any("val_loss chose the settings" in text for text in page["warnings"])


def test_a_problem_without_a_common_seed_leaves_the_others_their_verdict(tmp_path):
    for lr in (0.1, 0.01):
        runs_of(tmp_path, "adam", range(8), 0.2, lr=lr, model__name="cnn")
    runs_of(tmp_path, "sgd", range(10, 18), 0.3, model__name="cnn")
    runs_of(tmp_path, "adam", range(8), 0.2, model__name="mlp")
    runs_of(tmp_path, "sgd", range(8), 0.5, model__name="mlp")
    made = compare([tmp_path])
    assert judged(made, made.judged).startswith("Verdict: ")
    leaders = {c["problem"]: c["leader"] for c in collect([tmp_path])["verdict"]["cards"]}
    assert leaders["model = mlp"].startswith("adam")


def test_unequal_settings_and_missing_seeds_are_told_of_many_settings_too(tmp_path):
    for lr in np.geomspace(1e-4, 1, 12):
        runs_of(tmp_path, "adam", range(3), lr=float(lr))
    runs_of(tmp_path, "sgd", range(2))
    made = compare([tmp_path])
    assert any(text.startswith("unequal numbers of settings") for text in caveats(made))
    assert missing(made.plan, [], []) == ["sgd lacks seed 2"]


def test_every_optimizer_diverged_is_said_of_every_one_alone(tmp_path):
    tuned_study(tmp_path, {"sgd": (1.0, 0.3), "adam": (0.5, math.inf)})
    (card,) = collect([tmp_path])["verdict"]["cards"]
    assert card["leader"] == "adam"  # by validation
    assert "diverged" not in card["headline"]
    assert "sgd turned out better" in card["headline"]


@pytest.mark.parametrize(
    ("score", "metric", "text"),
    [
        (-5.0, "val_loss", "-5.000"),
        (0.3, "val_r2", "-0.3000"),
        (-0.9, "val_accuracy", "90.00 %"),
        (0.25, "val_loss", "0.2500"),
    ],
)
def test_a_validation_result_keeps_its_sign(score, metric, text):
    assert result_text(score, metric) == text


def test_a_side_without_the_chosen_key_is_one_setting(tmp_path):
    runs_of(tmp_path, "adam", range(8), 0.2)
    for momentum in (0.5, 0.9):
        runs_of(tmp_path, "momentum", range(8), 0.5, optimizer__momentum=momentum)
    check = {
        "value": "train_loss",
        "lower": {"optimizer": "adam"},
        "than": {"optimizer": "momentum"},
        "across": {"optimizer.momentum": "best"},
    }
    files = compare([tmp_path]).files
    assert files is not None
    (found,) = judge_claim(files.table(), None, {"text": "Adam is lower.", "checks": [check]})
    assert found.word == "held"
    wrong = [
        ("lower", "it needs value"),
        ({**check, "than": "half", "across": {}}, "compares with 'half'"),
    ]
    for bad, said in wrong:
        with pytest.raises(UserError, match=said):
            judge_claim(files.table(), None, {"text": "Adam is lower.", "checks": [bad]})


def test_a_diverged_run_is_in_the_spread_over_seeds(tmp_path):
    for name, lost in (("sgd", False), ("adam", True)):
        make_run(tmp_path / "trials" / name, name, phase="trials")
        for repeat in range(3):
            for seed in range(2):
                gone = 30 if lost and not repeat and not seed else None
                place = tmp_path / "tuned" / f"{name}{repeat}{seed}"
                make_run(
                    place, name, 10 * repeat + seed, phase="tuned", repeat=repeat, diverged_at=gone
                )
                if gone is None:
                    ending(place, 0.3 + 0.01 * seed)
    (tmp_path / "study.json").write_text(json.dumps(STUDY))
    found = spreads(compare([tmp_path]), "test_loss").set_index("optimizer")
    assert found.loc["sgd", "over_seeds"] == pytest.approx(0.01 / math.sqrt(2))
    assert found.loc["adam", "over_seeds"] == math.inf


def test_the_rate_at_the_edge_is_that_of_the_best_setting(tmp_path):
    ends = {
        ("cosine", 0.1): 0.4, ("cosine", 0.01): 0.1, ("cosine", 0.001): 0.5,
        ("constant", 0.1): 0.4, ("constant", 0.01): 0.9, ("constant", 0.001): 0.5,
    }  # fmt: skip
    for (schedule, lr), end in ends.items():
        runs_of(tmp_path, "adam", range(3), end, lr=lr, schedule__name=schedule)
    assert not [text for text in caveats(compare([tmp_path])) if "the best learning rate" in text]


def test_a_filter_takes_a_number_as_it_is_stored(tmp_path):
    rates = (10**-2.5, 0.00316228, 0.01)
    for lr in rates:
        runs_of(tmp_path, "adam", range(1), lr=lr)
    table = compare([tmp_path]).table
    for lr in rates:
        assert set(filter_runs(table, [f"optimizer.lr={lr!r}"])["optimizer.lr"]) == {lr}


def test_a_problem_that_an_optimizer_lacks_makes_no_middle_seeds():
    index = pd.MultiIndex.from_product([["p", "q"], range(3)], names=["problem", "seed"])
    frame = pd.DataFrame({"a": [1.0, 2, 3] * 2, "b": [1.0, 2, 3] + [math.nan] * 3}, index=index)
    assert "middle" not in resolve_target(frame, "worst", True)[1]


def test_a_study_that_measured_no_test_loss_says_so(tmp_path):
    tuned_study(tmp_path, {"sgd": (1.0, 0.3), "adam": (1.0, 0.5)})
    for path in tmp_path.rglob("epochs.csv"):
        pd.read_csv(path).assign(test_loss=math.nan, test_accuracy=math.nan).to_csv(
            path, index=False
        )
    assert "no run has a final test loss" in verdict_texts(compare([tmp_path]))[0]


def test_a_page_of_a_selection_without_the_sweeps_candidate_is_written(tmp_path):
    for name in ("adam", "sgd", "momentum"):
        runs_of(tmp_path, name, range(3))
    (tmp_path / "figure.json").write_text(json.dumps({"candidate": "adam"}))
    where = ["optimizer=sgd", "optimizer=momentum"]
    page = collect([tmp_path], options=Options(where=where))
    assert page["verdict"]["candidate"] is None
    assert any("the candidate is not judged" in text for text in page["warnings"])
    with pytest.raises(UserError, match="no optimizer of these runs"):
        collect([tmp_path], options=Options(where=where, candidate="adam"))
