"""What stands beside the runs of a sweep: `figure.json`, and a tuned study's `study.json`."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from optbench.common.errors import UserError
from optbench.formats.job_list import is_texts
from optbench.formats.keys import SERIES_KEYS
from optbench.formats.older_code import Record
from optbench.formats.run import read_sealed

MANIFEST = "study.json"  # a tuned study's folder holds what was tried and chosen
FIGURE = "figure.json"  # a sweep's folder says how its figure is drawn
Reader = Callable[[Path], dict[str, Any]]


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
                found.append(read_sealed(path))
                check_options(found[-1])
            except (OSError, ValueError) as error:
                what = "cannot be read" if isinstance(error, OSError) else error
                raise UserError(
                    f"{path} is damaged: it {what}. It holds the figure's options: delete it to "
                    f"draw with the defaults"
                ) from None
    return found[0] if found and all(figure == found[0] for figure in found) else {}


def check_options(figure: Mapping[str, object]) -> None:
    """Raise ValueError where the options of a figure cannot be meant as such."""
    facet = figure.get("facet")
    if isinstance(facet, list) and all(isinstance(key, str) for key in facet):
        facet = None
    texts = {"x": figure.get("x"), "y": figure.get("y"), "lines": figure.get("lines")}
    for key, value in (texts | {"facet": facet}).items():
        if not isinstance(value, str | None):
            raise ValueError(f"names {value!r} as the figure's {key}")
    if not isinstance(figure.get("log"), bool | None):
        raise ValueError(f"has {figure['log']!r} for log, which is true or false")
    for key in ("target", "style", "columns"):
        if isinstance(figure.get(key), list | dict):
            raise ValueError(f"has {figure[key]!r} for the figure's {key}")


def read_manifest(path: Path) -> dict[str, Any]:
    """A tuned study's manifest. Raises OSError, and ValueError where it has not the form of one."""
    manifest = read_sealed(path)
    manifest = {"tuning": {}, "phases": {}, "contenders": [], "earlier": []} | manifest
    phases = manifest["phases"]
    if not (
        is_texts(manifest.get("warnings"))
        and isinstance(manifest["tuning"], dict)
        and isinstance(phases, dict)
        and all(isinstance(phase, dict) for phase in phases.values())
        and all(isinstance(phase.get("jobs"), dict) for phase in phases.values())
        and all(is_texts(phase["jobs"].get("missing")) for phase in phases.values())
        and isinstance(manifest["contenders"], list)
        and isinstance(manifest["earlier"], list)
        and all(map(_is_entry, [*manifest["contenders"], *manifest["earlier"]]))
    ):
        raise ValueError("has not the form of a study's manifest")
    return manifest


def _is_entry(entry: object) -> bool:
    """Whether this tells of an optimizer, its trials and its choice."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("optimizer"), str)
        and isinstance(entry.get("problem"), str | None)
        and isinstance(entry.get("setting"), str | None)
        and isinstance(entry.get("trials"), list)
        and all(isinstance(trial, dict) for trial in entry["trials"])
        and all(isinstance(trial.get("run_id"), str | None) for trial in entry["trials"])
    )


def setting_of(record: Mapping[str, Any]) -> str:
    """A hash of the optimizer's side of a run's record: the same for a trial and its repetitions.

    The search space is no part of it: it says what is tried, not what was.
    """
    config = record["config"]
    sides = {key: config.get(key) for key in SERIES_KEYS}
    if isinstance(sides["optimizer"], dict):
        sides["optimizer"] = {k: v for k, v in sides["optimizer"].items() if k != "search"}
    return hashlib.sha256(json.dumps(sides, sort_keys=True).encode()).hexdigest()[:12]


def current(records: Sequence[Record], read: Reader = read_manifest) -> list[Record]:
    """The records less those of trials and settings that a tuned study has since replaced.

    A study that is repeated with more trials, or another method, may choose another setting; the
    runs of the old choice stay in its folder, where a comparison must not meet them. What the
    manifest knows nothing of (another optimizer, an older format) is kept. read: `read_manifest`.
    """
    known: dict[Path, dict[tuple[str, str], tuple[set[str], set[str]]]] = {}
    kept = []
    for folder, record in records:
        phase = record["config"].get("phase")
        if phase in ("trials", "tuned"):
            study = folder.resolve().parent.parent
            if study not in known:
                known[study] = choices(study / MANIFEST, read)
            told = known[study].get((record["problem_hash"], record["name"]))
            own = record["run_id"] if phase == "trials" else setting_of(record)
            finished = record["status"] in ("completed", "diverged")
            if told and own not in told[phase == "tuned"] and (finished or phase == "tuned"):
                continue
        kept.append((folder, record))
    return kept


def choices(path: Path, read: Reader) -> dict[tuple[str, str], tuple[set[str], set[str]]]:
    """By problem and optimizer, the run ids of a manifest's trials and the settings it chose."""
    try:
        manifest = read(path)
    except (OSError, ValueError):
        return {}  # `manifests_of` says what is wrong with it
    found: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
    for entry in [*manifest["contenders"], *manifest["earlier"]]:
        if entry.get("problem"):
            key = (entry["problem"], entry["optimizer"])
            trials, settings = found.setdefault(key, (set(), set()))
            trials |= {trial["run_id"] for trial in entry["trials"] if trial.get("run_id")}
            settings |= {entry.get("setting")} - {None}
    return found


def manifests_of(
    folders: Sequence[Path], table: pd.DataFrame, read: Reader = read_manifest
) -> list[dict[str, Any]]:
    """The manifests of the tuned studies that were given, or that runs of the table are part of.

    A study's runs lie in STUDY/PHASE/RUN, so that a folder above or below the study finds it too.
    read: `read_manifest`.
    """
    studies = {folder.resolve(): None for folder in folders}
    if "phase" in table:
        runs = table.loc[table["phase"].astype(str) != "null", "run"].unique()
        studies |= {Path(str(run)).resolve().parent.parent: None for run in runs}
    found, problems = [], set(table["problem"].astype(str)) if "problem" in table else set()
    for path in (study / MANIFEST for study in studies):
        if path.exists():
            try:
                found.append(about(read(path), problems))
            except (OSError, ValueError) as error:
                raise UserError(f"{path} is damaged: it {error}. Run the study again") from None
    return found


def about(manifest: dict[str, Any], problems: set[str]) -> dict[str, Any]:
    """The manifest without the warnings that are of other problems' trials alone."""
    own: list[str] = []
    others: list[str] = []
    for entry in [*manifest["contenders"], *manifest["earlier"]]:
        here = entry.get("problem") is None or entry["problem"] in problems
        (own if here else others).extend(entry.get("warnings", []))
    kept = [text for text in manifest["warnings"] if text in own or text not in others]
    return manifest | {"warnings": kept}


def protocol_of(manifests: Sequence[dict[str, Any]]) -> Protocol:
    """How the studies' trials were judged; the default where they differ, or do not say."""
    default = Protocol()
    found = {
        Protocol(str(told.get("metric", default.metric)), str(told.get("pick", default.pick)))
        for told in (manifest["tuning"] for manifest in manifests)
    }
    return found.pop() if len(found) == 1 else default
