"""Compare optimizers from Python: `compare` trains, its result draws and judges.

No file is written. The result is computed like that of a sweep, by `analysis` and `stats`.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.markup import escape as markup
from rich.progress import Progress
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench.analysis.candidate.judge import judge
from optbench.analysis.candidate.words import sentence
from optbench.analysis.caveats import unmoved
from optbench.analysis.comparison import Comparison
from optbench.analysis.summary import summary
from optbench.analysis.table import Run, assemble
from optbench.common.errors import UserError
from optbench.common.names import did_you_mean
from optbench.formats.record import RunRecord, Stop
from optbench.formats.run import (
    AVERAGED_COLUMNS,
    COLUMNS,
    METRIC_COLUMNS,
    SHARPNESS_COLUMNS,
)
from optbench.optimizers import check_callable
from optbench.problem import Problem, identity
from optbench.report.terminal import judged
from optbench.runner import engine as engines
from optbench.runner.reference import rehearsed_least_squares
from optbench.runner.train import train
from optbench.stats.corrections import MAX_TYPE, least_seeds, too_few_seeds
from optbench.stats.pairwise import DEFAULT_SEEDS
from optbench.training.device import usable
from optbench.training.evaluation import Row
from optbench.training.recipes import Recipe
from optbench.training.step_cost import cost_of_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Build = Callable[..., Optimizer]


@dataclass(frozen=True, repr=False)
class InMemoryComparison:
    """Runs of several optimizers on one problem, with the same seeds. See `compare`."""

    comparison: Comparison  # the input of `optbench.figures` and `optbench.stats`

    def __repr__(self) -> str:
        return "\n".join([self.summary().to_string(), *self._judged()])

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{escape(text)}</p>" for text in self._judged())
        return f"{self.summary().to_html()}{said}"

    def _judged(self) -> list[str]:
        """Return the verdict of all pairs in a sentence, as at a sweep's end; or nothing."""
        return [text for text in [judged(self.comparison, self.comparison.judged)] if text]

    @property
    def table(self) -> pd.DataFrame:
        """Return a row for each evaluation of each run.

        Columns: optimizer, seed, status, and those of `epochs.csv` (epoch, step, train_loss,
        val_accuracy, seconds, ...).
        """
        return self.comparison.table

    def plot(self, y: str = "train_loss", x: str = "epoch", *, log: bool | None = None) -> "Figure":
        """Draw a line per optimizer: the median over the seeds, and their range as a band.

        y: a column of the table. x: "epoch", "step", "seconds" or "gradients". log: a logarithmic
        y axis, by default for losses. Raises `UserError` for an unknown name.
        """
        from optbench.figures.curves import curves

        return curves(self.comparison, y=y, x=x, log=log)

    def summary(self, y: str = "train_loss") -> pd.DataFrame:
        """Return the final `y` of each optimizer, best first, and the seconds of an epoch.

        `optbench.analysis.summary.summary(compared.comparison)` has more columns.
        """
        columns = [*(f"{y}_{word}" for word in ("median", "min", "max")), "seeds", "diverged"]
        found = summary(self.comparison, y).set_index("optimizer")
        return found[[*columns, "seconds_per_epoch"]]

    def verdict(
        self, candidate: str | None = None, baseline: str | None = None, y: str = "train_loss"
    ) -> "Verdict":
        """Judge by the final `y` of each seed whether the candidate beats the baseline.

        It is the verdict of `optbench verdict --candidate CANDIDATE`: the exact signed-rank test
        with Holm's correction over the candidate's comparisons with all other optimizers, or with
        too few seeds for it the sign-flip test of the largest |t| over the same pairs. So you may
        ask for each of them, but name the candidate before you see the results. `optbench verdict`
        with `--baseline` tests one pair alone, and so corrects for no other. Of two optimizers the
        baseline is the other one. Print the result, or its `text`. Raises `UserError` for an
        unknown name.
        """
        known = list(dict.fromkeys(map(str, self.table["optimizer"])))
        if len(known) == 1:
            raise UserError(f"there is nothing to compare: {known[0]} was trained alone")
        if candidate is None:
            raise UserError(f"name the candidate, one of: {', '.join(known)}")
        others = [name for name in known if name != candidate]
        if baseline is None and candidate in known:
            if len(others) > 1:
                raise UserError(f"name a baseline, one of: {', '.join(others)}")
            baseline = others[0]
        if candidate not in known or baseline not in known or candidate == baseline:
            lost = [name for name in (candidate, baseline) if name not in known]
            near = did_you_mean(str(lost[0]), known) if lost else ""
            raise UserError(
                f"candidate and baseline must be two of: {', '.join(map(repr, known))}; they are "
                f"{candidate!r} and {baseline!r}{near}"
            )
        found = judge(self.comparison, candidate, y=y)
        each = [one for one in found.each if one.baseline == baseline]
        over = [one for one in found.over if one.baseline == baseline]
        outcome = over[0].outcome
        only = found._replace(baselines=[baseline], each=each, over=over, outcome=outcome)
        pair = each[0].verdict._asdict()
        said = {name: pair[name] for name in Verdict._fields if name != "text"}
        return Verdict(**said, text=sentence(only))


