"""Comparisons from Python: what `optbench.compare` trains is what plain runs give."""

import inspect
import pydoc
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch.optim import SGD, Adam

import optbench
from optbench import UserError
from optbench.figures.curves import curves
from optbench.training.loop import Training

SLOW, FAST = partial(SGD, lr=0.001), partial(SGD, lr=0.5)


class Mine(Adam):
    def __init__(self, params):
        super().__init__(params, lr=0.01)


@pytest.fixture
def problem(make_problem):
    return make_problem(epochs=2)


def test_runs_of_a_comparison_are_those_of_single_trainings(problem) -> None:
    with pytest.warns(UserWarning, match="no difference can be shown"):
        made = optbench.compare(
            problem, {"sgd": FAST, "mine": Mine}, seeds=[3, 1], engine="plain", progress=False
        )
    assert set(made.table["seed"]) == {1, 3}
    for name, build in (("sgd", FAST), ("mine", Mine)):
        for seed in (1, 3):
            rows = [
                u.epoch
                for u in optbench.train(problem, build, seed=seed, engine="plain")
                if u.epoch
            ]
            own = made.table[(made.table["optimizer"] == name) & (made.table["seed"] == seed)]
            assert list(own["train_loss"]) == [row["train_loss"] for row in rows]
            assert list(own["epoch"]) == [0, 1, 2]


def test_result_draws_tabulates_and_judges(problem) -> None:
    given = {"slow": SLOW, "my alpha": FAST, "mine": Mine}
    made = optbench.compare(problem, given, seeds=7, progress=False)
    figure = made.plot("val_loss")
    texts = {text.get_text() for text in figure.findobj(lambda item: hasattr(item, "get_text"))}
    assert {"slow", "my alpha", "mine"} <= texts
    table = made.summary()
    assert list(table.index)[-1] == "slow"
    assert set(table["seeds"]) == {7}
    found = made.verdict(candidate="my alpha", baseline="slow")
    assert found.text.startswith("my alpha is better than slow: -")
    assert "n = 7, p = 0.031 (final training loss, lower is better" in found.text
    assert str(found) == found.text
    assert made.verdict("slow", "my alpha").outcome == "worse"
    # corrected for both comparisons of the candidate
    assert found.p == pytest.approx(2 * 2 / 2**7)
    values = made.comparison.finals("train_loss")
    ends = [values[f"my alpha-seed{n}"] - values[f"slow-seed{n}"] for n in range(7)]
    assert found.high < 0
    assert min(ends) <= found.difference <= max(ends)


def test_six_seeds_show_a_difference_between_three_optimizers_too(problem) -> None:
    """As from the command line: with too few seeds for Holm, the max-type test takes over."""
    given = {"slow": SLOW, "fast": FAST, "mine": Mine}
    made = optbench.compare(problem, given, seeds=6, progress=False)
    found = made.verdict("fast", "slow")
    assert found.outcome == "better"
    assert found.p == pytest.approx(2 / 2**6)
    assert "sign-flip tests of the largest |t|, runs paired by seed over 2 pairs" in found.text


def test_all_optimizers_of_a_comparison_have_one_engine(make_problem) -> None:
    problem = make_problem(epochs=1)
    engines = optbench.compare(problem, {"sgd": FAST, "mine": Mine}, seeds=6, progress=False)
    assert len(set(engines.table["engine"])) == 1
    given = {"a": FAST, "b": SLOW}
    named = optbench.compare(problem, given, seeds=6, engine="plain", progress=False)
    assert set(named.table["engine"]) == {"plain"}


class OfBudget(torch.optim.SGD):
    def __init__(self, params, total_steps, lr=0.1):
        super().__init__(params, lr=lr / total_steps)


def test_optimizers_that_need_the_budget_are_compared(problem) -> None:
    with pytest.warns(UserWarning, match="fewer than 6"):
        compared = optbench.compare(problem, {"sgd": torch.optim.SGD, "own": OfBudget}, seeds=1)
    assert set(compared.table["optimizer"]) == {"sgd", "own"}


def test_diverged_run_counts_as_the_worst(problem) -> None:
    given = {"good": FAST, "wild": partial(SGD, lr=1e20)}
    made = optbench.compare(problem, given, seeds=6, progress=False)
    assert list(made.summary()["diverged"]) == [0, 6]
    assert np.isinf(made.summary().loc["wild", "train_loss_median"])
    assert made.verdict("good", "wild").outcome == "better"


