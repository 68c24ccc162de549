"""Build an optimizer whose parameter groups follow rules."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn
from torch.optim import LBFGS, Optimizer

from optbench.common.errors import UserError
from optbench.optimizers.factories import (
    Factory,
    accepted_names,
    call,
    listed,
    name_of,
    unwrap,
    value_of,
)
from optbench.optimizers.layers import LayerParameter, layer_parameters
from optbench.optimizers.parts import flattened, joined
from optbench.optimizers.rules import Rule, assign, parse


@dataclass(frozen=True)
class Grouped:
    """A factory of optimizers with rules for groups, which `build` applies to a model.

    factory: makes the main optimizer, as `partial(torch.optim.AdamW, lr=1e-3)`.
    groups: names to rules; see `optbench.optimizers.rules`.
    """

    factory: Factory
    groups: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, params: Any) -> Optimizer:
        """Call the main optimizer on parameters whose layers are not known."""
        return self.factory(params)

    @property
    def rules(self) -> list[Rule]:
        """Return the rules. Raises `UserError` for what makes no rule."""
        return parse(self.groups)

    @property
    def factories(self) -> list[Factory]:
        """Return the makers of all parts, the main one first."""
        return [self.factory, *(rule.optimizer for rule in self.rules if rule.optimizer)]


class Part(NamedTuple):
    """One optimizer of several, before it is made.

    flat: see `Parted`. groups: as torch's classes take them.
    """

    factory: Factory
    flat: bool
    groups: list[dict[str, Any]]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters of all groups."""
        return [p for group in self.groups for p in group["params"]]


def build_grouped(
    grouped: Grouped,
    model: nn.Module,
    fits_fused: Callable[[Factory, Sequence[nn.Parameter]], bool],
    *,
    decay_biases_and_norms: bool,
) -> Optimizer:
    """Build the optimizers of all rules, as one.

    fits_fused: whether torch's fused kernel serves a factory and its parameters. Raises `UserError`
    where rules and model do not fit.
    """
    parts = parts_of(grouped, model, decay_biases_and_norms=decay_biases_and_norms)
    if len(parts) == 1 and not parts[0].flat:
        (part,) = parts
        return call(part.factory, part.groups, fused=fits_fused(part.factory, part.parameters))
    made = []
    for part in parts:
        fused = fits_fused(part.factory, part.parameters)
        with flattened(part.parameters) if part.flat else nullcontext():
            made.append(call(part.factory, part.groups, fused=fused))
    return joined(made, [part.flat for part in parts])


def parts_of(
    grouped: Grouped, model: nn.Module, *, decay_biases_and_norms: bool = True
) -> list[Part]:
    """Return the optimizers of all rules with their groups, before they are made."""
    assigned = assign(grouped.rules, layer_parameters(model))
    last = max(entry.depth for _, own in assigned for entry in own)
    parts: list[Part] = []
    for rule, own in assigned:
        factory = rule.optimizer or grouped.factory
        check_settings(rule, factory)
        groups = list(groups_of(rule, own, last, grouped.factory))
        if not decay_biases_and_norms:
            groups = [half for group in groups for half in split_decay(group)]
        for part in parts:
            if part.factory is factory and part.flat == rule.flatten:
                part.groups.extend(groups)
                break
        else:
            parts.append(Part(factory, rule.flatten, groups))
    return parts


def groups_of(
    rule: Rule, own: Sequence[LayerParameter], last: int, main: Factory
) -> Iterator[dict[str, Any]]:
    """Yield the groups of a rule: one, or with `lr_decay` one for each depth."""
    factory = rule.optimizer or main
    given = unwrap(factory)[1] | dict(rule.settings)
    base = given["lr"] if "lr" in given and factory is not main else value_of(main, "lr")
    base = rule.settings.get("lr", base)
    depths = sorted({entry.depth for entry in own}) if rule.lr_decay != 1 else [None]
    for depth in depths:
        mine = [entry.parameter for entry in own if depth in (None, entry.depth)]
        factor = rule.lr_factor * (1 if depth is None else rule.lr_decay ** (last - depth))
        group: dict[str, Any] = {"params": mine, **rule.settings}
        if isinstance(base, int | float):
            group["lr"] = base * factor
        elif factor != 1:
            raise UserError(
                f"optimizer.groups.{rule.name} scales lr, and {name_of(factory)} has none"
            )
        yield group


def check_settings(rule: Rule, factory: Factory) -> None:
    """Raise `UserError` for settings that a rule's optimizer lacks, and for LBFGS."""
    cls = unwrap(factory)[0]
    where = f"optimizer.groups.{rule.name}"
    accepted = accepted_names(cls)
    if unknown := [key for key in rule.settings if accepted and key not in accepted]:
        raise UserError(
            f"{where}: {name_of(factory)} does not accept {', '.join(unknown)}.{listed(accepted)}"
        )
    if cls is LBFGS:
        raise UserError(
            f"{where}: LBFGS takes a single group of parameters, and evaluates the loss itself: it "
            f"cannot share a model with other groups"
        )


def split_decay(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a group's weights, and its biases and norms with weight_decay 0."""
    for decayed in (True, False):
        own = [p for p in group["params"] if (p.ndim >= 2) == decayed]
        if own:
            yield group | {"params": own} | ({} if decayed else {"weight_decay": 0.0})
