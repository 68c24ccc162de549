"""The sub-commands: arguments and files, then one call each."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.common.names import nearest
from optbench.formats.groups import own_folders, own_places


class Parser(argparse.ArgumentParser):
    """A parser whose errors are sentences, with the nearest known argument."""

    takes_settings = False  # whether words such as y=val_loss are allowed

    def parse_args(self, args: Sequence[str] | None = None) -> argparse.Namespace:  # type: ignore[override]
        """Return the parsed words. Raise `UserError` for a setting such as y=val_loss."""
        self._refuse_options_without_dashes(args or ())
        return super().parse_args(args)

    def parse_intermixed_args(self, args: Sequence[str] | None = None) -> argparse.Namespace:  # type: ignore[override]
        """Return the parsed words, whose options may stand between settings, as `parse_args`."""
        self._refuse_options_without_dashes(args or ())
        return super().parse_intermixed_args(args)

    def _refuse_options_without_dashes(self, args: Sequence[str]) -> None:
        for word in args:
            key, equals, value = word.partition("=")
            if equals and not self.takes_settings and f"--{key}" in self._option_string_actions:
                self.error(f"{word} is no folder. Did you mean --{key} {value}?")

    def error(self, message: str) -> NoReturn:
        """Raise `UserError` with argparse's message."""
        near = ""
        if unknown := re.match(r"unrecognized arguments: (-[\w-]+)", message):
            found = nearest(unknown[1], self._option_string_actions)
            near = f". Did you mean {found[0]}?" if found else ""
        raise UserError(f"{message}{near}\npython -m {self.prog} --help explains the arguments")


def listed(texts: Sequence[str] | None, marks: str = r",\s") -> list[str] | None:
    """Return the names in some words; one word may hold several, as in "png,pdf".

    marks: what stands between names, as the content of a set of regular expressions.
    """
    if texts is None:
        return None
    found = [name.strip() for text in texts for name in re.split(f"[{marks}]+", text)]
    return [name for name in found if name]


def use_own_files(folder: str | None) -> None:
    """Find the user's classes in the current folder, and choices and classes in a folder."""
    own_folders[:] = [Path(expanded(folder))] if folder else []
    sys.path[:0] = [place for place in [str(Path.cwd())] if place not in sys.path]
    sys.path += own_places()
