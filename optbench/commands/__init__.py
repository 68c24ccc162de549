"""The sub-commands: arguments and files, then one call each."""

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from optbench.common.errors import UserError
from optbench.common.names import nearest


class Parser(argparse.ArgumentParser):
    """A parser whose errors are sentences, with the nearest known argument."""

    takes_settings = False  # whether words such as y=val_loss are allowed

    def parse_args(self, args: Sequence[str] | None = None) -> argparse.Namespace:  # type: ignore[override]
        """Return the parsed words. Raise `UserError` for a setting such as y=val_loss."""
        for word in args or ():
            key, equals, value = word.partition("=")
            if equals and not self.takes_settings and f"--{key}" in self._option_string_actions:
                self.error(f"{word} is no folder. Did you mean --{key} {value}?")
        return super().parse_args(args)

    def error(self, message: str) -> NoReturn:
        """Raise `UserError` with argparse's message."""
        near = ""
        if unknown := re.match(r"unrecognized arguments: (-[\w-]+)", message):
            found = nearest(unknown[1], self._option_string_actions)
            near = f". Did you mean {found[0]}?" if found else ""
        raise UserError(f"{message}{near}\npython -m {self.prog} --help explains the arguments")


def listed(texts: Sequence[str] | None) -> list[str] | None:
    """Return the names in some words; one word may hold several, as in "png,pdf"."""
    if texts is None:
        return None
    return [name for text in texts for name in re.split(r"[,\s]+", text) if name]
