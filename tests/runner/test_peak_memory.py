"""The peak of memory counts from `reset` on, and holds what was freed again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from optbench.runner import peak_memory

CPU = torch.device("cpu")


@pytest.mark.skipif(not peak_memory.CLEAR.exists(), reason="Linux counts it")
def test_memory_that_was_freed_is_in_the_peak_until_it_is_reset() -> None:
    size = 2**28
    assert peak_memory.reset(CPU)
    before = peak_memory.peak_bytes(CPU)
    held = np.ones(size, dtype=np.uint8)  # 256 MiB, each page written
    del held
    grown = peak_memory.peak_bytes(CPU) - before
    assert 0.9 * size < grown < 1.5 * size
    assert peak_memory.reset(CPU)
    assert peak_memory.peak_bytes(CPU) < before + size // 2


def test_a_machine_that_does_not_count_it_says_so(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peak_memory, "CLEAR", tmp_path / "no" / "clear_refs")
    assert not peak_memory.reset(CPU)