class Verdict(NamedTuple):
    """What the runs say of a candidate against a baseline; see `InMemoryComparison.verdict`."""

    outcome: str  # better, worse, cannot tell
    n: int  # seeds
    p: float  # two-sided, corrected for all comparisons of the candidate
    difference: float  # Hodges-Lehmann estimate of candidate minus baseline, in the metric's unit
    low: float  # of its 95 % interval
    high: float
    needed: float  # seeds for 80 % power; inf without a difference, NaN if n = 1
    text: str  # a sentence with names, numbers and the test

    def __str__(self) -> str:
        return self.text


def compare(
    problem: Problem,
    optimizers: Mapping[str, Build],
    *,
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    schedule: Callable[[Optimizer, int], LRScheduler | None] | None = None,
    decay_biases_and_norms: bool = True,
    device: torch.device | str = "cpu",
    eval_every: int = 1,
    eval_train_examples: int | None = None,
    engine: str = engines.AUTO,
    recipe: Recipe | None = None,
    progress: bool = True,
) -> InMemoryComparison:
    """Train each optimizer with each seed, and return the comparison of the runs.

    Runs of one seed start from the same weights and see the same batches. A run that diverges
    counts as the worst. An error of an optimizer's own code ends the comparison.

    problem: the loss to minimise, the batches and the budget.
    optimizers: names, each with a function that makes the optimizer from parameters, such as
        `partial(torch.optim.Adam, lr=1e-3)` or a class of your own.
    seeds: their number (0, 1, ...), or a list. Six are the fewest that can show a difference.
    schedule: makes a learning rate schedule from an optimizer and the total steps.
    decay_biases_and_norms: whether weight decay applies to biases and norms too.
    device: "cpu", "cuda", "cuda:NUMBER", or "auto" for CUDA where there is some.
    eval_every: epochs between evaluations.
    eval_train_examples: evaluate the training loss on this many examples; None is all.
    engine: "auto" is the first engine that serves every optimizer; see `optbench.train`.
    recipe: clipping, accumulation, averaging, augmentation and early ends, for all optimizers.
    progress: show a bar, in a terminal on standard error.

    The result has `table`, `plot()`, `summary()` and `verdict(candidate=..., baseline=...)`:

        compared = optbench.compare(problem, {"adam": partial(Adam, lr=1e-3), "mine": Mine})
        print(compared.verdict(candidate="mine", baseline="adam").text)

    Raises `UserError` if the arguments, the model or an optimizer do not fit the problem.
    """
    try:
        numbers = [index(seed) for seed in (seeds if isinstance(seeds, Sequence) else range(seeds))]
    except TypeError:
        raise UserError(f"seeds must be a whole number, or a list of them, not {seeds!r}") from None
    device = usable(str(device))
    _check(problem, optimizers, numbers, seeds)
    if schedule is not None and not callable(schedule):
        raise UserError(
            f"schedule must be a function of an optimizer and the total steps, or None, not "
            f"{schedule!r}: optbench.schedules has some, such as schedules.cosine"
        )
    if recipe is not None and not isinstance(recipe, Recipe):
        raise UserError(f"recipe must be an optbench.training.recipes.Recipe, not {recipe!r}")
    if engine == engines.AUTO:
        engine = engines.common(
            problem,
            optimizers.values(),
            schedule,
            decay_biases_and_norms=decay_biases_and_norms,
            device=device,
            seed=numbers[0],
            recipe=recipe or Recipe(),
        )
    options: dict[str, Any] = {
        "schedule": schedule,
        "decay_biases_and_norms": decay_biases_and_norms,
        "device": device,
        "eval_every": eval_every,
        "eval_train_examples": eval_train_examples,
        "engine": engine,
        "recipe": recipe,
    }
    size = {"epochs": problem.epochs, "steps": problem.steps, "batch_size": problem.batch_size}
    least = rehearsed_least_squares(problem, numbers[0], eval_train_examples)
    runs: list[Run] = []
    total = len(numbers) * len(optimizers) * problem.total_steps
    with _progress(total, shown=progress) as show:
        for seed in numbers:  # outermost, so that each optimizer's errors show early
            for name, build in optimizers.items():
                rows: list[Row] = []
                for update in train(problem, build, seed=seed, **options):
                    show(f"{name}, seed {seed}", len(runs) * problem.total_steps + update.step)
                    if update.epoch is not None:
                        rows.append(update.epoch)
                record: RunRecord = {
                    "run_id": identity({"optimizer": name, "seed": seed}),
                    "problem_hash": identity(size),
                    "name": name,
                    "seed": seed,
                    "config": {},
                    "problem": size,
                    "status": update.status,
                    "stopped": Stop(by=update.stopped, step=update.step)
                    if update.stopped
                    else None,
                    "device": str(device),
                    "engine": engine,
                    "cost": cost_of_run(
                        problem,
                        build,
                        seed=seed,
                        decay_biases_and_norms=decay_biases_and_norms,
                        device=torch.device(device),
                    ),
                }
                if least is not None:
                    record["reference"] = {"train_loss": least}
                runs.append(Run(Path(f"{name}-seed{seed}"), record, _columns(rows)))
    made = Comparison(assemble(runs))
    for text in unmoved(made):
        warnings.warn(text, stacklevel=2)
    return InMemoryComparison(made)


