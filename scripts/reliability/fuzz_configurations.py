"""Try generated configurations: each must train one step, or be refused in words.

Command lines of every kind (valid, nearly valid, wrong types, extreme numbers, unicode, quotes,
brackets, interpolations, wrong groups) are composed and validated. Accepted ones train one step on
a few examples. Any other end is a finding: an exception whose message is not meant for users, a
message that is no paragraph, no end in time. Findings are printed, and the exit status is 1. Seeds
are fixed: the same command tries the same lines.
"""

import argparse
import faulthandler
import io
import os
import resource
import signal
import socket
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import HealthCheck, Phase, given, seed, settings

from optbench.common.errors import MESSAGE_CHARACTERS, UserError
from optbench.config import build
from optbench.config.compose import texts_of
from optbench.config.explain import HYDRAS_ERRORS, explain
from optbench.config.hydra_internals import VERSION_BASE
from optbench.config.resolve import check_syntax, check_tuned, resolve
from optbench.config.validate import check_results_dir
from optbench.program import USER_MISTAKES
from optbench.runner import run as experiment
from optbench.sweeps import sweep_loader
from optbench.sweeps.sweep_loader import SweepLoader
from optbench.training.loop import Training
from scripts.reliability.command_lines import CONF, command_line
from scripts.reliability.sections import rows_of_other_seeds, write_section

REFUSED: tuple[type[Exception], ...] = (UserError, OSError, *HYDRAS_ERRORS, *USER_MISTAKES)
HYDRAS = "of these in Hydra's own words"
LIMIT_S = 20  # for one command line
MAX_MEMORY_BYTES = 16 * 2**30  # of addresses; the system refuses to give more


class TimeUp(BaseException):
    """An exception: a command line took too long."""


