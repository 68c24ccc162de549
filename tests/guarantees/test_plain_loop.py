"""The default command line trains as a loop of plain torch does, also stopped and resumed."""

import random

import differential_models
import differential_optimizers
import pytest
from plain_loop import PAIRS, STEPS, check_pair

# each model once and each optimizer at least twice; the script of this name runs all 450 pairs
CHOSEN = [
    (model, list(differential_optimizers.ALL)[(7 * k + k // 15) % 15])
    for k, model in enumerate(differential_models.NAMES)
]
CHEAP = [pair for pair in PAIRS if pair not in CHOSEN and pair[1] != "LBFGS"]
CHOSEN += random.Random(1).sample(CHEAP, 12)


def marked(pair: tuple[str, str]) -> object:
    """Return a parameter of the test: LBFGS evaluates the full batch three times a step."""
    late = pair[1] == "LBFGS" or pair in CHOSEN[len(differential_models.NAMES) :]
    return pytest.param(*pair, marks=pytest.mark.slow if late else ())


@pytest.mark.parametrize(("model", "optimizer"), [marked(pair) for pair in CHOSEN])
def test_a_run_equals_a_loop_of_plain_torch(model, optimizer, tmp_path):
    stop_at = random.Random(f"{model} {optimizer}").randrange(1, STEPS)
    check_pair(model, optimizer, tmp_path, stop_at)
