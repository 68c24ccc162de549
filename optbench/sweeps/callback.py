"""A sweep: its folder, the list of its jobs, and the comparison it ends with (a Hydra callback)."""

import hashlib
import math
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from optbench.common.console import say
from optbench.common.errors import UNWRITABLE, UserError, check_choice
from optbench.common.files import expanded
from optbench.config import validate
from optbench.config.compose import texts_of
from optbench.config.explain import NO_COHORT, explain
from optbench.config.groups import config_folder
from optbench.config.hydra_internals import BasicSweeper
from optbench.config.resolve import check_tuned, resolve
from optbench.formats import job_list
from optbench.formats.keys import SWEEP_KEYS
from optbench.formats.run import COLUMNS, write_sealed
from optbench.report import finish
from optbench.runs import locks

MOST_JOBS = 100_000  # of a sweep: beyond it a mistake is likelier than a study
CLAIM = "claim.json"  # what the sweep's study claims
ENGINES = "engines.json"  # which engine takes the steps of each problem
OURS = (
    job_list.FILE,
    "study.json",
    "figure.json",
    CLAIM,
    ENGINES,
)  # what a sweep leaves in its folder


def folder(config: DictConfig) -> Path:
    """The sweep's folder: the same for the same question, so that a sweep goes on where it stopped.

    It is `name` if given; else, in `sweeps/`, the study's name, or words from the overrides and
    their hash.
    """
    results = Path(expanded(str(config.results_dir)))
    if config.name is not None:
        return results / str(config.name)
    study = config.hydra.runtime.choices.get("study")
    overrides = sorted(
        text for text in texts_of(config.hydra.overrides.task) if not job_list.is_aside(text)
    )
    if study and not overrides:
        return results / "sweeps" / str(study)
    words = [study] if study else [re.sub(r"[^\w.]+", "-", text).strip("-") for text in overrides]
    digest = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:6]
    return results / "sweeps" / "-".join(["_".join(words)[:60].strip("-_") or "sweep", digest])


def check_figure(figure: DictConfig) -> None:
    """Raise `UserError` for axes that do not exist, before the runs are made and not after."""
    for key, allowed in (
        ("y", COLUMNS["epochs"]),
        ("x", ("epoch", "step", "seconds")),
        ("style", ("paper", "notebook", "talk")),
    ):
        check_choice(f"figure.{key}", figure.get(key), allowed)
    if figure.get("columns") not in (None, 1, 2):
        raise UserError(f"figure.columns must be 1, 2 or null, not {figure.columns!r}")


def name_folder(config: DictConfig, sweep: Path) -> None:
    """Set the folder for the sweep, and for its jobs, which Hydra composes from these overrides."""
    text = str(sweep).replace("\\", "\\\\").replace("'", "\\'")
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweep.dir = str(sweep)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{text}'")


def check_folder(sweep: Path) -> None:
    """Raise `UserError` where a folder of that name holds something else than a sweep.

    Its figures would take the place of files that are not ours, as of those in results/comparison.
    """
    if not sweep.is_dir() or any((sweep / name).exists() for name in OURS):
        return
    others = sorted(p.name for p in sweep.iterdir() if p.is_file() and p.name[0] != ".")
    if others:
        raise UserError(
            f"{sweep} holds files of something else ({', '.join(others[:3])}), and a sweep would "
            f"write its figures among them: choose another name=NAME"
        )


def parse(texts: list[str]) -> list[Override]:
    """Overrides as Hydra reads them; the loader knows what `glob(*)` stands for."""
    loader = GlobalHydra.instance().config_loader()
    return OverridesParser.create(config_loader=loader).parse_overrides(texts)


