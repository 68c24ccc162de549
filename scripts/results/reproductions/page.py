"""The page of a study, and the index of all."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np

from optbench.common.text import count
from scripts.results.reproductions.checks import SMOOTHED, Check, Crossing
from scripts.results.reproductions.studies import Study
from scripts.tables import markdown

MADE = "<!-- Made by `python -m scripts.results.reproductions`. -->"
SENTENCES = {
    "reproduced": "**Reproduced**: all {n} checks held.",
    "partly": "**Partly reproduced**: {held} of {n} checks held.",
    "not": "**Not reproduced**: {held} of {n} checks held.",
    "fit": "**A fit**, by which settings were chosen: {held} of {n} checks held.",
}


LABELS = {
    "reproduced": "reproduced",
    "partly": "partly reproduced",
    "not": "not reproduced",
    "fit": "chose settings for others",
}


CONTROL_SENTENCES = {
    True: "**Red, as it must be**: {held} of {n} checks held.",
    False: "**A failure of the checks**: {held} of {n} checks held on a wrong study.",
}


class Result(NamedTuple):
    """What the runs of a study gave."""

    study: Study
    form: str
    checks: list[Check]
    verdict: str
    runs: int
    seconds: float  # of all runs together
    machine: str
    other: list[Check]  # by another reading of the published axis
    crossings: list[Crossing]  # of curves that change places

    @property
    def is_control(self) -> bool:
        """Return whether the study has a mistake on purpose, so that it must fail."""
        return bool(self.study.spec.get("control"))

    @property
    def took(self) -> str:
        """Return the time of all runs in words."""
        if self.seconds < 5400:
            return f"{self.seconds / 60:.1f} minutes"
        return f"{self.seconds / 3600:.1f} hours"


def page(result: Result) -> str:
    """Return the page of a study in Markdown."""
    study, spec = result.study, result.study.spec
    held = sum(check.held for check in result.checks)
    text = SENTENCES[result.verdict]
    if result.is_control:
        text = CONTROL_SENTENCES[result.verdict == "not"]
    sentence = text.format(n=len(result.checks), held=held)
    lines = [
        f"# {spec['title']}",
        "",
        MADE,
        "",
        fill(f"{sentence} {' '.join(spec['about'].split())}", 99),
        "",
        "![Our curves over the published ones](figure.png)",
        "",
        f"Source: {spec['source']}. {published_file(spec)}",
        "",
        *drift(spec),
        "## Checks",
        "",
        fill(
            "Distance and limit of a curve or table: mean or median absolute log error, so that "
            "0.1 is about 10 %. The limits stood in the study's YAML before its runs.",
            99,
        ),
        "",
        *markdown([row(check) for check in result.checks]),
        "",
        *other_reading(result),
        *crossings(result),
        "## What differs from the original",
        "",
        *(
            fill(f"- {' '.join(text.split())}", 99, subsequent_indent="  ")
            for text in differs(spec)
        ),
        "",
        "## Settings and commands",
        "",
        *(f"- `{key}`: {value}" for key, value in settings(study).items()),
        "",
        f"These runs are of the **{result.form} form**: {result.runs} runs, {result.took} of one "
        f"thread's time beside other work on {result.machine}.",
        "",
        *commands(study),
        "",
        "`runs.csv.xz` holds the runs; `python -m scripts.results.reproductions "
        f"{study.name}` makes this page from them.",
        "",
    ]
    return "\n".join(lines)


def other_reading(result: Result) -> list[str]:
    """Return the checks by another reading of the axis, which decide nothing."""
    if not result.other:
        return []
    what = result.study.spec["other_reading"]["what"]
    lines = [f"By the other reading, {what}, which decides nothing here:", ""]
    return [*lines, *markdown([row(check) for check in result.other]), ""]


def crossings(result: Result) -> list[str]:
    """Return where curves change places, in the published figure and in ours."""
    if not result.crossings:
        return []
    rows = [
        {"curves": one.pair, "published": pass_of(one.published), "ours": pass_of(one.ours)}
        for one in result.crossings
    ]
    published = [one for one in result.crossings if np.isfinite(one.published)]
    ours = sum(np.isfinite(one.ours) for one in published)
    text = (
        f"Pairs of curves that change places between the first and the last order above, and the x "
        f"of their last crossing (of moving means of {SMOOTHED} points). Of "
        f"{count(len(published), 'published crossing')} ours has {ours}."
    )
    return ["## Crossings", "", fill(text, 99), "", *markdown(rows), ""]


def pass_of(x: float) -> str:
    """Return the x of a crossing as text."""
    return f"{x:g}" if np.isfinite(x) else "none"


def drift(spec: Mapping[str, Any]) -> list[str]:
    """Return the figure of the last hidden layer's inputs, where the study has one."""
    if "drift" not in spec:
        return []
    text = fill(
        "The 15th, 50th and 85th percentiles of what the last hidden layer's "
        f"{spec['drift']} takes, over the training (the original prints no numbers of them):",
        99,
    )
    return [text, "", "![Percentiles of the last hidden layer's inputs](drift.png)", ""]


