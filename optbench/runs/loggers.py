"""Loggers that copy a run's rows to TensorBoard, MLflow or Weights & Biases.

The run's folder stays the source of truth. Each logger gets the flattened configuration, every row
in order, and how the run ended. A value has the name FILE/COLUMN (`epochs/val_loss`,
`layers/LAYER/grad_norm`) and the row's step. A resumed run is logged again from its files, so that
no point is logged twice. An error in a logger ends that logger, never the run.
"""

import csv
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from time import monotonic, time
from typing import Any, NamedTuple, Protocol

from optbench.common.console import warn
from optbench.common.errors import UserError
from optbench.formats.record import FINISHED
from optbench.formats.run import COLUMNS, TEXT_COLUMNS, flatten, read_record
from optbench.runs import locks

Row = Mapping[str, float | str | None]
MISSING = "logger={0} needs a package that cannot be imported ({1}): pip install 'optbench[{0}]'"
DATABASE_WRITE_SECONDS = 2.0  # between two writes of rows, which take time


class Run(NamedTuple):
    """What a logger gets at the start of a run."""

    folder: Path
    results: Path  # results_dir, which holds the folder
    config: dict[str, float | str]  # dotted keys


class Logger(Protocol):
    """A logger, made from the arguments of its YAML.

    The command makes it before any run, so that a missing package is a `UserError` there.
    """

    def start(self, run: Run) -> None:
        """Begin the run, and delete what an earlier attempt in its folder logged."""

    def rows(self, kind: str, rows: Sequence[Row]) -> None:
        """Log new rows of `kind` (epochs, steps, layers), each with its step."""

    def finish(self, status: str) -> None:
        """End the run with its status: completed, diverged, interrupted or failed."""


class Loggers:
    """All loggers of one run."""

    warned: set[str] = set()  # noqa: RUF012  # loggers of which this process has warned

    def __init__(self, loggers: Mapping[str, Logger]) -> None:
        self.loggers = dict(loggers)

    def start(self, folder: Path, results: Path) -> None:
        """Begin to log a run, first the rows that its folder holds already."""
        if self.loggers:
            config = flatten(read_record(folder / "run.json")["config"])
            self._each("start", Run(folder, results, config))
            for kind in COLUMNS:
                self.rows(kind, list(written(folder / f"{kind}.csv")))

    def rows(self, kind: str, rows: Sequence[Row]) -> None:
        """Log new rows with each logger."""
        if rows:
            self._each("rows", kind, rows)

    def finish(self, status: str) -> None:
        """End each logger with the run's status."""
        self._each("finish", status)
        self.loggers.clear()

    def _each(self, method: str, *arguments: Any) -> None:
        for name, logger in list(self.loggers.items()):
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:  # any package's error: the run matters more
                del self.loggers[name]
                if name not in self.warned:
                    self.warned.add(name)
                    warn(
                        f"logger {name} gave up ({type(error).__name__}: {error}); the "
                        f"run goes on, and its CSV files are whole"
                    )


def scalars(kind: str, row: Row) -> dict[str, float]:
    """Return the numbers of a row by their full names, without empty cells."""
    where = f"{kind}/{row['layer']}" if "layer" in row else kind
    return {
        f"{where}/{column}": float(value)
        for column, value in row.items()
        if column not in ("step", *TEXT_COLUMNS) and value is not None
    }


def written(path: Path) -> Iterator[Row]:
    """Yield the whole rows of a run's CSV file."""
    if not path.exists():
        return
    lines = path.read_text("utf-8").splitlines(keepends=True)
    for row in csv.DictReader(line for line in lines if line.endswith("\n")):
        yield {
            column: cell if column in TEXT_COLUMNS else float(cell) if cell else None
            for column, cell in row.items()
        }


def _import(logger: str, module: str) -> Any:
    """Return a module that a logger needs. Raise `UserError` where it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(MISSING.format(logger, error)) from None


class TensorBoard:
    """Event files in the run's folder, in `tensorboard/`."""

    def __init__(self) -> None:
        self.module = _import("tensorboard", "torch.utils.tensorboard")
        self.writer: Any = None

    def start(self, run: Run) -> None:
        """Write the configuration, as text and for the tab of hyperparameters."""
        from torch.utils.tensorboard.summary import hparams

        folder = run.folder / "tensorboard"
        if folder.exists():
            shutil.rmtree(folder)
        self.writer = self.module.SummaryWriter(str(folder), flush_secs=10)
        shown = dict.fromkeys(f"epochs/{n}" for n in ("train_loss", "val_loss", "test_accuracy"))
        *begin, self.end = hparams(run.config, shown)
        for summary in begin:
            self.writer.file_writer.add_summary(summary)
        self.writer.add_text("config", "\n".join(f"    {k}: {v}" for k, v in run.config.items()))

    def rows(self, kind: str, rows: Sequence[Row]) -> None:
        """Write each value as a scalar."""
        for row in rows:
            for name, value in scalars(kind, row).items():
                self.writer.add_scalar(name, value, int(row["step"]))  # type: ignore[arg-type]

    def finish(self, status: str) -> None:
        """Write the status as text, and a completed run's end for the hyperparameter tab."""
        self.writer.add_text("status", status)
        if status == "completed":
            self.writer.file_writer.add_summary(self.end)
        self.writer.close()


