"""A sweep: its folder, the list of its jobs, and the comparison it ends with (a Hydra callback)."""

import hashlib
import json
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from optbench import settings
from optbench.compose import texts_of
from optbench.errors import UNWRITABLE, UserError
from optbench.progress import say

# Overrides that change where and how a sweep runs, but not what is compared.
ASIDE = (
    "study", "name", "results_dir", "force", "quiet", "device", "num_threads", "data.root", "phase",
    "log.eval_test",
)  # fmt: skip
JOBS = "jobs.jsonl"


def folder(config: DictConfig) -> Path:
    """The sweep's folder: the same for the same question, so that a sweep goes on where it stopped.

    It is `name` if given; else, in `sweeps/`, the study's name, or words from the overrides and
    their hash.
    """
    results = Path(str(config.results_dir)).expanduser()
    if config.name is not None:
        return results / str(config.name)
    study = config.hydra.runtime.choices.get("study")
    overrides = sorted(
        text for text in texts_of(config.hydra.overrides.task) if text.split("=", 1)[0] not in ASIDE
    )
    if study and not overrides:
        return results / "sweeps" / str(study)
    words = [study] if study else [re.sub(r"[^\w.]+", "-", text).strip("-") for text in overrides]
    digest = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:6]
    return results / "sweeps" / "-".join(["_".join(words)[:60].strip("-_") or "sweep", digest])


def plan(sweep: Path, planned: int | None) -> None:
    """Start the sweep's list of jobs afresh, with how many there will be."""
    (sweep / JOBS).write_text(json.dumps({"planned": planned}) + "\n", "utf-8")


def label(sweep: Path, number: int, overrides: Sequence[str]) -> str:
    """Which run of how many, and what it is."""
    planned = planned_jobs(sweep)
    words = [text for text in overrides if text.split("=", 1)[0] not in ASIDE]
    return f"[{number + 1}/{planned or '?'}] {' '.join(words)}"


def planned_jobs(sweep: Path) -> int | None:
    """How many jobs the sweep will have, where that is known."""
    with (sweep / JOBS).open(encoding="utf-8") as file:
        planned: int | None = json.loads(file.readline())["planned"]
        return planned


def name_folder(config: DictConfig, sweep: Path) -> None:
    """Set the folder for the sweep, and for its jobs, which Hydra composes from these overrides."""
    text = str(sweep).replace("\\", "\\\\").replace("'", "\\'")
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = str(sweep)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{text}'")


def record_job(sweep: Path, job: dict[str, Any]) -> None:
    """Append one job's outcome to the sweep's list."""
    with (sweep / JOBS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(job) + "\n")


def parse(texts: list[str]) -> list[Override]:
    """Overrides as Hydra reads them; the loader knows what `glob(*)` stands for."""
    loader = GlobalHydra.instance().config_loader()
    return OverridesParser.create(config_loader=loader).parse_overrides(texts)


def count_jobs(config: DictConfig) -> int | None:
    """How many jobs the sweep has; None where the sweeper decides as it goes."""
    if config.hydra.runtime.choices.get("hydra/sweeper") != "basic":
        return None
    params = config.hydra.sweeper.get("params") or {}
    texts = [*texts_of(config.hydra.overrides.task), *(f"{k}={v}" for k, v in params.items())]
    sizes: dict[str, int] = {}
    for override in parse(texts):
        key = override.get_key_element()
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                return None  # an interval: Hydra's own sweeper refuses it
            sizes.setdefault(key, sum(1 for _ in override.sweep_string_iterator()))
        else:
            sizes.setdefault(key, 1)  # the command line comes first and wins over the study
    return prod(sizes.values())


def _jobs(sweep: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (sweep / JOBS).read_text("utf-8").splitlines()]


class Comparison(Callback):
    """Announces a sweep, and ends it with the ranked table, the figures and the exit status.

    Hydra turns a callback's exceptions into warnings; an exit it lets pass.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the sweep's folder and start its list of jobs afresh."""
        with exits():
            settings.check_name(config.name)
            if not any(
                text.startswith("hydra.sweep.dir=")
                for text in texts_of(config.hydra.overrides.hydra)
            ):
                name_folder(config, folder(config))
            sweep = Path(config.hydra.sweep.dir)
            planned = count_jobs(config)
            if planned == 0:
                raise UserError("nothing to run: a glob(...) on the command line matches no choice")
            try:
                sweep.mkdir(parents=True, exist_ok=True)
                plan(sweep, planned)
                figure = OmegaConf.to_container(config.figure, resolve=True)
                (sweep / "figure.json").write_text(json.dumps(figure) + "\n", "utf-8")
            except OSError as error:
                raise UserError(UNWRITABLE.format(sweep, error.strerror)) from error
            if not config.quiet:
                say(f"sweep of {planned or 'several'} runs into {sweep}")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Draw the figures, print the table, and exit non-zero where a run failed."""
        sweep = Path(config.hydra.sweep.dir)
        jobs = _jobs(sweep)[1:]
        failed = [job for job in jobs if job["status"] == "failed"]
        with exits():
            if len(failed) < len(jobs):
                from optbench import plot, summary

                result = plot.draw_all([sweep], sweep)
                say("", summary.to_markdown(result.summary), *result.paths)
                if (sweep / plot.MANIFEST).exists():
                    from optbench import verdict

                    text, paths = verdict.write(sweep)
                    say("", text, *paths)
                for text in result.warnings:
                    print(f"warning: {text}", file=sys.stderr)
                for problem in result.problems:
                    print(f"left out: {problem}", file=sys.stderr)
        if failed:
            print(f"\n{len(failed)} of {len(jobs)} runs failed:", file=sys.stderr)
            for job in failed:
                print(f"  {' '.join(job['overrides'])}: {job['error']}", file=sys.stderr)
            sys.exit(1)


@contextmanager
def exits() -> Iterator[None]:
    """Turn an exception into its message and exit status 1."""
    try:
        yield
    except (UserError, HydraException) as error:
        print(f"optbench: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
