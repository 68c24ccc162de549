"""`optbench trajectories function=NAME`: optimizers on functions of two variables.

Draws their paths over the contours of a function of two variables, as a still and as an
animation, and writes a table of what they did on the way.
"""

import inspect
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.commands import use_own_files
from optbench.common.console import warn
from optbench.common.errors import UserError, described
from optbench.common.files import expanded
from optbench.common.names import did_you_mean, nearest
from optbench.config.comments import likely_keys
from optbench.formats.groups import choices
from optbench.trajectories import contours
from optbench.trajectories.descent import Trajectory, follow_best, measure, run_optimizer
from optbench.trajectories.functions import FUNCTIONS, Function, Point


class Asked(NamedTuple):
    """A parsed and checked command line."""

    function: Function
    optimizers: list[tuple[str, list[str]]]  # name and Hydra overrides of each line
    steps: int
    start: Point | None
    noise: float | None
    seed: int
    tolerance: float
    formats: list[str]
    out: Path


def parse(words: Sequence[str]) -> Asked:
    """Parse KEY=VALUE words. Raise UserError with what is wrong and what is allowed."""
    given: dict[str, str] = {}
    for word in with_folder(words):
        key, equals, value = word.partition("=")
        if not equals or not value or word[0] == "-":
            if word in ("-o", "--out"):
                raise UserError("the folder is a setting: out=FOLDER")
            raise UserError(f"cannot read {word}: a setting is KEY=VALUE{meant(word)}\n{SEE_HELP}")
        given[key.lstrip("+")] = value
    name = given.pop("function", "")
    if name not in FUNCTIONS:
        no = f"there is no function={name}{did_you_mean(name, FUNCTIONS)}"
        no = f"one function a call, not {name}" if "," in name else no
        asked = no if name else "which function? Give function=NAME"
        if near := [key for key in given if nearest(key, ["function"])]:
            asked = f"there is no key {near[0]}. Did you mean function={given[near[0]]}?"
        raise UserError(f"{asked}\nfunction is one of: {', '.join(FUNCTIONS)}")
    names = given.pop("optimizer", "sgd,momentum,adam").split(",")
    settings = {
        "steps": number("steps", given.pop("steps", "200"), int, 1),
        "noise": number("noise", given.pop("noise"), float, 0) if "noise" in given else None,
        "seed": number("seed", given.pop("seed", "0"), int, 0),
        "tolerance": number("tolerance", given.pop("tolerance", "0.05"), float, 0),
    }
    use_own_files(given.pop("config_dir", ""))
    start = None
    if "start" in given:
        parts = given.pop("start").strip("[]()").split(",")
        if len(parts) != 2:
            raise UserError("start must be two numbers, as in start=-1.2,1")
        start = (number("start", parts[0], float), number("start", parts[1], float))
    formats = given.pop("format", "png,pdf,gif").split(",")
    if wrong := set(formats) - {"png", "pdf", "svg", "gif"}:
        raise UserError(f"unknown format {', '.join(wrong)}; allowed: png, pdf, svg, gif")
    results = Path(os.environ.get("OPTBENCH_RESULTS", "results"))
    out = Path(expanded(given.pop("out", str(results / "trajectories" / name))))
    maker, mine = FUNCTIONS[name], {}
    for key in [key for key in given if key.startswith("function.")]:
        argument = key.removeprefix("function.")
        if argument not in (takes := inspect.signature(maker).parameters):
            raise UserError(f"unknown key {key!r}: {name} takes {', '.join(takes) or 'none'}")
        mine[argument] = number(key, given.pop(key), float)
    from optbench.config.compose import combinations  # slow to import, and not needed by the help

    lines = []
    for optimizer in names:
        own = {
            f"optimizer.{key.removeprefix(prefix)}": value
            for prefix in ("optimizer.", f"{optimizer}.")
            for key, value in given.items()
            if key.startswith(prefix)
        }
        whose = f"a setting of {optimizer} ({optimizer}.KEY=VALUE)"
        lines += [(optimizer, variant) for variant in combinations(own, whose)]
    known = tuple(f"{name}." for name in ("optimizer", *names))
    for key, value in given.items():
        if not key.startswith(known):
            raise UserError(f"unknown key {key!r}{right_key(key, value, name, names)}\n{SEE_HELP}")
    function = maker(**mine)
    if settings["noise"] is not None:
        function = function._replace(noise=settings["noise"])
    return Asked(function, lines, start=start, formats=formats, out=out, **settings)