class MLflow:
    """A run in an MLflow store, by default `results_dir/mlflow.db` (SQLite)."""

    STATUS = {"completed": "FINISHED", "diverged": "FINISHED", "interrupted": "KILLED"}  # noqa: RUF012
    MAX_PARAMS, MAX_METRICS, MAX_CHARACTERS = 100, 1000, 500  # in a request; in a value

    def __init__(self, uri: str | None = None, experiment: str | None = None) -> None:
        _import("mlflow", "alembic")  # the SQLite store needs it, and mlflow-skinny lacks it
        self.module = _import("mlflow", "mlflow")
        self.uri, self.experiment = uri, experiment
        self.buffer: list[Any] = []
        self.saved = monotonic()

    def start(self, run: Run) -> None:
        """Log parameters and tags, and delete the run that this folder logged before."""
        import logging
        import os

        uri = self.uri or f"sqlite:///{(run.results / 'mlflow.db').absolute()}"
        if "://" not in uri or uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # both report each new table
        group, results = run.folder.parent.absolute(), run.results.absolute()
        inside = group.is_relative_to(results)
        name = self.experiment or str(group.relative_to(results) if inside else group.name)
        folder = str(run.folder.absolute())
        # two processes that create the tables of one database at the same time damage it
        with locks.run_lock(run.results, "mlflow", waiting=lambda holder: None):
            self.client = self.module.MlflowClient(uri)
            found = self.client.get_experiment_by_name(name)
            number = found.experiment_id if found else self.client.create_experiment(name)
        quoted = folder.replace("'", "''")
        for old in self.client.search_runs([number], f"tags.folder = '{quoted}'"):
            self.client.delete_run(old.info.run_id)
        tags = {"folder": folder, "status": "running"}
        self.run = self.client.create_run(number, run_name=run.folder.name, tags=tags).info.run_id
        Param = self.module.entities.Param
        # MLflow allows only these characters in a key
        params = [
            Param(re.sub(r"[^\w./ -]", "_", key), str(value)[: self.MAX_CHARACTERS])
            for key, value in run.config.items()
        ]
        for at in range(0, len(params), self.MAX_PARAMS):
            self.client.log_batch(self.run, params=params[at : at + self.MAX_PARAMS])

    def rows(self, kind: str, rows: Sequence[Row]) -> None:
        """Log metrics with their steps, many at a time, since each write takes time."""
        now, Metric = int(1000 * time()), self.module.entities.Metric
        for row in rows:
            step = int(row["step"])  # type: ignore[arg-type]
            self.buffer += [Metric(k, v, now, step) for k, v in scalars(kind, row).items()]
        if monotonic() - self.saved > DATABASE_WRITE_SECONDS:
            self._save()

    def _save(self) -> None:
        for at in range(0, len(self.buffer), self.MAX_METRICS):
            self.client.log_batch(self.run, self.buffer[at : at + self.MAX_METRICS])
        self.buffer, self.saved = [], monotonic()

    def finish(self, status: str) -> None:
        """Log the status as a tag, and as MLflow's own status."""
        self._save()
        self.client.set_tag(self.run, "status", status)
        self.client.set_terminated(self.run, self.STATUS.get(status, "FAILED"))


class WandB:
    """A run of Weights & Biases in the run's folder, in `wandb/`; offline by default."""

    def __init__(self, mode: str = "offline", project: str = "optbench") -> None:
        if mode not in ("offline", "online"):
            raise UserError(f"logger.wandb.mode must be offline or online, not {mode!r}")
        self.module = _import("wandb", "wandb")
        self.mode, self.project = mode, project

    def start(self, run: Run) -> None:
        """Begin a run with the folder's name, which replaces an earlier one on a server."""
        if (run.folder / "wandb").exists():
            shutil.rmtree(run.folder / "wandb")
        self.run = self.module.init(
            project=self.project,
            group=run.folder.parent.name,
            name=run.folder.name,
            id=re.sub(r"[^\w.-]", "_", run.folder.name),
            config=run.config,
            dir=str(run.folder),
            mode=self.mode,
            reinit="create_new",  # the user's program may have other runs open
            settings=self.module.Settings(
                silent=True, console="off", disable_git=True, disable_code=True,
                x_disable_stats=True,
            ),
        )  # fmt: skip
        self.run.define_metric("*", step_metric="step")

    def rows(self, kind: str, rows: Sequence[Row]) -> None:
        """Log rows with the run's step as a value, since wandb's own step counts calls."""
        for row in rows:
            self.run.log({"step": row["step"], **scalars(kind, row)})

    def finish(self, status: str) -> None:
        """Write the status into the summary, and end the run."""
        self.run.summary["status"] = status
        self.run.finish(exit_code=0 if status in FINISHED else 1)
