"""What stands beside the runs of a sweep: `figure.json`, and a tuned study's `study.json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from optbench.errors import UserError

MANIFEST = "study.json"  # a tuned study's folder holds what was tried and chosen
FIGURE = "figure.json"  # a sweep's folder says how its figure is drawn


class Protocol(NamedTuple):
    """How trials were judged."""

    metric: str = "val_loss"
    pick: str = "final"


def figure_of(folders: Sequence[Path]) -> dict[str, object]:
    """The `figure` config that a sweep left in its folder; nothing where folders disagree."""
    found: list[dict[str, object]] = []
    for path in (folder / FIGURE for folder in folders):
        if path.exists():
            try:
                found.append(dict(json.loads(path.read_text("utf-8"))))
            except (OSError, ValueError, TypeError) as error:
                raise UserError(
                    f"{path} is damaged ({error}); it holds the figure's options: delete it to "
                    f"draw with the defaults"
                ) from None
    return found[0] if found and all(figure == found[0] for figure in found) else {}


def manifests_of(folders: Sequence[Path], table: pd.DataFrame) -> list[dict[str, Any]]:
    """The manifests of the tuned studies that were given, or that runs of the table are part of.

    A study's runs lie in STUDY/PHASE/RUN, so that a folder above or below the study finds it too.
    """
    studies = {folder.resolve(): None for folder in folders}
    if "phase" in table:
        runs = table.loc[table["phase"].astype(str) != "null", "run"].unique()
        studies |= {Path(str(run)).resolve().parent.parent: None for run in runs}
    found = []
    for path in (study / MANIFEST for study in studies):
        if path.exists():
            try:
                manifest = json.loads(path.read_text("utf-8"))
                manifest["warnings"] = [str(text) for text in manifest["warnings"]]
                found.append(manifest)
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise UserError(f"{path} is damaged ({error}); run the study again") from None
    return found


def protocol_of(manifests: Sequence[dict[str, Any]]) -> Protocol:
    """How the studies' trials were judged; the default where they differ, or do not say."""
    default = Protocol()
    found = {
        Protocol(str(told.get("metric", default.metric)), str(told.get("pick", default.pick)))
        for told in (manifest.get("tuning", {}) for manifest in manifests)
    }
    return found.pop() if len(found) == 1 else default
