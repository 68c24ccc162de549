"""A candidate that was named beforehand: judged by fixed tests, in one sentence, as JSON."""

import json
import math
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
from made_runs import make_run, sweep

import optbench
from optbench.analysis.candidate.document import EXIT_CODES, asked_verdict, verdict_document
from optbench.analysis.candidate.judge import judge
from optbench.analysis.candidate.words import sentence
from optbench.analysis.comparison import Comparison, Options, compare
from optbench.common.errors import UserError
from optbench.formats.imported import runs_of, write_runs
from optbench.formats.run import read_sealed
from optbench.report.collect import collect
from optbench.report.verdict_files import write_candidate
from optbench.stats.corrections import MAX_TYPE
from optbench.stats.paired_tests import hodges_lehmann, holm, signed_rank
from optbench.stats.unpaired_tests import rank_sum

SCHEMA = json.loads(
    (Path(optbench.__file__).parent / "formats" / "verdict.schema.json").read_text("utf-8")
)
RANDOM = np.random.default_rng(1)


def finals(
    folder: Path, values: dict[str, dict[str, list[float]]], paired: bool = True
) -> Comparison:
    """Return the comparison of runs with these final losses, by problem and optimizer."""
    rows = [
        {"dataset": problem, "optimizer": name, "seed": str(seed), "val_loss": repr(value)}
        for problem, own in values.items()
        for name, losses in own.items()
        for seed, value in enumerate(losses)
    ]
    runs = runs_of(pd.DataFrame(rows), {}, ["dataset"], paired)
    write_runs(folder, runs, {"y": "val_loss", "x": "step"})
    return compare([folder])


def around(mean: float, n: int = 8) -> list[float]:
    return [float(value) for value in RANDOM.normal(mean, 0.1, n)]


