"""Rules that give each parameter of a model its group.

A rule is a mapping. Its conditions, which must all hold, are `kind` (of `layers.KINDS`), `name` (a
pattern such as "blocks.*.weight"), `dims` (numbers of dimensions) and `depth` (numbers from 0; -1
is the last). Each is one value or a list. A rule without conditions takes what no other rule takes.
The other entries are settings: `lr_factor`, `lr_decay`, `flatten`, `optional`, `optimizer`, and any
argument of the group's optimizer, such as `weight_decay`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch.optim import Optimizer

from optbench.common.errors import UserError, check_choice
from optbench.common.names import did_you_mean
from optbench.optimizers.layers import KINDS, LayerParameter

CONDITIONS = ("kind", "name", "dims", "depth")
FACTORS = ("lr_factor", "lr_decay")
SWITCHES = ("flatten", "optional")
MOST_NAMED = 3  # parameters in a message


@dataclass(frozen=True)
class Rule:
    """One rule, in the form that `parse` gives it.

    optimizer: makes the optimizer of these parameters; None: the main optimizer takes them.
    lr_factor: multiplies the lr of the rule, else of its own optimizer, else of the main one.
    lr_decay: multiplies that lr once more for each step of depth before the model's last
    (layer-wise decay). flatten: kernels are seen as matrices. optional: a model may have no such
    parameter. settings: arguments.
    """

    name: str
    conditions: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    optimizer: Callable[..., Optimizer] | None = None
    lr_factor: float = 1.0
    lr_decay: float = 1.0
    flatten: bool = False
    optional: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def takes(self, entry: LayerParameter, last_depth: int) -> bool:
        """Return whether all conditions hold for a parameter."""
        return all(self._holds(key, entry, last_depth) for key in self.conditions)

    def _holds(self, key: str, entry: LayerParameter, last_depth: int) -> bool:
        wanted = self.conditions[key]
        if key == "name":
            return any(fnmatchcase(entry.name, str(pattern)) for pattern in wanted)
        if key == "depth":
            return entry.depth in [d if d >= 0 else last_depth + 1 + d for d in wanted]
        return getattr(entry, key) in wanted

    def words(self) -> str:
        """Return the conditions as text, such as "kind=linear, dims=2"."""
        texts = [f"{key}={'/'.join(map(str, value))}" for key, value in self.conditions.items()]
        return ", ".join(texts) or "all others"


def parse(groups: object) -> list[Rule]:
    """Return the rules that a mapping names. Raise `UserError` for what is no rule."""
    if not isinstance(groups, Mapping) or not groups:
        raise UserError(
            f"optimizer.groups maps names to rules, as in groups: {{head: {{kind: head, lr_factor: "
            f"0.1}}, others: {{}}}}, and is {groups!r}"
        )
    rules = [_rule(str(name), given) for name, given in groups.items() if given != "none"]
    rest = [rule.name for rule in rules if not rule.conditions]
    if len(rest) > 1:
        raise UserError(
            f"the groups {' and '.join(rest)} have no condition, and each would take all "
            f"parameters that no other takes: keep one of them, or give the others a condition "
            f"({', '.join(CONDITIONS)})"
        )
    return rules


def _rule(name: str, given: object) -> Rule:
    key = f"optimizer.groups.{name}"
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise UserError(f"{key} is a rule such as {{kind: head, lr_factor: 0.1}}, not {given!r}")
    conditions = {
        condition: _listed(given[condition])
        for condition in CONDITIONS
        if given.get(condition) is not None
    }
    for kind in conditions.get("kind", ()):
        check_choice(f"{key}.kind", kind, KINDS)
    for condition in ("dims", "depth"):
        for number in conditions.get(condition, ()):
            if not isinstance(number, int) or isinstance(number, bool):
                raise UserError(f"{key}.{condition} holds whole numbers, not {number!r}")
    factors = {factor: given.get(factor, 1.0) for factor in FACTORS}
    for factor, value in factors.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            raise UserError(f"{key}.{factor} must be a number of at least 0, not {value!r}")
    switches = {switch: given.get(switch, False) for switch in SWITCHES}
    for switch, value in switches.items():
        if not isinstance(value, bool):
            raise UserError(f"{key}.{switch} must be true or false, not {value!r}")
    optimizer = given.get("optimizer")
    if optimizer is not None and not callable(optimizer):
        raise UserError(
            f"{key}.optimizer names a class, as in {{_target_: torch.optim.AdamW}}, and is "
            f"{optimizer!r}"
        )
    known = (*CONDITIONS, *FACTORS, *SWITCHES, "optimizer")
    settings = {k: v for k, v in given.items() if k not in known}
    for setting in settings:
        if near := did_you_mean(setting, known):
            raise UserError(f"unknown key {key}.{setting}{near}")
    return Rule(name, conditions, optimizer, **factors, **switches, settings=settings)


def _listed(value: object) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def assign(
    rules: Sequence[Rule], entries: Sequence[LayerParameter]
) -> list[tuple[Rule, list[LayerParameter]]]:
    """Return each rule with its parameters, in the order of the rules.

    Raises `UserError` unless each parameter has exactly one rule and each rule a parameter.
    """
    last = max((entry.depth for entry in entries), default=0)
    owners: dict[str, list[Rule]] = {
        entry.name: [rule for rule in rules if rule.conditions and rule.takes(entry, last)]
        for entry in entries
    }
    rest = [rule for rule in rules if not rule.conditions]
    for name, own in owners.items():
        if len(own) > 1:
            raise UserError(
                f"the parameter {name} is in {len(own)} groups, "
                f"{' and '.join(f'{rule.name} ({rule.words()})' for rule in own)}: make their "
                f"conditions exclude each other, since a parameter in two groups is moved twice"
            )
    lacking = [name for name, own in owners.items() if not own]
    if lacking and not rest:
        raise UserError(
            f"{_some(lacking)} in no group, and would never be trained: add a group without "
            f"conditions, such as others: {{}}, which takes all that no other group takes"
        )
    found = []
    for rule in rules:
        taken = [
            entry
            for entry in entries
            if owners[entry.name] == [rule] or (not rule.conditions and not owners[entry.name])
        ]
        if not taken and rule.conditions and not rule.optional:
            raise UserError(
                f"the group {rule.name} ({rule.words()}) takes no parameter of the model, which "
                f"has {_what(rule, entries)}: correct its conditions, or take it out with "
                f"optimizer.groups.{rule.name}=none"
            )
        if taken:
            found.append((rule, taken))
    return found


def _some(names: Sequence[str]) -> str:
    """Return "the parameter a is" or "the parameters a, b, c and 4 more are"."""
    if len(names) == 1:
        return f"the parameter {names[0]} is"
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"the parameters {', '.join(names[:MOST_NAMED])}{more} are"


def _what(rule: Rule, entries: Sequence[LayerParameter]) -> str:
    """Return what the model has in place of what a rule asks for."""
    if "name" in rule.conditions:
        return f"{', '.join(entry.name for entry in entries[: 2 * MOST_NAMED])}, ..."
    texts = []
    for key in rule.conditions:
        values = dict.fromkeys(getattr(entry, key) for entry in entries)
        texts.append(f"{key}={'/'.join(map(str, sorted(values)))}")
    return ", ".join(texts)
