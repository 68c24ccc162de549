"""Claims judged on runs with made-up values, and one from the command line to its verdict."""

import json
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from in_process import sub_command
from made_runs import make_run
from matplotlib.figure import Figure

from optbench import losses
from optbench.analysis.claims import judge
from optbench.analysis.claims.values import measure_runs, title, value_at
from optbench.analysis.table import load_runs
from optbench.commands import claims as claims_command
from optbench.common.errors import UserError
from optbench.figures import layers as layer_plots
from optbench.formats.groups import config_folder
from optbench.stats.paired_tests import enough_seeds

STUDIES = sorted((config_folder() / "study" / "claims").glob("*.yaml"))
FASTER = {"value": "train_loss", "lower": {"optimizer": "adam"}, "than": {"optimizer": "sgd"}}


def runs(folder: Path, names: tuple[str, ...] = ("sgd", "adam"), seeds: int = 8, **keys) -> Path:
    for name in names:
        for seed in range(seeds):
            make_run(folder / f"{name}{seed}-{len(list(folder.glob('*')))}", name, seed, **keys)
    return folder


def judged(folder: Path, *checks: dict) -> list[judge.Check]:
    return judge.judge_claim(load_runs(folder), None, {"text": "A claim.", "checks": list(checks)})


def test_a_true_claim_holds_and_the_sentence_gives_its_numbers(tmp_path):
    (check,) = judged(runs(tmp_path), FASTER)
    assert check.word == "held"
    table = load_runs(tmp_path)
    finals = table.groupby("run", observed=True).last()
    adam, sgd = (finals[finals["optimizer"] == name]["train_loss"] for name in ("adam", "sgd"))
    assert check.medians == pytest.approx((adam.median(), sgd.median()))
    assert check.verdict.p == pytest.approx(2 / 2**8)
    text = judge.sentence("Adam is faster.", [check])
    assert text.startswith("Claimed: Adam is faster.")
    assert f"{adam.median():.3g} (optimizer adam)" in text
    assert "8 seeds" in text
    assert "p = 0.0078" in text
    assert text.rstrip().endswith("It held.")


def test_the_reversed_claim_did_not_hold(tmp_path):
    table = runs(tmp_path)
    (check,) = judged(
        table, FASTER | {"lower": {"optimizer": "sgd"}, "than": {"optimizer": "adam"}}
    )
    assert check.word == "did not hold"
    higher = {"value": "train_loss", "higher": {"optimizer": "sgd"}, "than": {"optimizer": "adam"}}
    assert judged(table, higher)[0].word == "held"


def test_noise_and_few_seeds_cannot_tell(tmp_path):
    keys = {"epochs": 1}
    runs(tmp_path / "a", ("one", "two"), **keys)
    check = FASTER | {"lower": {"optimizer": "one"}, "than": {"optimizer": "two"}}
    assert judged(tmp_path / "a", check)[0].word == "cannot tell"
    (few,) = judged(runs(tmp_path / "b", seeds=4), FASTER)
    assert few.word == "cannot tell"
    assert "Warning: 4 seeds cannot make a claim hold; 6 can." in judge.sentence("A claim.", [few])


def test_one_significant_reversal_refutes_and_one_doubt_leaves_open():
    assert judge.verdict_of(["held", "held"]) == "held"
    assert judge.verdict_of(["held", "cannot tell"]) == "cannot tell"
    assert judge.verdict_of(["held", "cannot tell", "did not hold"]) == "did not hold"


def test_seeds_too_few_to_refute_a_claim_are_named(tmp_path):
    table = runs(tmp_path)
    seven = judge.sentence("A claim.", judged(table, *[FASTER] * 7))
    assert "8 seeds cannot refute the claim by one of 7 comparisons (Holm); 9 can" in seven
    assert "Warning" not in judge.sentence("A claim.", judged(table, *[FASTER] * 6))
    wrong = FASTER | {"lower": {"optimizer": "sgd"}, "than": {"optimizer": "adam"}}
    checks = judged(table, wrong, *[FASTER | {"value": "val_loss", "than": 100}] * 5)
    assert checks[0].p_holm == pytest.approx(6 * 2 / 2**8)
    assert "p = 0.0078, corrected 0.047" in checks[0].text
    assert judge.verdict_of([check.word for check in checks]) == "did not hold"


