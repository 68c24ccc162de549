"""Where a run's rows go besides its CSV files: TensorBoard, MLflow, Weights & Biases.

The run's folder stays the source of truth. Each logger gets every row of it in order, under the
name FILE/COLUMN at the row's step (`epochs/val_loss`, `layers/LAYER/grad_norm`), the flattened
configuration, and how the run ended. A run that is gone on with is logged anew from its files, so
that no point stands there twice. What fails in a logger ends that logger, never the run.
"""

import csv
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from time import monotonic, time
from typing import Any, NamedTuple, Protocol

from optbench.common.console import say
from optbench.common.errors import UserError
from optbench.formats.run import COLUMNS, TEXTS, flatten, read_record
from optbench.runs import locks

Row = Mapping[str, float | str | None]
MISSING = "logger={0} needs a package that cannot be imported ({1}): pip install 'optbench[{0}]'"
EVERY = 2.0  # seconds between two writes to a database


class Run(NamedTuple):
    """What a logger is told of a run at its start."""

    folder: Path
    results: Path  # results_dir, in which the folder is
    config: dict[str, float | str]  # dotted keys


class Logger(Protocol):
    """Made from the arguments of its YAML, in the command's process first: an import that fails
    is a `UserError` there."""

    def start(self, run: Run) -> None:
        """Begin the run; what an earlier attempt in this folder logged is to go."""

    def rows(self, kind: str, rows: Sequence[Row]) -> None:
        """New rows of `kind` (epochs, steps, layers), each with its step."""

    def finish(self, status: str) -> None:
        """The run is over: completed, diverged, interrupted or failed."""


class Loggers:
    """Hands a run's rows to each of its loggers."""

    warned: set[str] = set()  # noqa: RUF012  # in this process: once is enough

    def __init__(self, loggers: Mapping[str, Logger]) -> None:
        self.loggers = dict(loggers)

    def start(self, folder: Path, results: Path) -> None:
        """Begin a run's record with what its folder, somewhere in `results`, holds already."""
        if self.loggers:
            config = flatten(read_record(folder / "run.json")["config"])
            self._each("start", Run(folder, results, config))
            for kind in COLUMNS:
                self.rows(kind, list(written(folder / f"{kind}.csv")))

    def rows(self, kind: str, rows: Sequence[Row]) -> None:
        """Hand on new rows."""
        if rows:
            self._each("rows", kind, rows)

    def finish(self, status: str) -> None:
        """Hand on how the run ended."""
        self._each("finish", status)
        self.loggers.clear()

    def _each(self, method: str, *arguments: Any) -> None:
        for name, logger in list(self.loggers.items()):
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:  # of any package's: the run matters more
                del self.loggers[name]
                if name not in self.warned:
                    self.warned.add(name)
                    say(
                        f"warning: logger {name} gave up ({type(error).__name__}: {error}); the "
                        f"run goes on, and its CSV files are whole",
                        error=True,
                    )


def scalars(kind: str, row: Row) -> dict[str, float]:
    """The numbers of a row by their full names; what does not exist is left out."""
    where = f"{kind}/{row['layer']}" if "layer" in row else kind
    return {
        f"{where}/{column}": float(value)
        for column, value in row.items()
        if column not in ("step", *TEXTS) and value is not None
    }


def written(path: Path) -> Iterator[Row]:
    """The whole rows of a CSV file of a run, as they were when they were written."""
    if not path.exists():
        return
    lines = path.read_text("utf-8").splitlines(keepends=True)
    for row in csv.DictReader(line for line in lines if line.endswith("\n")):
        yield {
            column: cell if column in TEXTS else float(cell) if cell else None
            for column, cell in row.items()
        }


