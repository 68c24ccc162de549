"""`python -m optbench` in this process, which saves the time to import torch."""

import sys

import pytest

from optbench import __main__ as cli


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Return the exit status of the program with these words."""
    monkeypatch.setattr(sys, "argv", ["optbench", *words])
    try:
        cli.main()
    except SystemExit as error:
        return int(error.code or 0)
    return 0