def test_a_diverged_run_is_the_worst_value_and_is_counted(tmp_path):
    for seed in range(8):
        make_run(tmp_path / f"a{seed}", "adam", seed)
        make_run(tmp_path / f"s{seed}", "sgd", seed, lr=10.0, diverged_at=50)
    (check,) = judged(tmp_path, FASTER)
    assert check.word == "held"
    assert check.medians[1] == math.inf
    assert "diverged with 8 of 8 seeds" in check.text
    assert "a side diverged: no difference in numbers, p = 0.0078" in check.text
    assert "inf" not in check.text
    # what is neither a loss nor an accuracy has no worst value
    assert judged(tmp_path, FASTER | {"value": "seconds"})[0].word == "cannot tell"


def test_missing_seeds_are_an_error_that_names_them(tmp_path):
    runs(tmp_path)
    for path in tmp_path.glob("sgd3*"):
        for file in path.iterdir():
            file.unlink()
    with pytest.raises(UserError, match=r"\[0, 1, 2, 4, 5, 6, 7\].*runs are missing"):
        judged(tmp_path, FASTER)


def test_each_side_competes_at_its_best_learning_rate(tmp_path):
    for lr in (0.00003, 0.003, 0.3):
        runs(tmp_path, lr=lr)
    with pytest.raises(UserError, match="several runs of a seed"):
        judged(tmp_path, FASTER)
    (check,) = judged(tmp_path, FASTER | {"across": {"optimizer.lr": "best"}})
    assert check.word == "held"
    assert "best lr 0.003 (optimizer adam)" in check.notes
    two = FASTER | {"lower": {"optimizer": "adam", "optimizer.lr": 0.3}}
    with pytest.raises(UserError, match="several runs of a seed"):
        judged(tmp_path, two)


def test_the_spread_over_a_key_is_a_value(tmp_path):
    for initializer in ("small", "large"):
        runs(tmp_path, initializer__name=initializer)
    across = {"initializer": "spread"}
    (check,) = judged(tmp_path, FASTER | {"across": across})
    last = load_runs(tmp_path).groupby("run", observed=True).last()
    adam = last[last["optimizer"] == "adam"]
    wide = adam.pivot_table(index="seed", columns="initializer.name", values="train_loss")
    assert check.medians[0] == pytest.approx((wide["small"] - wide["large"]).abs().median())
    assert check.text.startswith("spread over initializer of final training loss: ")


def test_the_spread_over_a_key_takes_each_value_at_its_best_rate(tmp_path):
    for initializer in ("small", "large"):
        for lr in (0.00003, 0.003):
            runs(tmp_path, seeds=2, lr=lr, initializer__name=initializer)
    across = {"optimizer.lr": "best", "initializer": "spread"}
    (check,) = judged(tmp_path, FASTER | {"across": across})
    assert "best lr 0.003 (optimizer adam, small, the edge of those tried)" in check.notes
    assert check.factor == 1  # there is one value of each seed
    last = load_runs(tmp_path).groupby("run", observed=True).last()
    adam = last[(last["optimizer"] == "adam") & (last["optimizer.lr"].astype(float) == 0.003)]
    wide = adam.pivot_table(index="seed", columns="initializer.name", values="train_loss")
    assert check.medians[0] == pytest.approx((wide["small"] - wide["large"]).abs().median())


def test_a_number_may_be_the_other_side(tmp_path):
    runs(tmp_path)
    assert judged(tmp_path, FASTER | {"than": 2.3})[0].word == "held"
    assert judged(tmp_path, FASTER | {"than": 0})[0].word == "did not hold"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"checks": [FASTER]}, "needs a text"),
        ({"text": "x", "checks": []}, "checks"),
        ({"text": "x", "checks": [FASTER], "extra": 1}, "extra"),
        ({"text": "x", "checks": [{"value": "train_loss", "than": 1}]}, "lower or higher"),
        ({"text": "x", "checks": [FASTER | {"where": 1}]}, "it needs value"),
        ({"text": "x", "checks": [FASTER | {"value": "nothing"}]}, r"no run has a layers\.csv"),
        ({"text": "x", "checks": [FASTER | {"at": "soon"}]}, "no place in the curves"),
        ({"text": "x", "checks": [FASTER | {"at": 99}]}, "no value at 99"),
        ({"text": "x", "checks": [FASTER | {"lower": {"optimizer": "adm"}}]}, "no run with"),
        ({"text": "x", "checks": [FASTER | {"across": {"seed": "sum"}}]}, "best, spread"),
        ({"text": "x", "checks": [FASTER | {"across": {"seed": "best"}}]}, "no value of seed"),
        ({"text": "x", "checks": [FASTER | {"across": {"seed": "spread"}}]}, "no value of seed"),
        ({"text": "x", "checks": [FASTER | {"across": ["seed"]}]}, "not of the form"),
    ],
)
def test_a_claim_that_cannot_be_read_is_refused(tmp_path, claim, message):
    runs(tmp_path, seeds=1)
    with pytest.raises(UserError, match=message):
        judge.judge_claim(load_runs(tmp_path), None, claim)