def _import(logger: str, module: str) -> Any:
    """A module that a logger needs; `UserError` where it is missing."""
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
        """The configuration, as text and for the tab of hyperparameters."""
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
        """A scalar each."""
        for row in rows:
            for name, value in scalars(kind, row).items():
                self.writer.add_scalar(name, value, int(row["step"]))  # type: ignore[arg-type]

    def finish(self, status: str) -> None:
        """The status as text; for the tab of hyperparameters only whether the run ended."""
        self.writer.add_text("status", status)
        if status == "completed":
            self.writer.file_writer.add_summary(self.end)
        self.writer.close()


class MLflow:
    """A run in an MLflow store: by default the SQLite file `mlflow.db` in `results_dir`."""

    STATUS = {"completed": "FINISHED", "diverged": "FINISHED", "interrupted": "KILLED"}  # noqa: RUF012
    PARAMS, METRICS, LENGTH = 100, 1000, 500  # of one request; characters of a value

    def __init__(self, uri: str | None = None, experiment: str | None = None) -> None:
        _import("mlflow", "alembic")  # the SQLite store needs it, and mlflow-skinny lacks it
        self.module = _import("mlflow", "mlflow")
        self.uri, self.experiment = uri, experiment
        self.buffer: list[Any] = []
        self.saved = monotonic()

    def start(self, run: Run) -> None:
        """Parameters and tags; a run that was logged from this folder before is deleted."""
        import logging
        import os

        uri = self.uri or f"sqlite:///{(run.results / 'mlflow.db').absolute()}"
        if "://" not in uri or uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # it tells how it makes its tables
        group, results = run.folder.parent.absolute(), run.results.absolute()
        inside = group.is_relative_to(results)
        name = self.experiment or str(group.relative_to(results) if inside else group.name)
        folder = str(run.folder.absolute())
        # two processes that make the tables of one database spoil them
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
        # a key may hold only these characters
        params = [
            Param(re.sub(r"[^\w./ -]", "_", key), str(value)[: self.LENGTH])
            for key, value in run.config.items()
        ]
        for at in range(0, len(params), self.PARAMS):
            self.client.log_batch(self.run, params=params[at : at + self.PARAMS])

    def rows(self, kind: str, rows: Sequence[Row]) -> None:
        """Metrics with their steps, some at a time: each write to the database costs."""
        now, Metric = int(1000 * time()), self.module.entities.Metric
        for row in rows:
            step = int(row["step"])  # type: ignore[arg-type]
            self.buffer += [Metric(k, v, now, step) for k, v in scalars(kind, row).items()]
        if monotonic() - self.saved > EVERY:
            self._save()

    def _save(self) -> None:
        for at in range(0, len(self.buffer), self.METRICS):
            self.client.log_batch(self.run, self.buffer[at : at + self.METRICS])
        self.buffer, self.saved = [], monotonic()

    def finish(self, status: str) -> None:
        """The status as a tag, and as MLflow calls it."""
        self._save()
        self.client.set_tag(self.run, "status", status)
        self.client.set_terminated(self.run, self.STATUS.get(status, "FAILED"))


class WandB:
    """A run of Weights & Biases, in the run's folder in `wandb/`; offline unless told otherwise."""

    def __init__(self, mode: str = "offline", project: str = "optbench") -> None:
        if mode not in ("offline", "online"):
            raise UserError(f"logger.wandb.mode must be offline or online, not {mode!r}")
        self.module = _import("wandb", "wandb")
        self.mode, self.project = mode, project

    def start(self, run: Run) -> None:
        """One with the folder's name; on a server it takes the place of an earlier one."""
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
            reinit="create_new",  # a program may have others open
            settings=self.module.Settings(
                silent=True, console="off", disable_git=True, disable_code=True,
                x_disable_stats=True,
            ),
        )  # fmt: skip
        self.run.define_metric("*", step_metric="step")

    def rows(self, kind: str, rows: Sequence[Row]) -> None:
        """Against a step of our own: wandb's counts the calls."""
        for row in rows:
            self.run.log({"step": row["step"], **scalars(kind, row)})

    def finish(self, status: str) -> None:
        """The status, in the summary."""
        self.run.summary["status"] = status
        self.run.finish(exit_code=0 if status in ("completed", "diverged") else 1)
