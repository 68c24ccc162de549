"""Arguments that the budget of a run gives: numbers of steps and of examples."""

from collections.abc import Mapping
from functools import partial
from inspect import Parameter
from typing import Any

from optbench.optimizers.factories import Factory, arguments, unwrap
from optbench.optimizers.grouped import Grouped

# The number goes to a required argument of one of these names, and to an argument whose configured
# value is the key, as in optimizer.t_alpha_beta3=total_steps.
BUDGET = {
    "total_steps": (
        "total_steps", "num_iterations", "num_steps", "max_steps", "total_iterations",
        "training_steps", "num_training_steps", "t_total",
    ),
    "train_examples": ("num_data", "num_examples", "train_examples", "dataset_size"),
    "steps_per_epoch": ("steps_per_epoch", "num_batches_per_epoch"),
    "batch_size": (),
}  # fmt: skip


def factories_of(factory: Factory) -> list[Factory]:
    """Return the factories of all parts of an optimizer: one, or those of its rules."""
    return factory.factories if isinstance(factory, Grouped) else [factory]


def with_budget(factory: Factory, budget: Mapping[str, int]) -> Factory:
    """Return the factory with the arguments that the budget gives.

    budget: the numbers, by keys of BUDGET.
    """
    if isinstance(factory, Grouped):
        groups = {name: _rule(rule, budget) for name, rule in factory.groups.items()}
        return Grouped(with_budget(factory.factory, budget), groups)
    cls, given = unwrap(factory)
    found = {
        key: budget[value]
        for key, value in given.items()
        if isinstance(value, str) and value in budget
    }
    for parameter in arguments(cls)[1:] if callable(cls) else ():
        if parameter.default is Parameter.empty and parameter.name not in given:
            for key, names in BUDGET.items():
                if parameter.name in names and key in budget:
                    found[parameter.name] = budget[key]
    return partial(factory, **found) if found else factory


def _rule(rule: Any, budget: Mapping[str, int]) -> Any:
    if not isinstance(rule, Mapping) or not callable(rule.get("optimizer")):
        return rule
    return {**rule, "optimizer": with_budget(rule["optimizer"], budget)}