def checked(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of verdict.json, held to its schema."""
    jsonschema.Draft202012Validator(SCHEMA).validate({**document, "sha256": "0" * 64})
    json.dumps(document, allow_nan=False)
    return document


def test_one_problem_has_the_signed_rank_tests_with_holms_correction(tmp_path) -> None:
    values = {"mine": around(1), "adamw": around(2), "sgd": around(1)}
    found = judge(finals(tmp_path, {"wine": values}), "mine", ["adamw", "sgd"])
    gaps = [np.array(values["mine"]) - np.array(values[name]) for name in ("adamw", "sgd")]
    corrected = holm([signed_rank(gap) for gap in gaps])
    for one, gap, p in zip(found.each, gaps, corrected, strict=True):
        assert one.verdict.p == pytest.approx(p)
        assert one.verdict[3:6] == pytest.approx(hodges_lehmann(gap))
    assert [one.verdict.outcome for one in found.each] == ["better", "cannot tell"]
    assert found.outcome == "cannot tell"
    text = sentence(found)
    assert text.startswith("Cannot tell: mine is better than adamw: -")
    assert "cannot be told from sgd" in text
    assert "8 seeds" in text
    assert "Holm's correction over 2 comparisons" in text
    checked(verdict_document(finals(tmp_path, {"wine": values}), found))


def test_several_problems_are_counted_and_tested_over(tmp_path) -> None:
    gaps = (1.0, 1.0, 1.0, 0.0, 0.0)
    values = {f"p{i}": {"mine": around(1), "adamw": around(1 + gap)} for i, gap in enumerate(gaps)}
    made = finals(tmp_path, values)
    found = judge(made, "mine", ["adamw"])
    (over,) = found.over
    assert dict(over.counts) == {"better": 3, "worse": 0, "cannot tell": 2}
    assert "mine is better than adamw on 3 of 5 problems, cannot tell on 2" in sentence(found)
    assert found.outcome == "better"  # on more than half of the problems, and worse on none
    medians = [np.median(own["mine"]) - np.median(own["adamw"]) for own in values.values()]
    assert over.raw_p == pytest.approx(signed_rank(medians))
    told = checked(verdict_document(made, found))
    (entry,) = told["over_problems"]["baselines"]
    assert (entry["better"], entry["cannot_tell"], entry["problems"]) == (3, 2, 5)
    assert len(told["problems"]) == 5


def test_with_six_problems_the_test_over_them_decides(tmp_path) -> None:
    values = {f"p{i}": {"mine": around(1, 1), "adamw": around(3 + i, 1)} for i in range(6)}
    found = judge(finals(tmp_path, values), "mine")
    assert [one.verdict.outcome for one in found.each] == ["cannot tell"] * 6
    assert found.over[0].verdict is not None
    assert found.over[0].verdict.p == pytest.approx(2 / 2**6)
    assert found.outcome == "better"
    assert "mine is ahead of adamw on 6 of 6 problems" in sentence(found)


def test_seeds_too_few_for_holm_get_the_max_type_test_over_the_same_pairs(tmp_path) -> None:
    values = {
        f"p{i}": {"mine": around(1), "a": around(3), "b": around(4), "c": around(5)}
        for i in range(4)
    }
    found = judge(finals(tmp_path, values), "mine")
    assert {one.verdict.correction for one in found.each} == {MAX_TYPE}
    assert {one.verdict.comparisons for one in found.each} == {12}
    assert found.outcome == "better"


def test_unpaired_runs_get_rank_sum_tests(tmp_path) -> None:
    values = {"wine": {"mine": around(1, 6), "adamw": around(2, 5)}}
    found = judge(finals(tmp_path, values, paired=False), "mine", ["adamw"])
    assert found.each[0].verdict.p == pytest.approx(rank_sum(*values["wine"].values()))
    assert "unpaired" in sentence(found)
    assert not checked(verdict_document(compare([tmp_path]), found))["test"]["paired"]


def test_worse_than_one_is_worse_and_exits_with_4(tmp_path) -> None:
    values = {"mine": around(2), "adamw": around(1), "sgd": around(3)}
    found = judge(finals(tmp_path, {"wine": values}), "mine")
    assert found.outcome == "worse"
    assert [EXIT_CODES[word] for word in ("better", "cannot tell", "worse")] == [0, 3, 4]


def test_diverged_runs_count_and_leave_null_in_the_document(tmp_path) -> None:
    values = {"mine": around(1), "sgd": [math.inf] * 8}
    made = finals(tmp_path, {"wine": values})
    found = judge(made, "mine")
    assert found.outcome == "better"
    assert checked(verdict_document(made, found))["problems"][0]["difference"] is None


def test_many_baselines_are_told_by_outcome(tmp_path) -> None:
    values = {"mine": around(2), "a": around(1), "b": around(3), "c": around(3), "d": around(2)}
    text = sentence(judge(finals(tmp_path, {"wine": values}), "mine"))
    assert text.startswith("mine is better than b and c, is worse than a and cannot be told from d")


def test_settings_that_the_values_chose_are_corrected_for_all_pairs(tmp_path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 8)
    sweep(tmp_path, ("adam",), 8, lr=0.01)
    found = judge(compare([tmp_path]), "adam", ["sgd"])
    assert found.chosen
    (one,) = found.each
    assert one.verdict.correction == MAX_TYPE
    assert one.verdict.comparisons == 2  # both settings of adam against sgd
    told = checked(verdict_document(compare([tmp_path]), found))
    assert any("chose among the settings" in text for text in told["caveats"])


def test_a_tuned_study_is_never_judged_by_what_chose_its_settings(tmp_path) -> None:
    for name in ("sgd", "adam"):
        make_run(tmp_path / "trials" / name, name, phase="trials")
        for seed in range(1, 9):
            make_run(tmp_path / "tuned" / f"{name}{seed}", name, seed, phase="tuned")
    manifest = {"tuning": {"metric": "val_loss", "pick": "final"}, "warnings": []}
    (tmp_path / "study.json").write_text(json.dumps(manifest))
    made = compare([tmp_path])
    assert judge(made, "adam").column == "test_loss"
    with pytest.raises(UserError, match=r"val_loss chose the settings.*Judge by test_loss"):
        judge(made, "adam", y="val_loss")


@pytest.mark.parametrize(
    ("candidate", "baselines", "said"),
    [
        ("mien", [], "Did you mean mine?"),
        ("mine", ["adam"], r"baseline 'adam' is no optimizer.*Did you mean adamw\?"),
        ("mine", ["mine"], "is the candidate and a baseline"),
        ("mine", ["adamw", "adamw"], "named twice"),
    ],
)
def test_names_that_are_no_optimizer_are_refused(tmp_path, candidate, baselines, said) -> None:
    made = finals(tmp_path, {"wine": {"mine": around(1), "adamw": around(2)}})
    with pytest.raises(UserError, match=said):
        judge(made, candidate, baselines)


def test_a_candidate_alone_or_apart_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="was run alone"):
        judge(finals(tmp_path / "one", {"p": {"mine": around(1)}}, paired=False), "mine")
    values = {"p": {"mine": around(1), "c": around(1)}, "q": {"adamw": around(1), "c": around(1)}}
    with pytest.raises(UserError, match="no problem in common"):
        judge(finals(tmp_path / "two", values), "mine", ["c", "adamw"])


def test_the_written_file_has_the_schema_and_a_checksum(tmp_path) -> None:
    finals(tmp_path, {"wine": {"mine": around(1), "adamw": around(2)}})
    made = compare([tmp_path], Options(candidate="mine", baseline=["adamw"]))
    told, path = write_candidate(tmp_path, made)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(path.read_text()))
    assert read_sealed(path) == told
    assert not list(tmp_path.glob("verdict.md"))


def test_the_page_of_a_tuned_study_judges_by_the_test_set_whatever_it_shows(tmp_path) -> None:
    for name in ("sgd", "adam"):
        make_run(tmp_path / "trials" / name, name, phase="trials")
        for seed in range(1, 9):
            make_run(tmp_path / "tuned" / f"{name}{seed}", name, seed, phase="tuned")
    manifest = {"tuning": {"metric": "val_loss", "pick": "final"}, "warnings": []}
    (tmp_path / "study.json").write_text(json.dumps(manifest))
    data = collect([tmp_path], y="val_loss")
    assert data["verdict"]["column"] == "test loss"
    assert data["view"]["y"] == "val_loss"
    assert data["warnings"][0].startswith("val_loss chose the settings")
    assert collect([tmp_path], y="train_loss")["verdict"]["column"] == "training loss"


def test_few_searches_speak_of_settings_and_enough_of_searches(tmp_path) -> None:
    for searches, words in ((2, "These settings, of 2 searches each: "), (6, "6 searches; ")):
        folder = tmp_path / str(searches)
        for repeat in range(searches):
            for name, lr in (("adam", 0.001), ("sgd", 0.1)):
                for phase in ("trials", "tuned"):
                    seed = 1000 * repeat + (phase == "tuned")
                    place = folder / phase / f"{name}{repeat}"
                    make_run(place, name, seed, lr, phase=phase, repeat=repeat)
        told = asked_verdict(compare([folder], Options(candidate="adam")))
        assert words in told["sentence"]
        assert ("paired by search" in told["sentence"]) == (searches == 6)


def test_a_sentence_over_few_problems_has_the_numbers_of_each(tmp_path) -> None:
    for seed in range(8):
        for size in (64, 128):
            make_run(tmp_path / f"a{seed}{size}", "adam", seed, batch_size=size)
            make_run(tmp_path / f"b{seed}{size}", "sgd", seed, batch_size=size)
    made = Comparison(optbench.load_runs(tmp_path))
    text = sentence(judge(made, "adam", ["sgd"], "test_loss"))
    number = r"(-0\.\d+) \[.*?\], n = 8, p = 0\.016"  # 2 / 2 ** 8, times two comparisons
    form = rf"on 2 of 2 problems \(batch_size=128: {number}; batch_size=64: {number}\) \("
    found = re.search(form, text)
    assert found is not None, text
    assert all(float(part) < 0 for part in found.groups())


def test_a_problem_with_few_seeds_takes_no_test_from_the_others(tmp_path) -> None:
    """With six pairs Holm over three comparisons tells nothing; the max-type test can."""
    for size, seeds in ((64, 6), (128, 6), (256, 3)):
        for seed in range(seeds):
            make_run(tmp_path / f"a{seed}{size}", "adam", seed, batch_size=size)
            make_run(tmp_path / f"b{seed}{size}", "sgd", seed, batch_size=size)
    found = judge(Comparison(optbench.load_runs(tmp_path)), "adam", ["sgd"], "test_loss")
    outcomes = {one.problem: one.verdict.outcome for one in found.each}
    assert outcomes == {
        "batch_size=64": "better", "batch_size=128": "better", "batch_size=256": "cannot tell",
    }  # fmt: skip
    assert {one.verdict.correction for one in found.each} == {MAX_TYPE}


def test_a_verdict_on_some_runs_says_so_and_leaves_that_on_all(tmp_path) -> None:
    for seed in range(8):
        for size in (64, 128):
            make_run(tmp_path / f"a{seed}{size}", "adam", seed, batch_size=size)
            make_run(tmp_path / f"b{seed}{size}", "sgd", seed, batch_size=size)
    options = Options(candidate="adam")
    whole, path = write_candidate(tmp_path, compare([tmp_path], options))
    before = path.read_bytes()
    some = options._replace(where=["batch_size=64"])
    told, other = write_candidate(tmp_path, compare([tmp_path], some))
    assert told["sentence"].startswith("Of the runs with batch_size=64 alone: adam is better")
    assert not whole["sentence"].startswith("Of the runs")
    assert other.name == "verdict-where.json"
    assert path.read_bytes() == before


def test_a_sentence_on_accuracies_is_in_per_cent(tmp_path) -> None:
    made = finals(tmp_path, {"digits": {"new": around(1.0), "old": around(2.0)}})
    made.table["test_accuracy"] = made.table["val_loss"] / 100
    found = judge(made, "new", y="test_accuracy")
    (one,) = found.each
    assert f"{100 * one.verdict.difference:+.3g} [" in sentence(found)
    assert "final test accuracy in per cent, higher is better" in sentence(found)
    told = verdict_document(made, found)["problems"][0]
    assert told["difference"] == one.verdict.difference


@pytest.mark.parametrize("column", ["model.name", "optimizer.lr", "seed", "epoch"])
def test_a_verdict_is_by_a_logged_result(column, tmp_path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 6)
    with pytest.raises(UserError, match=f"no logged column '{column}'"):
        judge(compare([tmp_path]), "adam", y=column)


def test_another_question_than_the_planned_one_has_a_file_and_a_caveat(tmp_path) -> None:
    sweep(tmp_path, ("adam", "sgd", "momentum"), 6)
    (tmp_path / "figure.json").write_text(json.dumps({"candidate": "adam", "baseline": ["sgd"]}))
    options = [Options(), Options(candidate="sgd", baseline=["adam"]), Options(candidate="adam")]
    found = [write_candidate(tmp_path, compare([tmp_path], each)) for each in options]
    found.append(write_candidate(tmp_path, compare([tmp_path]), "test_loss"))
    said = [any("asked after the runs" in text for text in told["caveats"]) for told, _ in found]
    assert said == [False, True, True, True]
    assert {path.name for _, path in found[1:]} == {"verdict-asked.json"}
    assert found[0][1].name == "verdict.json"
    assert "adam against sgd, by final training loss" in found[-1][0]["caveats"][-1]


def test_the_claim_is_the_sentence_without_its_method(tmp_path) -> None:
    values = {"mine": around(1), "adamw": around(1)}
    made = finals(tmp_path, {"wine": values})
    told = verdict_document(made, judge(made, "mine", ["adamw"]))
    claim = told["claim"].removesuffix(").")
    assert told["sentence"].startswith(claim + "; candidate minus baseline, Hodges-Lehmann")
    assert claim.endswith("(final validation loss, lower is better")
    assert re.search(r"p = [0-9.]+(, about \d+ seeds needed)? \(final", claim)


def test_too_few_seeds_for_the_test_are_a_caveat(tmp_path) -> None:
    values = {"mine": around(1, 3), "adamw": around(2, 3)}
    made = finals(tmp_path, {"wine": values})
    told = verdict_document(made, judge(made, "mine", ["adamw"]))
    assert any(text.startswith("n = 3: with fewer than") for text in told["caveats"])
    assert "with its 95 % interval" not in told["sentence"]


def test_trials_alone_are_an_unfinished_study(tmp_path):
    for name in ("sgd", "adam"):
        for index, lr in enumerate((0.001, 0.01)):
            make_run(tmp_path / "trials" / f"{name}{index}", name, lr=lr, phase="trials")
    with pytest.raises(UserError, match="the tuned study is unfinished"):
        judge(compare([tmp_path]), "adam")
