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
CHOSEN += random.Random(1).sample([pair for pair in PAIRS if pair not in CHOSEN], 10)


@pytest.mark.parametrize(("model", "optimizer"), CHOSEN)
def test_a_run_equals_a_loop_of_plain_torch(model, optimizer, tmp_path):
    stop_at = random.Random(f"{model} {optimizer}").randrange(1, STEPS)
    check_pair(model, optimizer, tmp_path, stop_at)
