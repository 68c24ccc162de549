"""The jobs that Hydra wants run, and what has become of them."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from optbench.config.compose import texts_of
from optbench.formats import job_list
from optbench.runner import run
from optbench.runs import finished
from optbench.sweeps.engine_choice import EngineChoice
from optbench.sweeps.sweep_loader import clone, hydra_config


class Result(JobReturn):
    """What Hydra's callbacks are given of a job; the copies are made for those who look."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__()
        self._config = config

    @property
    def cfg(self) -> DictConfig | None:
        """The job's configuration without Hydra's part."""
        return self._part(hydra=False)

    @cfg.setter
    def cfg(self, value: DictConfig | None) -> None:
        pass  # the dataclass's default

    @property
    def hydra_cfg(self) -> DictConfig | None:
        """Hydra's part."""
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


def save(result: JobReturn, folder: Path) -> None:
    """The files of `hydra.output_subdir`."""
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
    group: Path  # where its run's folder goes
    result: JobReturn
    plan: run.Plan | None = None
    folder: Path | None = None  # once the run is being written


@dataclass
class Batch:
    """The jobs that Hydra wants run, and what has become of them."""

    context: HydraContext
    master: DictConfig
    task: TaskFunction
    first: int
    threads: int
    left: list[tuple[int, list[str]]]  # those not yet begun, the next one last
    choice: EngineChoice  # of the sweep's problems
    composed: dict[int, DictConfig] = field(default_factory=dict)  # of those in `left`, by index
    results: dict[int, JobReturn] = field(default_factory=dict)
    size: int = 1  # worker processes
    checked: bool = False  # whether all configurations were looked at
    told: bool = False  # in how many processes they run
    stopping: bool = False  # since a job failed
    running: dict[str, Job] = field(default_factory=dict)  # by the key of their task
    waiting: list[Job] = field(default_factory=list)  # for the same run in another job
    built: set[str] = field(default_factory=set)  # `rehearsal.kind_of` of what can be built
    lacking: set[str] = field(default_factory=set)  # `dataset_parts` of what cannot be loaded
    find: finished.Finished = field(default_factory=finished.Finished)

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return Path(self.master.hydra.sweep.dir).absolute()


def begin(batch: Batch, index: int) -> Job:
    """The first half of what `hydra.core.utils.run_job` does; `launcher.end` is the second."""
    config = batch.composed.pop(index)
    number = batch.first + index
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.id, config.hydra.job.num = str(number), number
    result = Result(config)
    with hydra_config(config):
        output = batch.folder / str(config.hydra.sweep.subdir)
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = str(output)
        result.overrides = texts_of(config.hydra.overrides.task)
        result.working_dir = str(output if config.hydra.job.chdir else Path.cwd())
        with suppress(OSError):  # the run will fail for it, and say why
            output.mkdir(parents=True, exist_ok=True)
            if config.hydra.output_subdir is not None:
                save(result, output / str(config.hydra.output_subdir))
        batch.context.callbacks.on_job_start(config=config, task_function=batch.task)
    words = list(result.overrides)
    return Job(
        index, number, words, job_list.label(batch.folder, number, words), config, output, result
    )
