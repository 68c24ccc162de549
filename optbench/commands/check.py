"""`optbench check OPTIMIZER [KEY=VALUE]`: try an optimizer's class on small functions.

The table has a row for each check: descent, finite differences against the gradient, determinism,
checkpoints, the order of parameters, schedules, groups, cost, and equal steps with a reference.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from optbench.commands import Parser, use_own_files
from optbench.commands.groups import table
from optbench.common.console import say
from optbench.common.errors import UserError
from optbench.config.comments import GROUPS

MARKS = {True: "passed", False: "FAILED", None: "-"}
RED, GREEN, PLAIN = "\033[31m", "\033[32m", "\033[0m"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of the checks; return 1 if one failed."""
    parser = Parser(prog="optbench check", description=__doc__)
    add = parser.add_argument
    add("optimizer", help="the name of a YAML, as in optimizer=NAME")
    add("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="settings, as in lr=0.01")
    add("--config-dir", metavar="FOLDER", help="a folder of yours that holds optimizer/NAME.yaml")
    add("--reference", metavar="CLASS", help="a class that must take the same steps in float64")
    asked = parser.parse_intermixed_args(arguments)
    subject = subject_of(asked.optimizer, asked.overrides, asked.config_dir, asked.reference)
    from optbench.checking import checked  # imports torch

    rows = list(checked(subject))
    cells = [(row.check, MARKS[row.passed], row.meaning, row.words) for row in rows]
    lines = table([("check", "outcome", "what holds", "what was found"), *cells])
    say(lines[0])
    for row, line in zip(rows, lines[1:], strict=True):
        color = "" if row.passed is None else GREEN if row.passed else RED
        say(f"{color}{line}{PLAIN}" if color and sys.stdout.isatty() else line)
    failed = [row.check for row in rows if row.passed is False]
    tried = sum(row.passed is not None for row in rows)
    said = f"{tried - len(failed)} of {tried} checks passed"
    say(f"{subject.name}: {said}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def subject_of(
    name: str, words: Sequence[str], folder: str | None = None, reference: str | None = None
) -> Any:
    """Return the optimizer that a name and settings give, ready for the checks.

    words: KEY=VALUE of the optimizer, with or without the prefix "optimizer.".
    """
    from optbench.config.build import build  # these import torch and Hydra
    from optbench.config.compose import compose_run
    from optbench.optimizers.factories import check_arguments

    use_own_files(folder)
    name = name.removeprefix("optimizer=")
    settings = [
        word if word.lstrip("+").startswith("optimizer.") else prefixed(word) for word in words
    ]
    config = compose_run([f"optimizer={name}", *settings])
    node = dict(config["optimizer"])
    test = node.get("test")
    test = test if isinstance(test, dict) else {}
    made = build("optimizer", node)
    check_arguments(made)  # a wrong setting is no fault of the class
    own_lr = any(word.lstrip("+").startswith("optimizer.lr=") for word in settings)
    rates = {} if own_lr else {"lr": test.get("lr"), "networks_lr": test.get("networks")}
    from optbench.checking.subjects import Subject

    other = None
    if reference is not None:
        numbers = {k: v for k, v in node.items() if k[0] != "_" and k not in ("name", "search")}
        other = matching(reference, numbers | _networks_lr(rates))
    return Subject(name, made, partial(at_rate, node), **rates, reference=other)


def prefixed(word: str) -> str:
    """Return a setting of the optimizer as a key of the configuration."""
    if "=" not in word:
        raise UserError(f"{word} is no setting: write KEY=VALUE, as in lr=0.01")
    key = word.lstrip("+").partition("=")[0]
    if key in GROUPS or key.partition(".")[0] in {"data", "dataset", "model", "loss"}:
        raise UserError(
            f"{word}: check tries the optimizer on functions of its own, and KEY=VALUE are the "
            f"optimizer's settings, as in lr=0.01"
        )
    mark = word[: len(word) - len(word.lstrip("+"))]
    return f"{mark}optimizer.{word.lstrip('+')}"


def at_rate(node: dict[str, Any], lr: float) -> Any:
    """Return an optimizer's factory with another lr."""
    from optbench.config.build import build

    return build("optimizer", {**node, "lr": lr} if "lr" in node else node)


def _networks_lr(rates: dict[str, Any]) -> dict[str, Any]:
    return {} if rates.get("networks_lr") is None else {"lr": rates["networks_lr"]}


def matching(reference: str, settings: dict[str, Any]) -> Any:
    """Return a reference class with those of the optimizer's settings that it accepts."""
    from optbench.config.build import build
    from optbench.optimizers.factories import arguments, unwrap

    cls = unwrap(build("optimizer", {"_target_": reference, "_partial_": True}))[0]
    accepted = [p.name for p in arguments(cls)[1:] if p.kind is not p.VAR_KEYWORD]
    own = {key: value for key, value in settings.items() if key in accepted}
    return build("optimizer", {"_target_": reference, "_partial_": True} | own)
