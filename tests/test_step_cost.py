"""The cost of a step: state counted byte for byte, the module left alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from optbench.step_cost import cost_of_run, step_cost


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
def test_state_bytes(build: Callable[..., Any], per_parameter: int | None) -> None:
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


def test_nothing_to_train() -> None:
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
