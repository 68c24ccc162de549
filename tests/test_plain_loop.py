"""The default command line trains as a loop of plain torch does, also stopped and resumed."""

import random

import differential_models
import differential_optimizers
import pytest
from plain_loop import PAIRS, STEPS, check_pair

# each model and each optimizer at least once; scripts/plain-loop runs all
CHOSEN = random.Random(1).sample(PAIRS, 60)


def _forty():
    first = [next(p for p in CHOSEN + PAIRS if p[0] == m) for m in differential_models.NAMES]
    seen = {o for _, o in first}
    first += [next(p for p in PAIRS[::-1] if p[1] == o) for o in differential_optimizers.ALL if o not in seen]
    return list(dict.fromkeys(first + CHOSEN))[:40]


@pytest.mark.parametrize(("model", "optimizer"), _forty())
def test_equals_a_loop_of_plain_torch(model, optimizer, tmp_path):
    stop_at = random.Random(f"{model} {optimizer}").randrange(1, STEPS)
    check_pair(model, optimizer, tmp_path, stop_at)