def expand(overrides: Sequence[Override]) -> list[list[str]]:
    """The jobs of a sweep, as lists of overrides: all combinations, of a key given twice the last.

    Raises `UserError` where there is none, and for what cannot be swept over.
    """
    for override in overrides:
        key = override.key_or_group
        if override.is_delete():
            raise UserError(
                f"~{key}: a sweep sets values and takes none away: {key}=null, or leave it out"
            )
        text = override.get_value_string()
        if override.is_sweep_override() and key.split(".")[0] in SWEEP_KEYS:
            raise UserError(f"{key} has one value in a sweep, not several ({text})")
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise UserError(
                f"{key}={text} has no end of values: name some, as in {key}=0.1,1; or have a tuned "
                f"study search a range, with +optimizer.search.NAME={{low:0.1,high:1,scale:log}}"
            )
    count = math.prod(number_of_values(override) for override in overrides)
    if count > MOST_JOBS:
        raise UserError(f"this asks for {count:,} runs or more; a sweep has at most {MOST_JOBS:,}")
    (batch,) = BasicSweeper.split_arguments(list(overrides), None)
    if not batch:
        raise UserError(
            "nothing to run: a glob(...) or range(...) on the command line matches no choice"
        )
    return batch


def number_of_values(override: Override) -> int:
    """How many an override has, if not too many; `UserError` where they cannot be told."""
    if not override.is_sweep_override():
        return 1
    try:
        return sum(1 for _ in islice(override.sweep_string_iterator(), MOST_JOBS + 1))
    except (ValueError, OverflowError) as error:
        text = f"{override.key_or_group}={override.get_value_string()}"
        raise UserError(f"{text} names no values: {error}") from error


def planned_jobs(config: DictConfig) -> list[list[str]] | None:
    """The jobs of the sweep; None where the sweeper decides as it goes."""
    if config.hydra.runtime.choices.get("hydra/sweeper") != "basic":
        return None
    params = config.hydra.sweeper.get("params") or {}
    # the command line comes last and wins over the study
    return expand(
        parse([*(f"{k}={v}" for k, v in params.items()), *texts_of(config.hydra.overrides.task)])
    )


def too_few_seeds(planned: Sequence[Sequence[str]], claim: Any = None) -> str:
    """Return why no comparison of the planned jobs can be told, with the seeds needed; or "".

    claim: the study's, which has tests of its own.
    """
    from optbench.analysis.claims import judge
    from optbench.common import text
    from optbench.stats import corrections  # slow to import, needed at the end as well

    series, seeds = corrections.series_and_seeds(planned)
    if seeds and claim and isinstance(claim.get("checks"), list) and claim["checks"]:
        factor = judge.planned_factor(claim, planned)
        return judge.too_few_for(seeds, factor, len(claim["checks"]))
    if not seeds or series < 2:
        return ""
    why = corrections.too_few_seeds(seeds, series - 1, corrections.MAX_TYPE)
    return why and f"{text.count(seeds, 'seed')}: {why}"


