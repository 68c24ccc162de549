"""`optbench work FOLDER`: help with a study, beside other workers on any number of machines."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from optbench.commands import Parser
from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.formats import job_list
from optbench.sweeps.clusters.options import seconds_of
from optbench.sweeps.sharing.session import STALE_SECONDS, Session, sessions

LEAST_STALE_SECONDS = 1.0
MULTIRUN = ("-m", "--multirun")  # a worker's study is always a sweep
DEVICE = re.compile(r"cpu|cuda(?::(\d+))?")


def words_of(argv: Sequence[str]) -> list[str]:
    """Return the words of the sweep that the worker helps with, and begin its session."""
    asked = parser().parse_intermixed_args([word for word in argv if word not in MULTIRUN])
    folder = Path(expanded(asked.words[0]))
    if len(asked.words) == 1 and folder.is_dir():
        words = command_in(folder)
    elif not any("=" in word for word in asked.words):
        raise UserError(
            f"there is no folder {asked.words[0]}; give the folder of a sweep, or the words that "
            f"begin a new one: optbench work study=fair_comparison"
        )
    else:
        words = check_words(asked.words)
    if asked.device is not None:
        choose_device(asked.device)
    if asked.workers is not None:
        if asked.workers < 1:
            raise UserError(f"--workers must be 1 or more, not {asked.workers}")
        words = [*words, f"hydra.launcher.workers={asked.workers}"]
    if asked.stale < LEAST_STALE_SECONDS:
        raise UserError(f"--stale must be {LEAST_STALE_SECONDS:g} s or more, not {asked.stale:g}")
    seconds = None if asked.time is None else seconds_of("--for", asked.time)
    sessions.current = Session(
        stale=asked.stale, seconds=seconds, parent=asked.parent, call=asked.call
    )
    return ["--multirun", *words]


def parser() -> Parser:
    """Return the parser of the sub-command."""
    made = Parser(
        prog="optbench work",
        description="Work on a study, beside other workers on any number of machines that share "
        "the folder: take the next run that is neither done nor taken, until none is left.",
    )
    made.takes_settings = True
    made.add_argument(
        "words", nargs="+", metavar="FOLDER | GROUP=NAME | KEY=VALUE",
        help="the folder of a sweep or a study; or the words of a new one: study=fair_comparison",
    )  # fmt: skip
    made.add_argument(
        "--device", metavar="NAME", help="the device of this worker: cpu, cuda:0, cuda:1, ..."
    )
    made.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one per core, or per GPU)"
    )
    made.add_argument(
        "--for", dest="time", metavar="TIME",
        help="end in this time, with checkpoints: 3h, 90m, 45s, 1h30m",
    )  # fmt: skip
    made.add_argument(
        "--stale", type=float, default=STALE_SECONDS, metavar="SECONDS",
        help="take over the runs of a worker without a sign of life (default: %(default)g)",
    )  # fmt: skip
    # for schedulers: the process to end with, and the call to work for
    made.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    made.add_argument("--call", help=argparse.SUPPRESS)
    return made


def command_in(folder: Path) -> list[str]:
    """Return the words that began the sweep in a folder.

    This machine may see the folder at another path than the machine that began the sweep.
    """
    try:
        first, _ = job_list.read(folder)
    except OSError:
        raise UserError(
            f"{folder} is not the folder of a sweep: it has no {job_list.JOBS_FILE}"
        ) from None
    except ValueError as error:
        raise UserError(f"{error}: begin the study anew by its words") from None
    command = first.get("command")
    if not isinstance(command, dict):
        raise UserError(
            f"{folder} was begun by an earlier version of optbench, which did not note its "
            f"command: give the words themselves, as in optbench work study=fair_comparison"
        )
    words = [word for word in command["task"] if not word.startswith("results_dir=")]
    if (inside := command["inside"]) is not None:
        results = folder.absolute()
        for _ in Path(inside).parts:
            results = results.parent
        words.append(f"results_dir={quoted(str(results))}")
    else:
        words += [word for word in command["task"] if word.startswith("results_dir=")]
    place = f"hydra.sweep.dir={quoted(str(folder.absolute()))}"
    return [*words, *command["hydra"], "hydra/launcher=workers", place]


def quoted(text: str) -> str:
    """Return a text as Hydra reads it unchanged."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def check_words(words: Sequence[str]) -> list[str]:
    """Return the words of a new study, or raise `UserError` for a launcher."""
    for word in words:
        if word.lstrip("+").startswith(("hydra/launcher=", "hydra.launcher.")):
            raise UserError(
                f"{word}: a worker has its own launcher; leave it out, or start the sweep by "
                f"python -m optbench -m {word} ..."
            )
    return [*words, "hydra/launcher=workers"]


def choose_device(name: str) -> None:
    """Let this process, and those that it starts, see one device alone."""
    match = DEVICE.fullmatch(name)
    if match is None:
        raise UserError(f"--device must be cpu, cuda or cuda:NUMBER, not {name!r}")
    if name == "cuda":
        return
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = ""
    if match[1] is not None:
        devices = None if seen is None else [part for part in seen.split(",") if part]
        if devices is not None and int(match[1]) >= len(devices):
            raise UserError(
                f"--device {name}: CUDA_VISIBLE_DEVICES names {len(devices)} devices, numbered "
                f"from 0"
            )
        chosen = match[1] if devices is None else devices[int(match[1])]
    os.environ["CUDA_VISIBLE_DEVICES"] = chosen