def _check(
    problem: Problem, optimizers: Mapping[str, Build], seeds: Sequence[int], given: object
) -> None:
    if not isinstance(problem, Problem):
        raise UserError(f"problem must be an optbench.Problem, not a {type(problem).__name__}")
    if not isinstance(optimizers, Mapping) or not optimizers:
        raise UserError(
            'optimizers must be a dictionary from names to what makes them, such as {"adam": '
            "partial(torch.optim.Adam, lr=1e-3)}"
        )
    for name, build in optimizers.items():
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"an optimizer needs a name, not {name!r}")
        check_callable(build, repr(name))
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"seeds must be a number above 0, or different seeds, not {given}")
    rivals = len(optimizers) - 1
    if rivals and (why := too_few_seeds(len(seeds), rivals, MAX_TYPE)):
        enough = least_seeds(rivals, MAX_TYPE)
        warnings.warn(
            f"no difference can be shown: {why}; seeds={enough} or more can show one", stacklevel=3
        )


def _columns(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Return the rows by the columns of `epochs.csv`; NaN if there is no value."""
    usual = (*COLUMNS["epochs"], *METRIC_COLUMNS, *AVERAGED_COLUMNS, *SHARPNESS_COLUMNS)
    further = (name for row in rows for name in row)  # of several outputs, with their names
    return {
        name: np.array([row.get(name) for row in rows], dtype=float)
        for name in dict.fromkeys([*usual, *further])
        if any(row.get(name) is not None for row in rows)
    }


@contextmanager
def _progress(total: int, *, shown: bool) -> Iterator[Callable[[str, int], None]]:
    """Yield a function that shows a label and how many of `total` steps are done."""
    console = Console(stderr=True)
    if shown and console.is_jupyter:  # rich would need ipywidgets
        from IPython.display import HTML, display

        handle = display(HTML(""), display_id=True)
        bar = '<progress value="{}" max="{}"></progress> {}'
        yield lambda label, done: handle.update(HTML(bar.format(done, total, escape(label))))
        return
    with Progress(console=console, disable=not shown) as made:
        task = made.add_task("", total=total)
        # a name may hold brackets, which rich would read as its markup
        yield lambda label, done: made.update(task, description=markup(label), completed=done)
