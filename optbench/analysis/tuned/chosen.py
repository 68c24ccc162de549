"""The setting that a tuned study would choose of each optimizer, and how far searches differ."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from optbench.analysis.comparison import Comparison
from optbench.common.metrics import metric_of
from optbench.common.text import is_number, number, show
from optbench.formats.study import trial_ids

HEADS = ("problem", "optimizer", "setting", "validation", "chosen in all searches")


class Chosen(NamedTuple):
    """The chosen setting with the best validation result, of all searches of an optimizer."""

    problem: str
    optimizer: str
    setting: str
    result: str  # the validation result
    ranges: str  # the lowest and highest chosen value of each hyperparameter


def chosen_settings(made: Comparison, name_of: Callable[[str], str]) -> list[Chosen]:
    """Return a row per problem and optimizer with a search; earlier calls are left out.

    name_of: gives a problem's name from its hash.
    """
    trials = made.of_trials
    ids = trials.table["run_id"].astype(str)
    problems = dict(zip(ids, trials.table["problem"].astype(str), strict=True))
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in (entry for manifest in made.manifests for entry in manifest["contenders"]):
        first = next(
            (one for trial in entry["trials"] for one in trial_ids(trial) if one in problems), None
        )
        if first is not None and entry.get("chosen") and entry.get("score") is not None:
            groups.setdefault((problems[first], str(entry["optimizer"])), []).append(entry)
    return [
        Chosen(
            name_of(problem),
            name,
            setting_text(min(entries, key=lambda entry: entry["score"])["chosen"]),
            result_text(min(entry["score"] for entry in entries), made.protocol.metric),
            ranges_text([entry["chosen"] for entry in entries]),
        )
        for (problem, name), entries in sorted(groups.items())
    ]


def setting_text(chosen: Mapping[str, Any]) -> str:
    """Return the values of a setting, as in "lr=0.01, momentum=0.9"."""
    return ", ".join(f"{name}={short(value)}" for name, value in chosen.items())


def short(value: Any) -> str:
    """Return a value with at most four digits; study.json has the whole numbers."""
    if isinstance(value, list):
        return f"[{', '.join(map(short, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else show(value)


def result_text(score: float, metric: str) -> str:
    """Return a validation result. score: what the search made least."""
    value = score if metric_of(metric).smaller else -score
    return f"{100 * value:.2f} %" if metric_of(metric).percent else number(value)


def ranges_text(settings: list[Mapping[str, Any]]) -> str:
    """Return the lowest and the highest chosen value of each hyperparameter."""
    if len(settings) < 2:
        return "1 search"
    texts = []
    for name in settings[0]:
        values = [setting[name] for setting in settings if name in setting]
        if all(is_number(show(value)) for value in values):
            texts.append(f"{name} {short(min(values))} to {short(max(values))}")
    return "; ".join([f"{len(settings)} searches", *texts])


def chosen_text(found: list[Chosen], metric: str) -> str:
    """Return the chosen settings as Markdown; "" without one."""
    if not found:
        return ""
    lines = [
        f"Chosen settings: of all searches the one with the best {metric_of(metric).label}. Each",
        "search's own choice is what the verdict compares.",
        "",
        f"| {' | '.join(HEADS)} |",
        f"| {' | '.join(['---'] * len(HEADS))} |",
        *(f"| {' | '.join(row)} |" for row in found),
    ]
    return "\n".join(lines) + "\n"