def commands(study: Study) -> list[str]:
    """Return the commands of both forms."""
    lines = [f"    {study.command('full')}"]
    if study.spec.get("short"):
        lines += [f"    {study.command('short')}    # short form"]
    return lines


def row(check: Check) -> dict[str, object]:
    """Return a check as a row of the page's table."""
    return {
        "check": check.what,
        "published": check.published,
        "ours": check.ours,
        "distance": f"{check.distance:.3g}",
        "limit": f"{check.limit:g}",
        "held": "yes" if check.held else "**no**",
    }


def settings(study: Study) -> dict[str, Any]:
    """Return the swept settings of the study's YAML."""
    params: dict[str, Any] = study.config["hydra"]["sweeper"]["params"]
    return params


def differs(spec: Mapping[str, Any]) -> Sequence[str]:
    """Return the deviations from the original; at least one, as no copy is exact."""
    found: Sequence[str] = spec["deviations"]
    return found


def published_file(spec: Mapping[str, Any]) -> str:
    """Return a sentence on the published values."""
    if spec["published"] is None:
        return "The original prints no numbers to compare with: the checks are its statements."
    file = f"{spec['published']['file']}.csv"
    return f"Published values: [{file}](../published/{file})."


def index(results: Sequence[Result]) -> str:
    """Return the index: a row for each study."""
    rows = []
    for result in results:
        worst = max(result.checks, key=lambda check: (not check.held, check.distance))
        rows.append(
            {
                "figure": f"[{result.study.spec['title']}]({result.study.name}/README.md)",
                "published (worst check)": f"{worst.what}: {worst.published}",
                "ours": worst.ours,
                "distance (limit)": f"{worst.distance:.3g} ({worst.limit:g})",
                "checks held": f"{sum(c.held for c in result.checks)} of {len(result.checks)}",
                "verdict": result.verdict + " (a control)" * result.is_control,
                "time": result.took,
                "form": result.form,
            }
        )
    counts = [
        f"{sum(r.verdict == word and not r.is_control for r in results)} {label}"
        for word, label in LABELS.items()
    ]
    controls = sum(result.is_control for result in results)
    return "\n".join(
        [
            "# Published figures, rebuilt",
            "",
            MADE,
            "",
            fill(
                f"Of {len(results)} studies: {', '.join(counts)}, {controls} a control with a "
                "mistake on purpose, which must fail. Each is a study of "
                "`conf/study/reproductions`, whose YAML states the checks and their limits. A "
                "figure is reproduced where all its checks held, partly where half of them did. "
                "Published values are drawn grey. The table shows the check that missed by most, "
                "or the farthest where all held.",
                99,
            ),
            "",
            *markdown(rows),
            "",
            "The published numbers are digitised from the papers' vector graphics, or copied from "
            "their tables:",
            "[published](published/README.md).",
            "",
        ]
    )


def machine_of(record: Mapping[str, Any]) -> str:
    """Return the processor that made a run, by its run.json."""
    machine = record.get("machine") or {}
    return f"{machine.get('cpu', 'an unnamed processor')} ({machine.get('cores', '?')} cores)"
