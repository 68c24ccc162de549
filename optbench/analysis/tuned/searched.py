"""What a tuned study searched of each optimizer, and what it left at its default."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from optbench.common.text import count, enumerated, show

GIVEN = "nothing: its hyperparameters are given"
HEADS = ("optimizer", "searched", "left at their defaults")


class Searched(NamedTuple):
    """The search space of one optimizer, in words."""

    optimizer: str
    searched: str
    left: str  # "" if nothing was left at its default


def searched_spaces(manifests: Iterable[Mapping[str, Any]]) -> list[Searched]:
    """Return what the studies searched, a row per optimizer and space; earlier calls left out.

    A space that follow-up trials widened in some searches is shown as it was at first, and with its
    widest ends.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in (entry for manifest in manifests for entry in manifest["contenders"]):
        if entry.get("space") is not None:  # entries of earlier versions do not tell
            key = (str(entry["optimizer"]), repr((first_space(entry), left_of(entry))))
            groups.setdefault(key, []).append(entry)
    return [
        Searched(name, space_text(entries), left_text(left_of(entries[0])))
        for (name, _), entries in groups.items()
    ]


def first_space(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the space of an entry before its follow-up trials."""
    return entry.get("space_before") or entry["space"]


def left_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the defaults of the hyperparameters that were not searched."""
    return entry.get("not_searched") or {}


def space_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the space that the searches of an optimizer share, in words."""
    texts = []
    for name, spec in first_space(entries[0]).items():
        text = f"{name} {spec_text(spec)}"
        ends = [entry["space"].get(name, spec) for entry in entries]
        if wider := [end for end in ends if end != spec]:
            where = f"{len(wider)} of {count(len(ends), 'search', 'searches')}"
            text += f", widened to {spec_text(widest(wider), scaled=False)} in {where}"
        texts.append(text)
    return "; ".join(texts) or GIVEN


def widest(specs: Sequence[Any]) -> Any:
    """Return a range from the lowest to the highest end; of lists, a list of such ranges."""
    if isinstance(specs[0], list):
        return [widest(parts) for parts in zip(*specs, strict=True)]
    ends = {"low": min(spec["low"] for spec in specs), "high": max(spec["high"] for spec in specs)}
    return {**specs[0], **ends}


def spec_text(spec: Any, scaled: bool = True) -> str:
    """Return a range, a list of ranges, or values in words. scaled: name the scale, too."""
    parts = spec if isinstance(spec, list) else [spec]
    texts = [
        f"{{{', '.join(map(show, part['values']))}}}"
        if "values" in part
        else f"[{part['low']:g}, {part['high']:g}]"
        for part in parts
    ]
    scales = list(
        dict.fromkeys(part["scale"].replace("_", " ") for part in parts if "scale" in part)
    )
    return enumerated(texts) + (f" ({enumerated(scales)})" if scaled and scales else "")


def left_text(left: Mapping[str, Any]) -> str:
    """Return the hyperparameters left at their defaults, each with its default."""
    return ", ".join(f"{name}={show(value)}" for name, value in left.items())


def searched_text(found: Sequence[Searched]) -> str:
    """Return the searched spaces as Markdown; "" without one."""
    if not found:
        return ""
    lines = ["What was searched:", "", f"| {' | '.join(HEADS)} |", "| --- | --- | --- |"]
    lines += [f"| {' | '.join(text.replace('|', '&#124;') for text in row)} |" for row in found]
    return "\n".join(lines) + "\n"
