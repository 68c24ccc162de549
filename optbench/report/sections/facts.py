"""The facts and caveats of a comparison, as plain data for the report."""

from optbench.analysis.comparison import Comparison
from optbench.formats.keys import COSMETIC_KEYS, NO_EFFECT_KEYS


def facts(made: Comparison) -> list[list[str]]:
    """Return what was compared, as pairs of a heading and a few words."""
    runs = made.plan.runs
    seeds = [int(seed) for seed in sorted(runs["seed"].unique())]
    lines = [
        ["runs compared", str(len(runs))],
        ["optimizers", str(runs["optimizer"].nunique())],
        ["problems", str(made.table["problem"].nunique())],
        ["seeds", str(len(seeds))],
    ]
    if made.trials is not None:
        lines.insert(1, ["trials", str(made.trials["run"].nunique())])
    if made.imported:
        lines.append(["trained by", "other programs (optbench import)"])
    for key, name in (("dataset.name", "dataset"), ("model.name", "model")):
        if key in runs:
            lines.append([name, ", ".join(sorted(set(map(str, runs[key]))))])
    lines.append(
        ["kind", "tuned study" if made.phases else "sweep" if len(runs) > 1 else "single run"]
    )
    return lines


def readable(text: str) -> str:
    """Return a warning on a job without the overrides that change no result."""
    head, colon, rest = text.partition(": ")
    words = head.split(" ")  # the job's overrides, if the warning is on a job
    if not colon or not all("=" in word for word in words):
        return text
    left_out = (*COSMETIC_KEYS, *NO_EFFECT_KEYS)
    kept = [word for word in words if word.split("=")[0].split(".")[0] not in left_out]
    return f"{' '.join(kept)}: {rest}"
