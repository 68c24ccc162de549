"""Train a run or a sweep, whose configuration Hydra composes."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from optbench.common.console import endings, guard_streams, say, warn
from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.common.imports import uncollected
from optbench.common.metrics import NEVER_CHANGED, metric_of
from optbench.config import own_settings
from optbench.config.command_line import DRY_RUN, as_words, dry_run, split
from optbench.config.comments import command
from optbench.config.compose import texts_of
from optbench.config.explain import USER_MISTAKES, explained
from optbench.config.hydra_internals import VERSION_BASE, WANTS_NAMES, mend_parser
from optbench.config.resolve import check_syntax, check_tuned, quoted, resolve
from optbench.config.trust import allowlist
from optbench.config.validate import check_results_dir
from optbench.formats.groups import config_folder, own_places
from optbench.formats.record import RunRecord, setting_of
from optbench.runner import interrupts
from optbench.sweeps import job
from optbench.sweeps.callback import check_figure
from optbench.sweeps.sharing import session

SHOW_FLAGS = {"--cfg", "--info", "--hydra-help", "--shell-completion"}  # flags that run nothing


def run() -> None:
    """Run what the command line asks for; exit as `optbench.__main__.main` does."""
    # Users' own classes are found here, as `python -m` finds them, also from the console script.
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    # OpenMP's threads spin while they wait. If another process needs the core, each spin costs a
    # time slice, and small steps take ten times as long. A short spin had no measurable cost on an
    # idle machine. The variable must be set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "6000")
    flags, overrides = split(sys.argv[1:])
    dry_run.asked = flags.pop(DRY_RUN, None) is not None
    overrides = list(map(quoted, overrides))
    command.words = overrides
    keys = {word.split("=")[0].lstrip("+") for word in overrides}
    # A tuned study is never a single run. For other studies Hydra 1.4 must know before it composes.
    sweeps = "hydra/sweeper=tuned" in overrides or (WANTS_NAMES and "study" in keys)
    if sweeps and not SHOW_FLAGS & {*flags} and "study=null" not in overrides:
        flags["--multirun"] = ""
    # Hydra's parser rejects overrides behind a flag if others stand before the flag.
    words = [*as_words(flags), *own_settings.for_hydra(overrides)]
    sys.argv = ["optbench", *words]
    # Hydra would print part of a traceback and exit, but its errors are explained below.
    debug = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    mend_parser()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        interrupts.early.clear()
        signal.signal(signal.SIGINT, interrupts.first)
    try:
        with guard_streams(), endings(), nullcontext() if debug else explained(*USER_MISTAKES):
            check_syntax(words)
            # A class may lie among the configurations that name it, or beside their folder. Workers
            # need the paths as well.
            sys.path += own_places()
            hydra.main(str(config_folder()), "config", **VERSION_BASE, **allowlist(words))(task)()
    finally:
        session.end()
        if debug is None:
            del os.environ["HYDRA_FULL_ERROR"]


def task(cfg: DictConfig) -> dict[str, Any] | None:
    """Train one run: the whole command, or one job of a sweep.

    No exception leaves this function, since Hydra would wrap it. The function exits instead.
    """
    hydra_config = HydraConfig.get()
    overrides = texts_of(hydra_config.overrides.task)
    if hydra_config.mode == RunMode.MULTIRUN:
        sweep_folder, number = Path(hydra_config.sweep.dir), int(hydra_config.job.num)
        return job.run(cfg, overrides, sweep_folder, str(hydra_config.sweep.subdir), number)
    with endings(), explained():
        optimizer = str(hydra_config.runtime.choices.get("optimizer"))
        overrides = own_settings.move_to_group(cfg, overrides, optimizer)
        check_tuned(overrides, hydra_config.runtime.choices)
        if swept := hydra_config.sweeper.get("params"):
            raise UserError(
                f"the configuration sweeps over {', '.join(swept)}: add -m. A study that is always "
                f"a sweep sets `mode: MULTIRUN` below `hydra:`"
            )
        if hydra_config.runtime.choices.get("hydra/sweeper") == "tuned":
            raise UserError("a tuned study is not a single run: add -m")
        config = resolve(cfg, overrides)
        check_results_dir(config["results_dir"])
        check_figure(cfg.figure)
        if cfg.candidate is not None or cfg.baseline is not None:
            raise UserError("a single run has no verdict: candidate and baseline need -m")
        with uncollected():
            from optbench.runner import run as runner
        if dry_run.asked:
            from optbench.runner import cost_estimate

            cost_estimate.tell([cost_estimate.Share(config, 1)])
            return None
        group = Path(expanded(config["results_dir"])) / str(config["name"] or "runs")
        outcome = runner.run(config, group)
        finish(outcome, quiet=config["quiet"], logged=any((config.get("logger") or {}).values()))
    return None


def finish(outcome: Any, *, quiet: bool, logged: bool = False) -> None:
    """Print how a single run ended and what it wrote. logged: beyond the CSV files."""
    from optbench.formats.run import read_record
    from optbench.runs.checkpoints import CHECKPOINT_FILE

    if outcome.signal and not (outcome.folder / "run.json").exists():
        sys.exit(128 + outcome.signal)  # interrupted while waiting for another process's run
    try:
        record = read_record(outcome.folder / "run.json")
    except (OSError, ValueError) as error:
        raise UserError(f"the run ended, and what it wrote is gone: {error}") from error
    picture, steps = None, (record["summary"] or {}).get("step", 0)
    if not outcome.signal and steps > 1:  # one step makes no curve, and matplotlib imports slowly
        try:
            picture = curve_of(outcome.folder)
        except (UserError, OSError) as error:
            warn(f"no picture: {error}")
    if steps and not outcome.signal and is_still(outcome.folder):
        warn(f"the training loss {NEVER_CHANGED}")
    if not quiet:
        tell(outcome, record, logged=logged)
        resumable = (outcome.folder / CHECKPOINT_FILE).exists()
        hint = f"; the same command {'resumes' if resumable else 'repeats'} the run"
        say(f"{outcome.status}: {outcome.folder}{hint if outcome.signal else ''}")
        if picture:
            say(f"picture: {picture}")
    if outcome.signal:
        sys.exit(128 + outcome.signal)


def is_still(folder: Path) -> bool:
    """Return whether a run's training loss had one value in all of its evaluations."""
    from optbench.formats.run import read_csv

    try:
        losses = read_csv(folder / "epochs.csv")["train_loss"]
    except (OSError, ValueError, KeyError):
        return False
    return len(losses) > 1 and len(set(losses)) == 1


