"""The choice of one engine for all runs of a problem, so that seconds compare.

`engine=auto` takes the first engine, in the order of `runner.engine.NAMES`, that serves every run
of a problem, else plain steps. A sweep keeps its choice in memory, since a study launches its jobs
in several batches. The environment hands the choice to other processes. The file in the sweep's
folder is read last, since another call may have written it while this one runs.
"""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from optbench import optimizers, schedules
from optbench.config import build
from optbench.datasets import prepare
from optbench.formats import job_list
from optbench.formats.keys import KIND_KEYS, RunConfig, part_of
from optbench.formats.run import read_sealed, write_sealed
from optbench.problem import Problem, build_model, identity
from optbench.runner import engine
from optbench.streams import Stream
from optbench.training.object_state.global_state import kept
from optbench.training.recipes import recipe_of
from optbench.training.setup import budget_of

ENGINES_VARIABLE = "OPTBENCH_ENGINES"
MAX_CHARACTERS = 100_000  # Linux starts no process with 131,072 in one environment variable


class EngineChoice:
    """The engines that serve all runs of a problem that were checked so far."""

    def __init__(self, load: Callable[[RunConfig], prepare.Dataset], known: dict[str, str]) -> None:
        """Begin with `known` choices, which stay. load: from config to dataset."""
        self._load, self._known = load, known
        self._serving: dict[str, tuple[str, ...]] = {}  # by problem
        self._models: dict[str, tuple[Problem, nn.Module]] = {}  # by problem
        self._seen: set[str] = set()

    def look_at(self, config: RunConfig) -> None:
        """Drop engines that do not serve a run from its problem, if the run asks for auto."""
        key = problem_key(config)
        if engine.asked(config) != engine.AUTO or key in self._known:
            return
        left = self._serving.get(key, engine.NAMES)
        kind = json.dumps(part_of(config, KIND_KEYS), sort_keys=True)
        if left and kind not in self._seen:
            self._seen.add(kind)
            try:
                left = self._of_run(key, config, left)
            except Exception:  # the user's code may raise; the run itself reports the error
                left = self._serving.get(key, engine.NAMES)
        self._serving[key] = left

    def _of_run(self, key: str, config: RunConfig, names: tuple[str, ...]) -> tuple[str, ...]:
        where = config["device"]
        if where == "auto":
            where = "cuda" if torch.cuda.is_available() else "cpu"
        watched = config["diagnostics"] == "layers" and config["log"]["layer_steps"] == 1
        if watched or torch.device(where).type != "cpu":
            return ()  # no engine shows each step, and all compute on the CPU
        with Stream(config["seed"], "rehearsal"):
            if key not in self._models:
                problem = build.build_problem(config, self._load(config))
                with kept(problem):
                    self._models[key] = problem, build_model(problem, config["seed"])
            problem, model = self._models[key]
            factory = build.build("optimizer", config["optimizer"])
            decay = config["decay_biases_and_norms"]
            schedule = build.build("schedule", config["schedule"])
            with kept(factory, schedule):
                factory = optimizers.with_budget(factory, budget_of(problem))
                optimizer = optimizers.build(factory, model, decay_biases_and_norms=decay)
                scheduler = schedules.build(schedule, optimizer, problem.total_steps)
                recipe = recipe_of(config)
                return engine.serving(names, problem, model, optimizer, scheduler, recipe)

    def of(self, config: RunConfig) -> str | None:
        """Return the name of the engine of a run's problem; None if never checked."""
        return self.made().get(problem_key(config))

    def made(self) -> dict[str, str]:
        """Return the name of each problem's engine."""
        own = {key: (*names, engine.PLAIN)[0] for key, names in self._serving.items()}
        return own | self._known


def choose(
    sweep: Path,
    configs: Iterable[RunConfig],
    load: Callable[[RunConfig], prepare.Dataset],
) -> None:
    """Choose an engine for each problem of these runs; earlier choices stay."""
    choice = EngineChoice(load, dict(job_list.engines))
    for config in configs:
        choice.look_at(config)
    keep(sweep, choice)


def keep(sweep: Path, choice: EngineChoice) -> None:
    """Keep the choice for this process, for its children, and in the sweep's folder."""
    made = choice.made()
    job_list.engines.update(made)
    text = json.dumps(made)
    os.environ[ENGINES_VARIABLE] = text if len(text) < MAX_CHARACTERS else ""
    with suppress(OSError):  # each run then chooses for itself
        write_sealed(sweep / job_list.ENGINES_FILE, {"engines": made})


def chosen(sweep: Path, config: RunConfig) -> str | None:
    """Return the engine that the sweep chose for a run's problem, or None."""
    found = job_list.engines
    with suppress(OSError, ValueError, KeyError):  # the run then chooses for itself
        if not found and (told := os.environ.get(ENGINES_VARIABLE)):
            found = json.loads(told)
        elif not found:
            found = read_sealed(sweep / job_list.ENGINES_FILE)["engines"]
    return found.get(problem_key(config))


def problem_key(config: RunConfig) -> str:
    """Return a key for the problem of a configuration, which needs no data."""
    return identity(build.describe_problem(config))