class SweepCallback(Callback):
    """Announces a sweep, and ends it with the ranked table, the figures and the exit status.

    Hydra turns a callback's exceptions into warnings; an exit it lets pass.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the sweep's folder and start its list of jobs afresh."""
        with exits():
            validate.check_results_dir(config.results_dir)
            validate.check_name(config.name)
            validate.check_group(config.get("figure"), "figure.y", "figure")
            check_figure(config.figure)
            check_tuned(config.hydra.overrides.task, config.hydra.runtime.choices)
            if str(config.hydra.launcher._target_).endswith(".CohortLauncher"):
                raise UserError(NO_COHORT)  # it was asked for by a file of the user's own
            if not any(
                text.startswith("hydra.sweep.dir=")
                for text in texts_of(config.hydra.overrides.hydra)
            ):
                name_folder(config, folder(config))
            elif (given := str(config.hydra.sweep.dir)) != expanded(given):
                name_folder(config, Path(expanded(given)))
            sweep = Path(config.hydra.sweep.dir)
            if config.name is not None:
                check_folder(sweep)
            planned = planned_jobs(config)
            count = None if planned is None else len(planned)
            try:
                with alone(config):
                    begin(config, sweep, count, planned)
            except OSError as error:
                where = error.filename2 or sweep
                raise UserError(UNWRITABLE.format(where, error.strerror)) from error
            if planned is not None and not launcher_chooses(config):
                choose_engines(config, sweep, planned)
            claim = OmegaConf.to_container(config.claim) if config.get("claim") else None
            if why := too_few_seeds(planned or [], claim):
                say(f"warning: {why}", error=True)
            if not config.quiet:
                say(f"sweep of {count or 'several'} runs into {sweep}")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Draw the figures, print the table, and exit non-zero where a run failed."""
        if sys.exc_info()[1] is not None:
            return  # interrupted, or never begun: Hydra 1.4 calls for the end all the same
        sweep = Path(config.hydra.sweep.dir)
        with exits():
            try:
                _, listed = job_list.read(sweep)
            except (OSError, ValueError) as error:
                raise UserError(f"the sweep's list of jobs is gone: {error}") from error
        # the list may be another process's by now; Hydra's own launchers have processes of theirs
        outcomes = job_list.ended or listed
        failed = [job for job in outcomes if job["status"] == "failed"]
        try:
            if len(failed) < len(outcomes):
                with exits(), alone(config):
                    finish(sweep)
        finally:  # also where the figures could not be written
            if failed:
                say(f"\n{len(failed)} of {len(outcomes)} runs failed:", error=True)
            for job in failed:
                # the rest of a long one was said when it happened
                first = next(iter(str(job["error"]).splitlines()), "")
                say(f"  {' '.join(job['overrides'])}: {first}", error=True)
        if job_list.unlisted:
            say(f"{len(job_list.unlisted)} runs are not in {sweep / job_list.FILE}", error=True)
        if failed or job_list.unlisted:
            sys.exit(1)


def launcher_chooses(config: DictConfig) -> bool:
    """Return whether one of our launchers gets all jobs at once, and so chooses their engines."""
    ours = str(config.hydra.launcher._target_).startswith("hydra_plugins.optbench.")
    return ours and config.hydra.sweeper.get("max_batch_size") is None


def choose_engines(config: DictConfig, sweep: Path, planned: list[list[str]]) -> None:
    """Choose the engine of each problem for jobs that another launcher runs, each by itself."""
    from optbench.config.build import load_dataset
    from optbench.sweeps import engine_choice
    from optbench.sweeps.sweep_loader import SweepLoader, hydra_config

    loader = SweepLoader(GlobalHydra.instance().config_loader())  # type: ignore[arg-type]

    def configs() -> Iterator[dict[str, Any]]:
        for words in planned:
            with suppress(Exception):  # the job itself says what is wrong with it
                composed = loader.take_config(config, words)
                with hydra_config(composed):
                    resolved = resolve(composed, words)
                    validate.check(resolved)
                yield resolved

    engine_choice.choose(sweep, configs(), load_dataset)


@contextmanager
def alone(config: DictConfig) -> Iterator[None]:
    """While no other process writes this sweep's own files. Raises OSError."""
    results = Path(expanded(str(config.results_dir)))
    sweep = str(Path(config.hydra.sweep.dir).absolute())
    name = f"sweep-{hashlib.sha256(sweep.encode()).hexdigest()[:12]}"
    with locks.only_one(results, name, waiting=lambda holder: None):
        yield


def begin(
    config: DictConfig, sweep: Path, count: int | None, planned: list[list[str]] | None
) -> None:
    """Write what the sweep is: its list of jobs, how its figure is drawn, what it claims."""
    sweep.mkdir(parents=True, exist_ok=True)
    job_list.plan(sweep, count, str(config.retry), planned)
    (sweep / ENGINES).unlink(missing_ok=True)  # of another call
    figure: Any = OmegaConf.to_container(config.figure, resolve=True)
    write_sealed(sweep / "figure.json", figure)
    claim: Any = OmegaConf.to_container(config.claim) if config.claim else None
    if claim is None:
        (sweep / CLAIM).unlink(missing_ok=True)
    else:
        write_sealed(sweep / CLAIM, claim)


@contextmanager
def exits() -> Iterator[None]:
    """Turn an exception into its message and exit status 1."""
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException) as error:
        text = error if isinstance(error, UserError) else explain(error, config_folder())
        say(f"optbench: {text}", error=True)
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"optbench: cannot write the sweep's files: {where}{error.strerror}", error=True)
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
