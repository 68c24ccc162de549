"""A batch: the jobs that Hydra launches together, and their states."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, env_override
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from optbench.common.errors import UserError
from optbench.config import build, validate
from optbench.config.compose import texts_of
from optbench.config.resolve import resolve
from optbench.formats import job_list
from optbench.formats.keys import RunConfig
from optbench.runner import rehearsal, run
from optbench.runs import finished
from optbench.sweeps import shared_dataset
from optbench.sweeps.engine_choice import EngineChoice
from optbench.sweeps.sweep_loader import clone, hydra_config

OWN_CALLBACKS = {"comparison"}  # of conf/config.yaml


class Result(JobReturn):
    """The result of a job for Hydra's callbacks; configurations are copied on access."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__()
        self._config = config

    @property
    def cfg(self) -> DictConfig | None:
        """The job's configuration without Hydra's part."""
        return self._part(hydra=False)

    @cfg.setter
    def cfg(self, value: DictConfig | None) -> None:
        pass  # ignores the dataclass's default

    @property
    def hydra_cfg(self) -> DictConfig | None:
        """Hydra's part of the job's configuration."""
        return self._part(hydra=True)

    @hydra_cfg.setter
    def hydra_cfg(self, value: DictConfig | None) -> None:
        pass

    def _part(self, *, hydra: bool) -> DictConfig:
        copy = clone(self._config)
        with read_write(copy), open_dict(copy):
            for key in list(copy):
                if (key == "hydra") != hydra:
                    del copy[key]
        return copy


def write_outputs(result: JobReturn, folder: Path) -> None:
    """Write the files of `hydra.output_subdir`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (
        ("config", result.cfg), ("hydra", result.hydra_cfg), ("overrides", result.overrides),
    ):  # fmt: skip
        text = OmegaConf.to_yaml(OmegaConf.create(part) if isinstance(part, list) else part)
        (folder / f"{name}.yaml").write_text(text, "utf-8")


@dataclass
class Job:
    """One job between its configuration and its end."""

    index: int  # in the batch
    number: int  # in the sweep
    overrides: list[str]
    label: str
    config: DictConfig
    group: Path  # the folder that the run's folder is made in
    result: JobReturn
    resolved: RunConfig | None = None  # None: to be resolved again, which raises the job's error
    plan: run.Plan | None = None
    folder: Path | None = None  # the run's, once it exists


@dataclass
class Batch:
    """The jobs that Hydra launches together, and their states."""

    context: HydraContext
    master: DictConfig
    task: TaskFunction
    first: int
    threads: int
    left: list[tuple[int, list[str]]]  # jobs not yet begun, the next one last
    choice: EngineChoice  # for the sweep's problems
    composed: dict[int, DictConfig] = field(default_factory=dict)  # of jobs in `left`, by index
    resolved: dict[int, RunConfig] = field(default_factory=dict)  # those without an error
    results: dict[int, JobReturn] = field(default_factory=dict)
    size: int = 1  # worker processes
    checked: bool = False  # whether all configurations were checked
    told: bool = False  # whether the number of processes was printed
    stopping: bool = False  # whether a failed job stops the sweep
    running: dict[str, Job] = field(default_factory=dict)  # by the key of the task
    waiting: list[Job] = field(default_factory=list)  # until another job ends the same run
    built: set[str] = field(default_factory=set)  # `rehearsal.kind_of` runs that were built
    lacking: set[str] = field(default_factory=set)  # `dataset_parts` that cannot be loaded
    find: finished.Finished = field(default_factory=finished.Finished)
    elsewhere: Any = None  # of a shared study: the jobs of others, a `sharing.elsewhere.Elsewhere`

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return Path(self.master.hydra.sweep.dir).absolute()


def begin(batch: Batch, index: int) -> Job:
    """Begin a job, as `hydra.core.utils.run_job` does; `launcher.end` ends it."""
    config = batch.composed.pop(index)
    number = config.hydra.job.num
    result = Result(config)
    with hydra_config(config):
        output = Path(config.hydra.runtime.output_dir)
        result.overrides = texts_of(config.hydra.overrides.task)
        result.working_dir = str(output if config.hydra.job.chdir else Path.cwd())
        with suppress(OSError):  # the run will fail with the same error
            output.mkdir(parents=True, exist_ok=True)
            if config.hydra.output_subdir is not None:
                write_outputs(result, output / str(config.hydra.output_subdir))
        batch.context.callbacks.on_job_start(config=config, task_function=batch.task)
    words = list(result.overrides)
    return Job(
        index, number, words, job_list.label(batch.folder, number, words), config, output, result,
        batch.resolved.pop(index, None),
    )  # fmt: skip


def is_wrong(batch: Batch, index: int, overrides: list[str]) -> bool:
    """Compose a job's configuration, and return whether it is wrong."""
    loader: Any = batch.context.config_loader  # a SweepLoader
    config = loader.take_config(batch.master, overrides)
    batch.composed[index] = config
    _number(batch, index, config)
    try:
        with hydra_config(config), env_override(dict(config.hydra.job.env_set)):
            resolved = resolve(config, texts_of(config.hydra.overrides.task))
            validate.check(resolved)
            rehearse(batch, resolved, str(config.hydra.sweep.subdir))
            batch.choice.look_at(resolved)
    except Exception:  # the beginning of the job reports the error
        return True
    if (
        set(config.hydra.callbacks) == OWN_CALLBACKS
    ):  # those of a user's may change a job at its start
        batch.resolved[index] = resolved
    return False


def _number(batch: Batch, index: int, config: DictConfig) -> None:
    """Write a job's number and folder into its configuration, as Hydra does."""
    number = batch.first + index
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.id, config.hydra.job.num = str(number), number
    with hydra_config(config):
        output = batch.folder / str(config.hydra.sweep.subdir)
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = str(output)


def rehearse(batch: Batch, config: RunConfig, subfolder: str) -> None:
    """Load and build the parts of a job, once for all jobs of the same kind.

    Raises the errors of these parts. A dataset that could not be loaded is not tried again.
    """
    kind = rehearsal.kind_of(config)
    if kind in batch.built:
        return
    parts = build.dataset_parts(config)
    if parts in batch.lacking:
        raise UserError("its dataset could not be loaded")  # the job itself reports the reason
    batch.lacking.add(parts)
    shared_dataset.load(config)
    batch.lacking.remove(parts)
    found = batch.find.mark(build.results_of(config))
    group = batch.folder / subfolder
    planned = run.plan(config, group, load=shared_dataset.load, find=batch.find, released=found)
    if planned.done is None:
        rehearsal.build(planned)
    batch.built.add(kind)
