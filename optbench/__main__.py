"""The command line: `python -m optbench [-m] [GROUP=NAME] [KEY=VALUE]`."""

import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from optbench import sweep
from optbench.errors import UserError
from optbench.overrides import check_keys, explain, own_keys


def config_folder() -> Path:
    """`conf/`: beside the package in a checkout, inside it where it is installed."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def main() -> None:
    """Run optbench; exit status 0, 1 for an error, 128 + signal when interrupted."""
    # The console script looks for a user's own classes where `python -m` does: here.
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    # Hydra would print a part of the traceback and exit; errors are ours to explain.
    debug = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        conf = str(config_folder())
        hydra.main(version_base="1.3", config_path=conf, config_name="config")(task)()
    except UserError as error:
        fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        if debug:
            raise
        fail(explain(error, config_folder()))
    except OSError as error:
        if debug:
            raise
        fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
    except KeyboardInterrupt:
        sys.exit(130)


def task(cfg: DictConfig) -> None:
    """One run: a whole command, or one job of a sweep."""
    from optbench import experiment

    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    config = own_keys(resolved, overrides)
    check_keys(config, config_folder())
    if not in_sweep:
        group = Path(str(config["results_dir"])).expanduser() / str(config["name"] or "runs")
        outcome = experiment.run(config, group, label=config["optimizer"]["name"])
        finish(outcome, quiet=config["quiet"])
        return

    group = Path(hydra_config.sweep.dir)
    label = sweep.label(group, int(hydra_config.job.num), overrides)
    job: dict[str, Any] = {"overrides": overrides, "status": "failed", "run": None, "error": None}
    try:
        outcome = experiment.run(config, group, label=label)
        job |= {"status": outcome.status, "run": outcome.folder.name}
    except UserError as error:
        job["error"] = str(error)
    except Exception as error:
        traceback.print_exc()
        job["error"] = f"{type(error).__name__}: {error}"
    sweep.record_job(group, job)
    if job["status"] == "failed":
        print(f"{label}  failed: {job['error']}", flush=True)
    elif outcome.known:
        print(f"{label}  already done ({outcome.status})", flush=True)
    elif outcome.status == "diverged":
        print(f"{label}  diverged", flush=True)
    elif outcome.signal:
        print("interrupted; the same command goes on with what is missing", file=sys.stderr)
        sys.exit(128 + outcome.signal)


def finish(outcome: Any, *, quiet: bool) -> None:
    """Say how a single run ended and what it wrote."""
    from optbench.experiment import read_record

    if outcome.known:
        print(f"already done ({outcome.status}); force=true runs it again")
    record = read_record(outcome.folder)
    if not quiet:
        if outcome.status == "diverged":
            step = record["diverged_at_step"]
            print(f"diverged: the loss was not finite at step {step}; try a smaller optimizer.lr")
        figures = {k: v for k, v in record["summary"].items() if v is not None}
        width = max(map(len, figures), default=0)
        for key, value in figures.items():
            print(f"  {key:<{width}}  {value:.6g}")
    print(f"{outcome.status}: {outcome.folder}")
    for name in ("run.json", "epochs.csv", "steps.csv"):
        print(f"  {outcome.folder / name}")
    if outcome.signal:
        sys.exit(128 + outcome.signal)


def fail(message: str) -> NoReturn:
    """Print an error for the user and exit with status 1."""
    print(f"optbench: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