def with_folder(words: Sequence[str]) -> list[str]:
    """Return the words, with `--config-dir FOLDER` as a setting like the others."""
    text = "\n".join(words)
    return re.sub(r"^--config-dir[=\n]", "config_dir=", text, flags=re.M).split("\n")


def meant(word: str) -> str:
    """Return what was probably meant by a word that is no setting."""
    key, _, value = word.lstrip("-").partition("=")
    if key in KEYS:
        return f". Did you mean {key}={value or 'VALUE'}?"
    for group, names in (("function", list(FUNCTIONS)), ("optimizer", list(choices("optimizer")))):
        if near := nearest(key, names):
            return f". Did you mean {group}={near[0]}?"
    return ""


def right_key(key: str, value: str, function: str, optimizers: Sequence[str]) -> str:
    """Return the key that was probably meant by an unknown one, with the value."""
    first = key.partition(".")[0]
    if key in inspect.signature(FUNCTIONS[function]).parameters:
        return f". Did you mean function.{key}={value}?"
    if near := nearest(key, KEYS):
        return f". Did you mean {near[0]}={value}?"
    if first in choices("optimizer"):
        return f": the optimizers are {', '.join(optimizers)}. Name {first} in optimizer= too"
    if found := [one for one in likely_keys(key) if one.startswith("optimizer.")]:
        one = optimizers[0] + found[0].removeprefix("optimizer")
        return f". Did you mean {found[0]}={value} (all optimizers), or {one}={value} (one)?"
    return ""


def number(key: str, text: str, kind: type, least: float = -math.inf) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= least):
        what = "a whole number" if kind is int else "a number"
        least_text = f" of at least {least:g}" if math.isfinite(least) else ""
        raise UserError(f"{key} must be {what}{least_text}, not {text!r}")
    return value


def run(asked: Asked) -> tuple[list[Trajectory], pd.DataFrame]:
    """Run all optimizers; return their trajectories and the table."""
    from optbench.config.build import build
    from optbench.config.compose import compose_group

    paths = []
    arguments = {key: getattr(asked, key) for key in ("steps", "start", "noise", "seed")}
    for name, overrides in asked.optimizers:
        config = compose_group("optimizer", name, overrides)
        if "lr" in config and not any(text.startswith("optimizer.lr=") for text in overrides):
            # Configured rates suit networks. Here most optimizers would hardly move.
            config["lr"], overrides = "best", [*overrides, "optimizer.lr=best"]
        settings = [text.removeprefix("optimizer.") for text in overrides]
        best = config.get("lr") == "best"
        if best:
            config.pop("lr")
        factory = build("optimizer", config)
        try:
            if best:
                path, lr = follow_best(asked.function, factory, **arguments)
                settings = [f"lr={lr:.2g}" if text == "lr=best" else text for text in settings]
            else:
                path = run_optimizer(asked.function, factory, **arguments)
        except UserError:
            raise
        except Exception as error:  # of the optimizer's own code, which may raise anything
            raise UserError(f"optimizer={name} failed: {described(error)}") from error
        label = " ".join([str(config["name"]), ", ".join(settings)]).strip()
        paths.append(path._replace(label=label, name=str(config["name"])))
    rows = [measure(asked.function, path, asked.steps, asked.tolerance) for path in paths]
    return paths, pd.DataFrame(rows)