class Fuzz:
    """A series of command lines, with a count of their outcomes."""

    def __init__(self, loader: Any, folder: Path) -> None:
        self.loader = SweepLoader(loader)
        self.master = loader.load_configuration("config", [], RunMode.MULTIRUN)
        self.folder = folder
        self.seen: set[tuple[str, ...]] = set()
        self.counts: Counter[str] = Counter()
        self.findings: dict[str, list[str]] = {}

    def __call__(self, words: list[str]) -> None:
        """Try one command line, once."""
        if tuple(words) in self.seen:
            return
        self.seen.add(tuple(words))
        try:
            with limited(LIMIT_S):
                self.counts[self.attempt(words)] += 1
        except REFUSED as error:
            # Users get an explanation of these. A ValueError from further inside is a crash.
            if not isinstance(error, UserError) and not self.composing:
                self.found(error, words)
                return
            text = str(error) if isinstance(error, UserError) else explain(error)
            self.counts["refused"] += 1
            if not text.strip() or len(text) > MESSAGE_CHARACTERS + 10 or "Traceback (most" in text:
                self.found(error, words, "no paragraph: ")
            if not isinstance(error, UserError) and text == str(error):
                self.counts[HYDRAS] += 1
        except (Exception, TimeUp) as error:
            self.found(error, words)

    def attempt(self, words: list[str]) -> str:
        """Do what `optbench.program` does with a command line, and train one step."""
        self.composing = True
        check_syntax(words)
        composed = self.loader.load_sweep_config(self.master, words)
        overrides = texts_of(composed.hydra.overrides.task)
        check_tuned(overrides, composed.hydra.runtime.choices)
        self.composing = False
        config = resolve(composed, overrides)
        check_results_dir(config["results_dir"])
        planned = experiment.plan(config, self.folder / str(config["name"] or "runs"))
        training = Training(**experiment.arguments(planned))
        updates = training.updates(lambda: True)
        last = next(updates)
        if last.status == "running":
            last = next(updates)
        return f"trained ({last.status})" if training.step else "diverged before the first step"

    def found(self, error: BaseException, words: list[str], why: str = "") -> None:
        """Keep a finding under its exception and place."""
        self.counts["findings"] += 1
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "optbench" in f.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        name = f"{why}{type(error).__name__} at {place}: {' '.join(str(error).split())[:200]}"
        self.findings.setdefault(name, []).append(" ".join(map(ascii, words))[:400])


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise `TimeUp` after `seconds`; end the process if the exception is swallowed."""

    def up(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeUp(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, up)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(3 * seconds, exit=True, file=2)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def no_network(*arguments: Any, **options: Any) -> NoReturn:
    """Refuse a connection."""
    raise OSError("the network is off")


def write(seed: int, examples: int, fuzz: Fuzz) -> None:
    """Write the figures of this seed, beside those of other seeds."""
    own = [{"seed": seed, "outcome": k, "command_lines": n} for k, n in fuzz.counts.items()]
    rows: list[Mapping[str, object]] = [*rows_of_other_seeds("configurations", seed), *own]
    sums: Counter[str] = Counter()
    for row in rows:
        sums[str(row["outcome"])] += int(str(row["command_lines"]))
    seeds = sorted({int(str(row["seed"])) for row in rows})
    total = sum(n for outcome, n in sums.items() if outcome != HYDRAS)
    parts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(sums.items()))
    write_section(
        "configurations",
        "Configurations tried",
        command=f"fuzz_configurations --examples {examples} --seed SEED --write",
        text=f"{total} generated command lines (seeds {', '.join(map(str, seeds))}): {parts}. Each "
        "that was accepted trained one step; each that was refused was so in one paragraph, "
        f"without a traceback, and none took more than {LIMIT_S} s. Findings: {sums['findings']}.",
        rows=sorted(rows, key=lambda row: (int(str(row["seed"])), str(row["outcome"]))),
    )


def main() -> int:
    """Try the command lines; return exit status 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000, help="command lines to be tried")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--write",
        action="store_true",
        help="the figures into results/reliability/configurations.md",
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sweep_loader.MAX_COMPOSITIONS = 4096  # compositions recur, and so do datasets below
    build._load_dataset = lru_cache(maxsize=64)(build.prepare_dataset)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, resource.RLIM_INFINITY))
    socket.socket.connect = no_network  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch, "a", "b", "c")
        here.mkdir(parents=True)
        os.chdir(here)
        os.environ |= {"OPTBENCH_DATA": f"{scratch}/data", "OPTBENCH_RESULTS": f"{scratch}/results"}
        with initialize_config_dir(str(CONF), **VERSION_BASE):
            fuzz = Fuzz(GlobalHydra.instance().config_loader(), Path(scratch, "results"))

            # Few examples are drawn twice. Another seed fills the gap.
            number = asked.seed * 1000
            while len(fuzz.seen) < asked.examples:
                # The first examples of every seed are the same, and the simplest.
                wanted = asked.examples - len(fuzz.seen) + 200

                @seed(number)
                @settings(
                    max_examples=wanted,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(command_line())
                def run(words: list[str]) -> None:
                    if len(fuzz.seen) < asked.examples:
                        with redirect_stderr(io.StringIO()):  # "downloading ..."
                            fuzz(words)

                run()
                number += 1
        left = [str(path) for path in Path(scratch).rglob("*") if not path.is_dir()]
        os.chdir("/")
    for name, lines in sorted(fuzz.findings.items()):
        print(f"FINDING ({len(lines)} times) {name}")
        for line in lines[:3]:
            print(f"    {line}")
    if left:
        print(f"FINDING: written without having trained: {', '.join(left)}")
    parts = ", ".join(f"{count} {what}" for what, count in sorted(fuzz.counts.items()))
    print(f"{len(fuzz.seen)} command lines tried: {parts}")
    if asked.write:
        write(asked.seed, asked.examples, fuzz)
    return 1 if fuzz.findings or left else 0


if __name__ == "__main__":
    sys.exit(main())