def test_a_claim_names_places_in_a_curve():
    curve = pd.Series([4.0, 1.0, 2.0], index=[0, 1, 2])
    places = {"first": 4, "last": 2, "max": 4, "min": 1, 1: 1, "last / 1": 2, "max/first": 1}
    for spec, value in places.items():
        assert value_at(curve, spec) == value
    assert title({"value": "weight_rank", "depth": 1, "at": "max"}) == (
        "weight rank of linear layers (layer 1), largest"
    )
    step = {"value": "update_norm / grad_norm", "at": "last / first"}
    assert title(step) == "update norm / grad norm, final over the first step"


def layers() -> pd.DataFrame:
    """Two tanh layers, two steps, two runs whose activations shrink by half or not at all."""
    lines = [
        {
            "run": run, "status": "completed", "optimizer": "sgd", "seed": 0,
            "initializer.name": run, "epoch": epoch,
            "step": step, "layer": layer, "kind": kind, "depth": depth,
            "activation_std": shrink**depth if depth == depth else math.nan,
            "update_norm": 2.0, "grad_norm": 4.0 * (1 + epoch),
        }
        for run, shrink in (("half", 0.5), ("whole", 1.0))
        for step, epoch in ((1, 0.1), (10, 1.0))
        for layer, kind, depth in (("1", "tanh", 1), ("2", "tanh", 2), ("all", "all", math.nan))
    ]  # fmt: skip
    table = pd.DataFrame(lines)
    names = ["epoch", "step", "layer", "kind", "depth", "activation_std", "update_norm"]
    table.attrs["measured"] = [*names, "grad_norm"]
    return table


def test_a_claim_measures_layers():
    table = layers()
    by_depth = {"value": "activation_std", "kind": "tanh", "depth": "last / first", "at": "first"}
    assert measure_runs(table, by_depth).to_dict() == {"half": 0.5, "whole": 1.0}
    step = {"value": "update_norm / grad_norm", "at": "last / first"}
    np.testing.assert_allclose(measure_runs(table, step), 1.1 / 2)


def test_layer_figures_draw_the_numbers():
    figure = layer_plots.by_depth(layers(), ["activation_std"], "tanh")
    first = figure.axes[0].lines[0]
    assert list(first.get_xdata()) == [1, 2]
    assert list(first.get_ydata()) == [0.5, 0.25]
    figure = layer_plots.over_time(layers(), "update_norm / grad_norm", "initializer")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [0.5 / 1.1, 0.25])
    with pytest.raises(UserError, match="relu"):
        layer_plots.by_depth(layers(), ["activation_std"], "relu")


def test_the_gradient_of_a_sigmoid_output_is_the_formula():
    axes = Figure().add_subplot()
    layer_plots.draw_formula(axes)
    squared, entropy = axes.lines
    error = np.asarray(squared.get_xdata())
    # two classes, label 1: the first output has target 0, so that it is the error; the second is
    # right already. The losses are means over examples and classes
    z = torch.logit(torch.tensor(error, dtype=torch.float64))
    labels = torch.ones(len(z), dtype=torch.long)
    for line, loss in ((squared, partial(losses.mse, output="sigmoid")), (entropy, losses.bce)):
        logits = torch.stack([z, torch.full_like(z, 100.0)], dim=1).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(logits, labels), logits)
        size = gradient[:, 0].abs() * logits.numel()
        np.testing.assert_allclose(line.get_ydata(), size, rtol=1e-9)


