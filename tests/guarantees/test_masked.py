"""A short part of the suite on smaller machines; `scripts/test-masked` runs all of it there."""

import masked
import pytest

# numbers of each way of taking steps, as fast tests
NUMBERS = """
tests/engines/test_compiled_steps.py::test_plain_steps_are_those_of_a_plain_loop_bit_for_bit
tests/engines/test_compiled_steps.py::test_compiled_steps_follow_the_settings_of_optimizers
tests/engines/test_compiled_steps.py::test_compiled_steps_follow_every_activation
tests/engines/test_compiled_steps.py::test_sums_are_as_near_to_float64_as_float32_allows
tests/engines/test_compiled_steps.py::test_threads_and_chunks_change_no_bit
tests/training/test_loop.py
tests/training/test_device.py
"""


@pytest.mark.parametrize(
    "mask",
    [pytest.param(m, marks=pytest.mark.slow) if "avx" in m else m for m in masked.MASKS],
)
def test_numbers_are_right_on_smaller_machines(mask):
    if missing := masked.lacks(mask):
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
    names = NUMBERS.split()  # the engines may be deleted, and their tests
    numbers = [name for name in names if (masked.ROOT / name.partition("::")[0]).exists()]
    done = masked.run(mask, *arguments, *numbers, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
