"""A short part of the suite on smaller machines; `scripts/test-masked` runs all of it there."""

import masked
import pytest

NUMBERS = ["tests/test_dense.py", "tests/test_dense_sums.py", "tests/test_training.py"]
SHORT = "not every_optimizer and not other_cpus and not compiled_once and not slow"
SEEN = """
import torch
from optbench import dense
print(torch.backends.cpu.get_cpu_capability(), dense.available(), torch.get_num_threads())
"""


@pytest.mark.parametrize("mask", masked.MASKS)
def test_numbers_are_right_on_smaller_machines(mask):
    if missing := masked.lacks(mask):
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", SHORT, *NUMBERS]
    done = masked.run(mask, *arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
