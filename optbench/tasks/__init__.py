"""Tasks: the kinds of targets, and how a model's outputs are judged by them."""

from typing import Any

from optbench.tasks.kinds import (
    IGNORED,
    Binary,
    Bytes,
    Characters,
    Classes,
    Inputs,
    Task,
    Tokens,
    Values,
)
from optbench.tasks.label_sequences import LabelSequences
from optbench.tasks.several import Several

__all__ = [
    "IGNORED",
    "KINDS",
    "Binary",
    "Bytes",
    "Characters",
    "Classes",
    "Inputs",
    "LabelSequences",
    "Several",
    "Task",
    "Tokens",
    "Values",
    "from_plain",
    "to_plain",
]

KINDS: dict[str, type[Task]] = {
    cls.__name__: cls
    for cls in (Classes, Binary, Inputs, Values, Tokens, Characters, Bytes, LabelSequences, Several)
}


def to_plain(task: Task) -> dict[str, Any]:
    """Return a task as plain values, for `from_plain` in another process."""
    settings = dict(vars(task))
    if isinstance(task, Several):
        settings["parts"] = [(name, to_plain(part)) for name, part in task.parts]
    return {"kind": type(task).__name__, **settings}


def from_plain(plain: dict[str, Any]) -> Task:
    """Return the task of `to_plain`."""
    settings = {key: value for key, value in plain.items() if key != "kind"}
    if plain["kind"] == Several.__name__:
        settings["parts"] = tuple((name, from_plain(part)) for name, part in plain["parts"])
    return KINDS[plain["kind"]](**settings)
