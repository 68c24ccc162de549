"""A sweep's Hydra callback: name the folder, list the jobs, draw the comparison."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from optbench.common.console import endings, say, warn
from optbench.common.errors import UNWRITABLE, UserError, check_choice
from optbench.common.files import expanded
from optbench.common.metrics import is_metric_column
from optbench.common.text import count as counted
from optbench.config import validate
from optbench.config.command_line import dry_run
from optbench.config.comments import suggestion
from optbench.config.compose import texts_of
from optbench.config.explain import NO_COHORT, explained
from optbench.config.resolve import check_tuned
from optbench.formats import job_list
from optbench.formats.keys import TOP_KEYS, RunConfig
from optbench.formats.record import setting_of
from optbench.formats.run import (
    AVERAGED_COLUMNS,
    COLUMNS,
    METRIC_COLUMNS,
    RUN_COLUMNS,
    SHARPNESS_COLUMNS,
    read_sealed,
    write_sealed,
)
from optbench.report import finish
from optbench.runs import locks
from optbench.sweeps import question, worker_process
from optbench.sweeps.folder import changed_words, check_folder, command_of, folder_of, name_folder
from optbench.sweeps.grid import check_shared_values, planned_jobs, too_few_seeds
from optbench.sweeps.sharing import calls
from optbench.sweeps.sharing.session import Session, sessions

# launchers that give the work to other machines
CLUSTER_LAUNCHERS = ("hydra_plugins.optbench.slurm.", "hydra_plugins.optbench.ray.")


NOTHING_SWEPT = (
    "-m makes a sweep, and nothing is to be swept: give values between commas, as in "
    "optimizer=sgd,adam seed=0,1,2. Without -m, one run is trained"
)


def check_figure(figure: DictConfig) -> None:
    """Raise `UserError` for a wrong setting of the figure, before any run starts."""
    for key, allowed in (
        ("y", (*COLUMNS["epochs"], *METRIC_COLUMNS, *AVERAGED_COLUMNS, *SHARPNESS_COLUMNS)),
        ("x", ("epoch", "step", "seconds", "gradients", "forwards")),
        ("style", ("paper", "notebook", "talk")),
    ):
        value = figure.get(key)
        if value is None and key in "xy":
            continue  # chosen by the runs
        if key == "y" and is_metric_column(str(value)):
            continue  # the metric of one of several outputs
        check_choice(f"figure.{key}", value, allowed)
    for key in ("facet", "lines"):
        names = figure.get(key) or []
        for name in [names] if isinstance(names, str) else names:
            if str(name).partition(".")[0] not in {*TOP_KEYS, *RUN_COLUMNS}:
                raise UserError(f"figure.{key}: unknown key {name!r}{suggestion(str(name))}")
    if (rule := figure.get("target")) is not None:
        from optbench.analysis.targets import parse_rule  # imports pandas

        parse_rule(rule)
    if figure.get("columns") not in (None, 1, 2):
        raise UserError(f"figure.columns must be 1, 2 or null, not {figure.columns!r}")


class SweepCallback(Callback):
    """A Hydra callback that announces a sweep and ends it with its comparison.

    Hydra turns a callback's exceptions into warnings, but lets an exit pass.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the sweep's folder and start a new list of jobs."""
        with exits():
            validate.check_results_dir(config.results_dir)
            validate.check_name(config.name)
            validate.check_group(config.get("figure"), "figure.y", "figure")
            check_figure(config.figure)
            check_tuned(config.hydra.overrides.task, config.hydra.runtime.choices)
            if str(config.hydra.launcher._target_).endswith(".CohortLauncher"):
                raise UserError(NO_COHORT)  # a user's own file asked for cohorts
            if not any(
                text.startswith("hydra.sweep.dir=")
                for text in texts_of(config.hydra.overrides.hydra)
            ):
                name_folder(config, folder_of(config))
            elif (given := str(config.hydra.sweep.dir)) != expanded(given):
                name_folder(config, Path(expanded(given)))
            sweep = Path(config.hydra.sweep.dir)
            if config.name is not None:
                check_folder(sweep)
            launcher = str(config.hydra.launcher._target_)
            if launcher.endswith(".WorkersLauncher") and not dry_run.asked:
                worker_process.prepare(str(config.device))  # while this process checks the jobs
            planned = planned_jobs(config)
            if planned == [[]]:
                raise UserError(NOTHING_SWEPT)
            question.check(config, planned)
            check_shared_values(config, planned)
            claim = OmegaConf.to_container(config.claim) if config.get("claim") else None
            question.check_claim(claim, config, planned)
            if dry_run.asked:
                tell_cost(config, planned)
                return  # the sweeper of a tuned study prints the cost
            count = None if planned is None else len(planned)
            try:
                if (session := shared_by(config)) is None:
                    calls.check_alone(sweep)
                    with sweep_lock(config):
                        begin(config, sweep, count, planned)
                else:
                    share(session, config, sweep, lambda: begin(config, sweep, count, planned))
            except OSError as error:
                where = error.filename2 or sweep
                raise UserError(UNWRITABLE.format(where, error.strerror)) from error
            if planned is not None and not launcher_chooses(config):
                choose_engines(config, sweep, planned)
            why = too_few_seeds(planned or [], claim)
            if claim and why:
                warn(why)
            if not config.quiet:
                what = "sweep of 1 run" if count == 1 else f"sweep of {count} runs"
                say(f"{what if count else 'study'} into {sweep}")
                if why and not claim:  # no warning: many only want to see the curves
                    say(f"no verdict can come of {why}")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Draw the figures, print the table, and exit non-zero if a run failed."""
        if sys.exc_info()[1] is not None:
            return  # interrupted or never begun: Hydra 1.4 calls this all the same
        sweep = Path(config.hydra.sweep.dir)
        with exits():
            try:
                _, listed = job_list.read(sweep)
            except (OSError, ValueError) as error:
                raise UserError(f"the sweep's list of jobs is gone: {error}") from error
        # Another process may have replaced the list. Hydra's launchers run jobs in other processes.
        outcomes = job_list.ended or listed
        if (text := by_other_engines(outcomes)) and not config.quiet:
            say(text)
        failed = [job for job in outcomes if job["status"] == "failed"]
        try:
            with exits():
                self._draw(config, sweep, some=len(failed) < len(outcomes))
        finally:  # also if the figures could not be written
            if failed:
                say(f"\n{len(failed)} of {counted(len(outcomes), 'run')} failed:", error=True)
                say(*failures(failed), error=True)
        if job_list.unwritten:
            where = sweep / job_list.JOBS_FILE
            lost = len(job_list.unwritten)
            are = "is" if lost == 1 else "are"
            say(f"{counted(lost, 'run')} {are} not in {where}", error=True)
        if failed or job_list.unwritten:
            sys.exit(1)

    def _draw(self, config: DictConfig, sweep: Path, *, some: bool) -> None:
        """Draw the figures of a sweep, unless another worker draws them.

        some: whether any run has completed.
        """

        def draw() -> None:
            if some:
                with sweep_lock(config):
                    finish(sweep, quiet=bool(config.quiet))

        if (session := sessions.current) is None:
            draw()
        else:
            calls.finish(session, sweep, draw)


