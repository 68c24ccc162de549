"""What stands beside the runs of a sweep: `figure.json`, and a tuned study's `study.json`."""

import hashlib
import json
from collections.abc import Mapping, Sequence
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


def setting_of(record: Mapping[str, Any]) -> str:
    """A hash of the optimizer's side of a run's record: the same for a trial and its repetitions.

    The search space is no part of it: it says what is tried, not what was.
    """
    config = record["config"]
    sides = {key: config.get(key) for key in ("optimizer", "schedule", "decay_biases_and_norms")}
    if isinstance(sides["optimizer"], dict):
        sides["optimizer"] = {k: v for k, v in sides["optimizer"].items() if k != "search"}
    return hashlib.sha256(json.dumps(sides, sort_keys=True).encode()).hexdigest()[:12]


def current(records: Sequence[tuple[Path, dict[str, Any]]]) -> list[tuple[Path, dict[str, Any]]]:
    """The records less those of trials and settings that a tuned study has since replaced.

    A study that is repeated with more trials, or another method, may choose another setting; the
    runs of the old choice stay in its folder, where a comparison must not meet them. What the
    manifest knows nothing of (another optimizer, an older format) is kept.
    """
    known: dict[Path, dict[tuple[str, str], tuple[set[str], set[str]]]] = {}
    kept = []
    for folder, record in records:
        phase = record["config"].get("phase")
        if phase in ("trials", "tuned"):
            study = folder.resolve().parent.parent
            if study not in known:
                known[study] = choices(study / MANIFEST)
            told = known[study].get((record["problem_hash"], record["name"]))
            own = record["run_id"] if phase == "trials" else setting_of(record)
            finished = record["status"] in ("completed", "diverged")
            if told and own not in told[phase == "tuned"] and (finished or phase == "tuned"):
                continue
        kept.append((folder, record))
    return kept


def choices(path: Path) -> dict[tuple[str, str], tuple[set[str], set[str]]]:
    """By problem and optimizer, the run ids of a manifest's trials and the settings it chose."""
    try:
        manifest = json.loads(path.read_text("utf-8"))
        entries = [*manifest.get("contenders", []), *manifest.get("earlier", [])]
        found: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
        for entry in entries:
            if entry.get("problem"):
                key = (entry["problem"], entry["optimizer"])
                trials, settings = found.setdefault(key, (set(), set()))
                trials |= {trial["run_id"] for trial in entry["trials"] if trial.get("run_id")}
                settings |= {entry["setting"]} - {None}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # `manifests_of` says what is wrong with it
    return found


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