def curve_of(folder: Path) -> Path:
    """Return the picture of a run, and draw the picture if it is missing."""
    if (folder / "curve.png").exists():
        return folder / "curve.png"
    from optbench.report import curve  # imports matplotlib

    return curve.draw(folder)


def early_end(record: RunRecord) -> Iterator[str]:
    """Yield sentences on a run that its recipe could end before its budget of steps."""
    config, stopped = record["config"], record.get("stopped")
    by, at = (stopped["by"], f"at step {stopped['step']}") if stopped else (None, "")
    if by == "early_stopping":
        rule = config["early_stopping"]
        patience = rule["patience"]
        yield f"stopped {at}: {patience} evaluations without a better {rule['metric']}"
    if record.get("target_reached") is not None:
        metric, value = config["stop_at"]["metric"], config["stop_at"]["value"]
        how = f"reached its target {at}" if by == "stop_at" else "its target was not reached"
        yield f"{how}: {metric} {'≤' if metric_of(metric).smaller else '≥'} {value:g}"
    if (seconds := config.get("budget_seconds")) is not None and record["status"] == "completed":
        if by == "budget_seconds":
            yield f"stopped {at} after its budget of {seconds:g} seconds"
        elif by is None:
            yield (
                f"its epochs ended before its budget of {seconds:g} seconds; more epochs use it up"
            )
        yield "a run with a budget of seconds is not repeatable bit for bit"


def tell(outcome: Any, record: RunRecord, *, logged: bool) -> None:
    """Print what is unusual about a run, and its final metrics."""
    if outcome.known:
        how, again = f"({outcome.status})", "force=true runs it again"
        if outcome.engines:
            made, asked = outcome.engines
            how, again = f"by {setting_of(made)}", f"{again} with {setting_of(asked)}"
        say(f"already done {how}; {again}" + " and logs it: it was not logged now" * logged)
    if outcome.status == "diverged":
        step = record["diverged_at_step"]
        hint = "try a smaller optimizer.lr" if step else "look at the loss, the model and the data"
        say(f"diverged: the loss was not finite at step {step}; {hint}")
    for text in early_end(record):
        say(text)
    figures = {k: v for k, v in (record["summary"] or {}).items() if isinstance(v, int | float)}
    width = max(map(len, figures), default=0)
    for key, value in figures.items():
        say(f"  {key:<{width}}  {value:.6g}")