def shared_by(config: DictConfig) -> Session | None:
    """Return this process's session, if it shares the study with other workers.

    A process whose launcher gives the study to a scheduler only waits for these workers.
    """
    target = str(config.hydra.launcher._target_)
    if sessions.current is None and target.startswith(CLUSTER_LAUNCHERS):
        sessions.current = Session(trains=False)
    return sessions.current


def share(session: Session, config: DictConfig, sweep: Path, begin: Callable[[], None]) -> None:
    """Join the workers of a study, or begin the work.

    Raises OSError where the study's folder cannot be written.
    """
    if config.force:
        raise UserError(
            "force=true repeats every run, and workers who share a study do each run once: leave "
            "it out, or give the study another name=NAME"
        )
    results = Path(expanded(str(config.results_dir)))
    calls.enter(session, sweep, results, str(config.device), command_of(config), begin)
    if not session.begins:
        job_list.plan(sweep, None, str(config.retry))
        with suppress(OSError, ValueError, KeyError):
            job_list.engines.update(read_sealed(sweep / job_list.ENGINES_FILE)["engines"])


def failures(failed: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each different error.

    A line names the first run with the error, and tells how many other runs have it.
    """
    runs: dict[str, list[str]] = {}
    for job in failed:
        # Long errors were printed in full when the run failed.
        first = next(iter(str(job["error"]).splitlines()), "")
        words = [text for text in job["overrides"] if not job_list.is_cosmetic(text)]
        runs.setdefault(first, []).append(" ".join(words))
    for error, names in runs.items():
        others = len(names) - 1
        more = f" (and {others} other{'s' * (others > 1)} with the same error)" * (others > 0)
        yield f"  {names[0]}: {error}{more}"


def by_other_engines(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """Return how many runs another engine than the one asked for has done.

    The text also tells how to repeat these runs. It is "" if there are none.
    """
    engines = [job["engines"] for job in outcomes if job.get("engines")]
    if not engines:
        return ""
    made = " and ".join(sorted({setting_of(made) for made, _ in engines}))
    were, them = ("was", "it") if len(engines) == 1 else ("were", "them")
    return (
        f"{len(engines)} of {counted(len(outcomes), 'run')} {were} already done by {made}; "
        f"force=true runs {them} again with {setting_of(engines[0][1])}"
    )


def launcher_chooses(config: DictConfig) -> bool:
    """Return whether the launcher itself chooses the engines.

    It does so if it gets all jobs in one call.
    """
    ours = str(config.hydra.launcher._target_).startswith("hydra_plugins.optbench.")
    return ours and config.hydra.sweeper.get("max_batch_size") is None


def tell_cost(config: DictConfig, planned: list[list[str]] | None) -> None:
    """Print the cost of a sweep, and exit.

    For a tuned study this returns, since its sweeper prints the cost.
    """
    sweeper = config.hydra.runtime.choices.get("hydra/sweeper")
    if planned is None and sweeper != "tuned":
        raise UserError(f"--dry-run does not know the runs of hydra/sweeper={sweeper}")
    if planned is None:
        return
    from optbench.runner.cost_estimate import Share, tell
    from optbench.sweeps import shared_dataset
    from optbench.sweeps.sweep_loader import composer

    tell((Share(one, 1) for one in map(composer(config), planned)), shared_dataset.load)
    sys.exit(0)


def choose_engines(config: DictConfig, sweep: Path, planned: list[list[str]]) -> None:
    """Choose each problem's engine for a launcher that runs each job by itself."""
    from optbench.config.build import load_dataset
    from optbench.sweeps import engine_choice
    from optbench.sweeps.sweep_loader import composer

    compose = composer(config)

    def configs() -> Iterator[RunConfig]:
        for words in planned:
            with suppress(Exception):  # the job itself reports its errors
                yield compose(words)

    engine_choice.choose(sweep, configs(), load_dataset)


@contextmanager
def sweep_lock(config: DictConfig) -> Iterator[None]:
    """Hold the lock on this sweep's own files. Raise OSError if the lock fails."""
    results = Path(expanded(str(config.results_dir)))
    sweep = str(Path(config.hydra.sweep.dir).absolute())
    name = f"sweep-{hashlib.sha256(sweep.encode()).hexdigest()[:12]}"
    with locks.run_lock(results, name, waiting=lambda holder: None):
        yield


def begin(
    config: DictConfig, sweep: Path, count: int | None, planned: list[list[str]] | None
) -> None:
    """Write the sweep's own files: list of jobs, figure options, and claim."""
    sweep.mkdir(parents=True, exist_ok=True)
    command = command_of(config)
    words = command["task"]
    job_list.plan(sweep, count, str(config.retry), planned, words, command)
    (sweep / job_list.ENGINES_FILE).unlink(missing_ok=True)  # left by an earlier call
    figure: Any = OmegaConf.to_container(config.figure, resolve=True)
    asked = question.asked(config)
    if not asked and not any(word.startswith("candidate=") for word in words):
        asked = question.of_folder(sweep)  # named before the folder's first runs were seen
    write_sealed(sweep / job_list.FIGURE_FILE, figure | asked)
    claim: Any = OmegaConf.to_container(config.claim) if config.claim else None
    if claim is None:
        (sweep / job_list.CLAIM_FILE).unlink(missing_ok=True)
    else:
        write_sealed(sweep / job_list.CLAIM_FILE, claim | {"changed": changed_words(words)})


@contextmanager
def exits() -> Iterator[None]:
    """Exit with an exception's message, which Hydra would turn into a warning."""
    with endings(), explained():
        yield
