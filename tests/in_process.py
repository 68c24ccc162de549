"""`python -m optbench` in this process, which saves the time to import torch."""

import sys
from collections.abc import Callable
from importlib import import_module

import pytest

from optbench import __main__ as cli
from optbench.common.console import endings


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Return the exit status of the program with these words."""
    monkeypatch.setattr(sys, "argv", ["optbench", *words])
    try:
        cli.main()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def sub_command(name: str) -> Callable[..., int]:
    """Return a sub-command as a function of its words; it returns the exit status."""

    def main(words: list[str]) -> int:
        try:
            with endings():
                return import_module(f"optbench.commands.{name}").main(words) or 0
        except SystemExit as error:
            return int(error.code or 0)

    return main