def stands_still(path: Trajectory) -> bool:
    """Return whether the last tenth of a path hardly moves."""
    last = path.points[-max(2, len(path.points) // 10) :]
    return bool(np.ptp(last, axis=0).max() < STILL_DISTANCE)


CLEAR_CONDITION = 100.0  # at best rates momentum of 0.9 gains from a condition number of 38 on
STILL_DISTANCE = 1e-3  # in x and in y, over the last tenth of the steps
COLUMNS = {  # printed columns: head and meaning; trajectories.csv has more
    "optimizer": (
        "optimizer",
        "lr if not given: of 21 the first to settle, or lowest",
    ),
    "steps_to_minimum": ("steps to minimum", "the first step within {tolerance:g} of a minimum"),
    "steps_settled": ("settled", "the first step after which it stays there"),
    "distance": ("distance", "the length of the whole path"),
    "overshoot": ("overshoot", "how far past the minimum, in the direction from the start"),
    "loss": ("loss", "the value of the function at the end"),
}
HELP = """\
optbench trajectories function=NAME optimizer=NAME,NAME [KEY=VALUE ...]
  optimizer.lr=0.1, adam.lr=0.1   a setting of all, or of one (a list makes a line of each value;
                                  the default best takes the best of 21 from 1e-4 to 10)
  steps=200, seed=0, tolerance=0.05, start=-1.2,1 (by default the function's own)
  noise=0.3 (of gradients; by default 0, of quadratic 0.1)
  function.condition=30 (how much steeper across than along: ravine, by default 20; quadratic, 100)
  out=FOLDER, format=png,pdf,gif, config_dir=FOLDER with optimizers of yours"""
SEE_HELP = "python -m optbench trajectories --help lists the settings"
KEYS = (
    "function", "optimizer", "steps", "noise", "seed", "tolerance", "start", "format", "out",
    "config_dir",
)  # fmt: skip


def digits(value: float) -> str:
    """Return a number of the printed table; "never" for a step that never came."""
    return "never" if math.isinf(value) else f"{value:.4g}"


def main(words: Sequence[str] | None = None) -> int:
    """Run `optbench trajectories`; return the exit status 0."""
    words = sys.argv[1:] if words is None else words
    if not words or {"-h", "--help"} & set(words):
        print(f"{HELP}\nfunctions: {', '.join(FUNCTIONS)}")
        return 0
    asked = parse(words)
    paths, table = run(asked)
    replaced = (asked.out / contours.TABLE_FILE).exists()
    files = contours.write_files(asked.out, asked.function, paths, table, asked.formats)
    columns = [*COLUMNS, *["diverged"] * bool(table["diverged"].any())]
    shown = table[columns].rename(columns={name: head for name, (head, _) in COLUMNS.items()})
    print(shown.to_string(index=False, float_format=digits), "", sep="\n")
    width = max(len(head) for head, _ in COLUMNS.values())
    for head, meaning in COLUMNS.values():
        print(f"  {head:<{width}}  {meaning.format(tolerance=asked.tolerance)}")
    print(f"  {contours.TABLE_FILE} has more columns")
    if asked.function.condition is not None and asked.function.condition < CLEAR_CONDITION:
        print(
            f"\n  The valley is {asked.function.condition:g} times steeper across than along.\n"
            f"  Momentum gains more in a steeper one: function.condition={CLEAR_CONDITION:g}"
        )
    print("", *files, sep="\n")
    if replaced:
        print("these replace the files of an earlier call; out=FOLDER keeps both")
    grown = [path.label for path in paths if not path.losses[-1] <= path.losses[0]]
    given = any("lr=" in word and not word.endswith("lr=best") for word in words)
    for label in grown:
        why = ": the learning rate is too large for it" if given else ", with each of 21 rates"
        warn(f"{label} ends higher than it began{why}")
    if table["steps_to_minimum"].map(math.isinf).all() and len(grown) < len(paths):
        advice = f"take more steps (steps={2 * asked.steps})"
        if all(stands_still(path) for path in paths if path.label not in grown):
            advice = "they stand still elsewhere: try another start=X,Y, noise=0.1 or momentum"
        warn(
            f"in {asked.steps} steps none came within {asked.tolerance:g} of a global minimum: if "
            f"that is not what you wanted to see, {advice}"
            + (", or leave out lr (the best of 21 for each)" if given else "")
        )
    return 0
