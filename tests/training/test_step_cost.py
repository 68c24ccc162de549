"""The cost of a step: state counted byte for byte, the module left alone."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from made_runs import make_run
from torch import nn

from optbench.analysis.final_values import cost_of_runs
from optbench.analysis.summary import summary, to_markdown
from optbench.analysis.table import load_runs
from optbench.figures.cost import cost
from optbench.report.sections.verdict import cost_text
from optbench.training.step_cost import cost_of_run, step_cost, timed


@pytest.mark.parametrize(
    ("build", "per_parameter"),
    [
        (partial(torch.optim.SGD, lr=0.1), 0),
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9), 4),
        (torch.optim.Adam, 8),
        (partial(torch.optim.Adam, amsgrad=True), 12),
        (torch.optim.LBFGS, None),
    ],
)
def test_state_is_counted_in_bytes(build: Callable[..., Any], per_parameter: int | None) -> None:
    model = nn.Linear(30, 20)
    before = [p.clone() for p in model.parameters()]
    cost = step_cost(build, model, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert cost.parameters == 620
    assert 0 < cost.low <= cost.milliseconds <= cost.high
    if per_parameter is not None:
        # a step counter of 4 bytes for each of the two tensors in Adam
        assert cost.state_bytes - 620 * per_parameter in (0, 8)
        assert cost.bytes_per_parameter == cost.state_bytes / 620


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter"):
        step_cost(torch.optim.Adam, [])


def test_a_run_measures_its_step_and_is_not_changed_by_it(
    make_problem: Callable[..., Any],
) -> None:
    problem, device = make_problem(), torch.device("cpu")
    state = torch.get_rng_state()

    def measure(optimizer: Callable[..., Any]) -> Any:
        return cost_of_run(problem, optimizer, seed=0, decay_biases_and_norms=True, device=device)

    cost = measure(torch.optim.Adam)
    assert torch.equal(torch.get_rng_state(), state)
    assert cost["state_bytes"] / cost["parameters"] == pytest.approx(8, abs=0.5)
    assert 0 < cost["step_ms_min"] <= cost["step_ms"] <= cost["step_ms_max"]
    assert measure(torch.optim.LBFGS) is None  # calls its closure more than once a step
    assert measure(partial(torch.optim.Adam, betas=2)) is None  # the run says what is wrong


def with_durations(monkeypatch: pytest.MonkeyPatch, durations: list[float]) -> list[float]:
    """Let each step take the next of these seconds, the last of them for ever; returns the steps'
    durations as they are taken."""
    now, taken = [0.0], []

    class Timed(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            taken.append(durations[min(len(taken), len(durations) - 1)])
            now[0] += taken[-1]

    monkeypatch.setattr("optbench.training.step_cost.clock", lambda: now[0])
    monkeypatch.setattr(torch.optim, "Timed", Timed, raising=False)
    return taken


@pytest.mark.parametrize(
    ("each", "counted"),
    [(1e-5, 3000), (1e-3, 30), (5e-3, 20), (0.05, 3), (1.0, 3)],  # seconds of a step
)
def test_enough_steps_are_counted_without_those_that_warm_up(monkeypatch, each, counted):
    taken = with_durations(monkeypatch, [9 * each, 9 * each, 9 * each, each])
    if each >= 0.05:  # no time to warm up more than once
        taken = with_durations(monkeypatch, [9 * each, each])
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Timed([weight], lr=0.1)  # type: ignore[attr-defined]
    cost, _ = timed(optimizer, [weight], least=0.03, most=0.3)
    assert cost.steps == pytest.approx(counted, abs=2)
    assert cost.high == pytest.approx(1000 * each)
    assert len(taken) <= counted + 5


def test_the_spread_leaves_out_one_step_in_ten(monkeypatch):
    with_durations(monkeypatch, [0.0] * 3 + [0.001] * 17 + [0.005] * 2 + [0.5])
    weight = nn.Parameter(torch.ones(1))
    cost, _ = timed(torch.optim.Timed([weight], lr=0.1), [weight])  # type: ignore[attr-defined]
    assert (cost.low, cost.high, cost.steps) == pytest.approx((1, 500, 20))
    assert cost.quantile == pytest.approx(5)


def costly(folder: Path, ms: float, step_ms: float, **more: Any) -> Any:
    """A run of 360 steps of `ms` milliseconds, of which the optimizer's was timed as `step_ms`."""
    timing = {"step_ms": 9 * step_ms, "step_ms_min": step_ms, "step_ms_high": step_ms,
            "steps": 20, "state_bytes": 800, "parameters": 100}  # fmt: skip
    run = make_run(folder, "adam", 0, record={"cost": timing | more.pop("cost", {}), **more})
    frame = pd.read_csv(run / "epochs.csv")
    frame["seconds"] = frame["step"] * ms / 1000
    frame.to_csv(run / "epochs.csv", index=False, na_rep="nan")
    return load_runs(folder)


@pytest.mark.parametrize(
    ("step_ms", "part", "words"),
    [(10.48, 5.277, "about all of it the optimizer's"), (2.0, 2.0, "2.000 ms of it the optim")],
)
def test_a_part_is_never_above_its_whole(tmp_path, step_ms, part, words):
    table = costly(tmp_path / "run", 5.277, step_ms)
    costs = cost_of_runs(table)
    assert costs["ms_per_step"].iloc[0] == pytest.approx(5.277)
    assert costs["step_ms"].iloc[0] == pytest.approx(part)
    text = cost_text({name: float(costs[name].iloc[0]) for name in costs})
    assert text.startswith("5.277 ms per training step, ")
    assert words in text
    assert "10.48" not in text
    markdown = to_markdown(summary(table))
    assert "10.48" not in markdown
    assert ("about all" in markdown) == (step_ms > 5.277)
    assert "varied" not in markdown


@pytest.mark.parametrize("more", [{"steps_by": "dense.cpp"}, {"cohort": 4}])
def test_a_step_that_was_not_taken_is_no_part(tmp_path, more):
    """Steps that are compiled, or of several runs together, hold no step of the optimizer's own."""
    costs = cost_of_runs(costly(tmp_path / "run", 5.0, 0.5, **more))
    assert costs["step_ms"].isna().all()
    text = cost_text({name: float(costs[name].iloc[0]) for name in costs})
    assert "optimizer" not in text


def test_timings_that_vary_are_told(tmp_path):
    table = costly(tmp_path / "run", 5.0, 1.0, cost={"step_ms_high": 3.1})
    text = cost_text({name: float(v) for name, v in cost_of_runs(table).iloc[0].items()})
    assert text.endswith("timing varied by a factor of 3.1 between steps")
    assert "Timing varied by a factor of 3.1 between steps." in to_markdown(summary(table))
    assert "varied by a factor of 3.1" in str(cost(table).get_label())
    table = costly(tmp_path / "other", 5.0, 1.0, cost={"step_ms_high": 258.3})
    assert "by a factor of 260 between" in to_markdown(summary(table))


def test_the_fastest_stretch_of_a_run_counts(tmp_path):
    table = costly(tmp_path / "run", 5.0, 1.0)
    table["seconds"] += (table["step"] > 36) * 0.36  # the second epoch took 10 ms more a step
    costs = cost_of_runs(table)
    assert costs["ms_per_step"].iloc[0] == pytest.approx(5.0)
    assert costs["ms_spread"].iloc[0] == pytest.approx(3.0)