def test_caller_is_warned_before_a_comparison_that_can_show_nothing(problem) -> None:
    with pytest.warns(UserWarning, match="fewer than 6 pairs"):
        optbench.compare(problem, {"a": FAST, "b": SLOW}, seeds=2, progress=False)


def test_progress_goes_to_standard_error(problem, capsys) -> None:
    optbench.compare(problem, {"only one": FAST}, seeds=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "only one, seed 0" in err


@pytest.mark.parametrize(
    ("optimizers", "seeds", "words"),
    [
        ({}, 6, "optimizers must be a dictionary"),
        ([FAST], 6, "optimizers must be a dictionary"),
        ({"": FAST}, 6, "needs a name"),
        ({"sgd": "sgd"}, 6, "'sgd' must be a class, or a function .* not a str"),
        ({"sgd": FAST}, 2.5, "seeds must be a whole number"),
        ({"sgd": FAST}, 0, "seeds must be"),
        ({"sgd": FAST}, [1, 1], "seeds must be"),
        ({"sgd": FAST}, -1, "seeds must be"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(problem, optimizers, seeds, words) -> None:
    with pytest.raises(UserError, match=words):
        optbench.compare(problem, optimizers, seeds=seeds)


def test_names_that_there_are_not_are_refused(problem) -> None:
    with pytest.raises(UserError, match=r"must be an optbench.Problem, not a dict"):
        optbench.compare({}, {"sgd": FAST})
    with pytest.raises(UserError, match="device must be auto, cpu, cuda"):
        optbench.compare(problem, {"sgd": FAST}, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no usable CUDA device"):
            optbench.compare(problem, {"sgd": FAST}, device="cuda")
    made = optbench.compare(problem, {"a": FAST, "b": SLOW}, seeds=6, progress=False)
    assert "train_loss_median" in repr(made)
    for pair in (("a", "c"), ("a", "a")):
        with pytest.raises(UserError, match=r"must be two of: 'a', 'b'"):
            made.verdict(*pair)
    with pytest.raises(UserError, match="the name of one logged column is needed, not"):
        made.plot(y=["train_loss", "test_loss"])
    with pytest.raises(UserError, match=r"no logged column 'loss'.*\nThere are: .*train_loss"):
        made.plot("loss")


def test_curves_of_a_frame_without_runs_say_what_is_needed() -> None:
    with pytest.raises(UserError, match=r"no column run, .*those of optbench.load_runs"):
        curves(pd.DataFrame({"epoch": [0, 1], "train_loss": [2.0, 1.0]}))


def test_keyword_arguments_are_named_and_documented() -> None:
    for function in (optbench.train, optbench.compare):
        parameters = inspect.signature(function).parameters
        assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())
        assert set(parameters) <= set(re.findall(r"\w+", function.__doc__))
        assert all(p.annotation is not p.empty for p in parameters.values())
    # a new argument of the loop is one of `train`
    own = set(inspect.signature(Training).parameters)
    assert own == set(inspect.signature(optbench.train).parameters) - {"stop"}
    assert dir(optbench) == [
        "Problem", "UserError", "__version__", "compare", "load_runs", "prepare", "train",
    ]  # fmt: skip


def test_wrong_arguments_from_python_get_words(problem) -> None:
    made = torch.optim.SGD(torch.nn.Linear(2, 2).parameters())
    for wrong in (made, "adam"):
        with pytest.raises(UserError, match=r"must be a class, or a function that takes"):
            list(optbench.train(problem, wrong))
    with pytest.raises(UserError, match=r"a folder is a text or a Path, not \['results'\]"):
        optbench.load_runs(["results"])
    with pytest.raises(AttributeError) as caught:
        _ = optbench.prepar
    assert (caught.value.name, caught.value.obj) == ("prepar", optbench)  # Python then proposes


def test_help_says_what_is_public() -> None:
    text = pydoc.plaintext.document(optbench)
    description, _, rest = text.partition("PACKAGE CONTENTS")
    for name in (*optbench.__all__, "datasets", "models", "losses", "initializers"):
        if name != "UserError":
            assert f"`{name}`" in description
    assert "The remaining modules are internal" in description
    assert "_MODULE_OF" not in rest


def test_comparison_leaves_the_callers_generators(problem) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    optbench.compare(problem, {"sgd": FAST}, seeds=1, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