def test_the_measured_gradients_stand_against_the_error_of_their_epoch():
    names = {"run": ["a", "a", "b", "b"], "loss.name": ["bce", "bce", "mse_sigmoid", "mse_sigmoid"]}
    epochs = pd.DataFrame(names | {"epoch": [0, 1, 0, 1], "train_accuracy": [0.1, 0.6, 0.1, 0.3]})
    steps = pd.DataFrame(names | {"epoch": [0.02, 1.0] * 2})
    last = steps.assign(kind="linear", depth=2.0, output_grad_std=[0.5, 0.2, 0.1, 0.3])
    others = steps.assign(kind="linear", depth=1.0, output_grad_std=9.0)
    rows = pd.concat([last, others, last.assign(kind="relu", output_grad_std=8.0)])
    points = layer_plots.measured_gradients(rows, epochs)
    assert points["loss"].tolist() == names["loss.name"]
    np.testing.assert_allclose(points["error"], [0.9, 0.4, 0.9, 0.7])
    np.testing.assert_allclose(points["gradient"], [0.5, 0.2, 0.1, 0.3])
    squared, entropy = layer_plots.gradient_by_error(rows, epochs).axes[1].lines
    np.testing.assert_allclose(squared.get_ydata(), [0.1, 0.3])
    np.testing.assert_allclose(entropy.get_xdata(), [0.9, 0.4])


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_claim_is_stated_about_what_its_study_runs(path):
    study = yaml.safe_load(path.read_text())
    claimed, params = study["claim"], study["hydra"]["sweeper"]["params"]
    assert set(claimed) <= judge.CLAIM_KEYS
    # enough seeds that each comparison alone could refute the claim, its side chosen or not
    factor = (
        2 if any("best" in check.get("across", {}).values() for check in claimed["checks"]) else 1
    )
    assert len(params["seed"].split(",")) >= max(8, enough_seeds(factor * len(claimed["checks"])))
    for check in claimed["checks"]:
        first = check.get("lower", check.get("higher", check.get("equal")))
        sides = [first, check["to"] if "equal" in check else check["than"]]
        for side in sides:
            for key, value in side.items() if isinstance(side, dict) else ():
                own = key.replace("optimizer", str(side.get("optimizer")), 1)  # as adam.lr
                texts = params.get(key, params.get(own)).split(",")
                tried = [text.replace("textbook/", "textbook_") for text in texts]
                value = "null" if value is None else value
                same = [v for v in tried if v == str(value) or v == str(value).lower()]
                assert same or float(value) in map(float, tried), f"{key} = {value}"
    if isinstance(figure := claimed.get("figure"), dict):
        assert figure["draw"] in layer_plots.FIGURES


def test_a_study_ends_with_its_verdict_on_the_command_line(tmp_path):
    command = [
        *(sys.executable, "-m", "optbench", "-m", "study=claims/symmetry", "quiet=true"),
        *("data.subset=200", "epochs=1", "seed=0,1", "model.hidden=[8,8]", "num_threads=1"),
        "optimizer.lr=0.1",
        *("name=mine", f"results_dir={tmp_path}"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    folder = tmp_path / "mine"
    text = (folder / "claim.md").read_text()
    assert "Claimed: Equal weights never become different" in text
    assert "It cannot be told." in text  # two seeds
    changes = "data.subset=200 epochs=1 model.hidden=[8,8] optimizer.lr=0.1"
    assert f"Warning: the command changed the study by {changes}: the claim is about" in text
    assert judge.verdict_line(text).startswith(f"With {changes} it cannot be told (")
    assert pd.read_csv(folder / "claim.csv")["n"].tolist() == [2, 2, 2]
    assert (folder / "claim.png").stat().st_size > 5000
    (folder / "claim.md").unlink()
    assert claims_command.main([str(folder)]) == 0
    assert (folder / "claim.md").read_text() == text
    record = json.loads(next(folder.glob("*/run.json")).read_text())
    assert "claim" not in record["config"]


def test_a_folder_without_a_claim_is_named(tmp_path, capsys):
    assert sub_command("claims")([str(tmp_path)]) == 1
    assert "(there is no claim.json)" in capsys.readouterr().err


def test_a_quotient_of_three_values_is_refused():
    with pytest.raises(UserError, match="divides more than two values"):
        value_at(pd.Series([1.0, 2.0, 4.0]), "last / first / 2")


def test_the_last_line_of_a_claim_begins_with_its_outcome() -> None:
    few = "Claimed: A is better.\n\nIt cannot be told.\n\n"
    few += "Warning: 2 seeds cannot make a claim hold; 7 can.\n"
    assert judge.verdict_line(few) == (
        "It cannot be told (2 seeds cannot make a claim hold; 7 can): A is better."
    )
    assert judge.verdict_line("Claimed: A is better.\n\nIt held.\n") == "It held: A is better."
