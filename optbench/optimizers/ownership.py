"""Which group, and which optimizer, each parameter of a model belongs to."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn
from torch.optim import Optimizer

from optbench.optimizers.grouped import Grouped
from optbench.optimizers.layers import LayerParameter, layer_parameters
from optbench.optimizers.muon import MuonWithAdamW
from optbench.optimizers.parts import parameters_of
from optbench.optimizers.rules import assign

MUON_RULES = {"Muon": "hidden matrices", "AdamW": "all others"}


class Owner(NamedTuple):
    """A parameter with the group that owns it.

    group: the rule's name; of an optimizer without rules, a number. rule: its conditions in words.
    lr, weight_decay: of the group; None where it has none, and for a frozen parameter.
    """

    parameter: str
    shape: tuple[int, ...]
    kind: str
    depth: int
    group: str
    rule: str
    optimizer: str
    lr: float | None
    weight_decay: float | None


def owners(
    factory: Callable[..., Optimizer], optimizer: Optimizer, model: nn.Module
) -> list[Owner]:
    """Return the owner of each trained parameter, in the model's order.

    factory: from which `optimizers.build` made the optimizer for the model.
    """
    entries = layer_parameters(model)
    rules: dict[str, tuple[str, str]] = {}
    if isinstance(factory, Grouped):
        for matching, own in assign(factory.rules, entries):
            rules |= {entry.name: (matching.name, matching.words()) for entry in own}
    places = {
        id(p): (number, group)
        for number, group in enumerate(optimizer.param_groups, start=1)
        for p in group["params"]
    }
    parts = getattr(optimizer, "parts", [optimizer])
    names = {id(p): type(part).__name__ for part in parts for p in parameters_of(part)}
    found = []
    for entry in entries:
        number, group = places[id(entry.parameter)]
        name = names[id(entry.parameter)]
        rule = rules.get(entry.name, (str(number), _words(optimizer, name, entry)))
        found.append(
            Owner(
                entry.name,
                tuple(entry.parameter.shape),
                entry.kind,
                entry.depth,
                *rule,
                name,
                _number(group.get("lr")),
                _number(group.get("weight_decay")),
            )
        )
    return found


def _words(optimizer: Optimizer, part: str, entry: LayerParameter) -> str:
    """Return in words why a parameter is in its group, of an optimizer without rules."""
    if isinstance(optimizer, MuonWithAdamW):
        return MUON_RULES[part]
    if len(optimizer.param_groups) > 1:
        return "weights" if entry.dims >= 2 else "biases and norms"
    return "all"


def _number(value: Any) -> float | None:
    return None if value is None or isinstance(value, bool) else float(value)
