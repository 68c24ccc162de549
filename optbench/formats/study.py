"""The files beside a sweep's runs: `figure.json`, and a study's `study.json`."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from optbench.common.errors import UserError
from optbench.formats.job_list import FIGURE_FILE, MANIFEST_FILE, is_texts
from optbench.formats.keys import KEYS, SERIES_KEYS, settled
from optbench.formats.older_code import Record
from optbench.formats.record import FINISHED
from optbench.formats.run import read_sealed

if TYPE_CHECKING:
    import pandas as pd  # takes a third of a second

Reader = Callable[[Path], dict[str, Any]]
SearchKey = tuple[str, str, int]  # problem, optimizer, number of the repeated search


class Protocol(NamedTuple):
    """How trials were judged."""

    metric: str = "val_loss"
    pick: str = "final"


def figure_of(folders: Sequence[Path]) -> dict[str, object]:
    """Return the `figure` config in the folders of sweeps; {} where folders disagree."""
    found: list[dict[str, object]] = []
    for path in (folder / FIGURE_FILE for folder in folders):
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
    """Raise ValueError where the options of a figure have wrong types."""
    facet = figure.get("facet")
    if isinstance(facet, list) and all(isinstance(key, str) for key in facet):
        facet = None
    texts = {key: figure.get(key) for key in ("x", "y", "lines", "candidate")}
    baseline = figure.get("baseline")
    if not isinstance(baseline, str | None) and not is_texts(baseline):
        raise ValueError(f"names {baseline!r} as the baseline")
    for key, value in (texts | {"facet": facet}).items():
        if not isinstance(value, str | None):
            raise ValueError(f"names {value!r} as the figure's {key}")
    if not isinstance(figure.get("log"), bool | None):
        raise ValueError(f"has {figure['log']!r} for log, which is true or false")
    for key in ("target", "style", "columns"):
        if isinstance(figure.get(key), list | dict):
            raise ValueError(f"has {figure[key]!r} for the figure's {key}")


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a tuned study's manifest. Raise OSError, or ValueError for another form."""
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
    """Return whether an entry has the form of a contender."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("optimizer"), str)
        and isinstance(entry.get("problem"), str | None)
        and isinstance(entry.get("setting"), str | None)
        and isinstance(entry.get("trials"), list)
        and all(isinstance(trial, dict) for trial in entry["trials"])
        and all(is_texts(trial_ids(trial)) for trial in entry["trials"])
        and isinstance(entry.get("repeat", 0), int)
    )


def entries_in(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a manifest's entries, those of earlier calls last."""
    return [*manifest["contenders"], *manifest["earlier"]]


def trial_ids(trial: Mapping[str, Any]) -> Any:
    """Return the run ids of a trial in a manifest.

    Earlier versions wrote a single `run_id`.
    """
    return trial.get("run_ids", [trial["run_id"]] if trial.get("run_id") else [])


def setting_of(record: Mapping[str, Any]) -> str:
    """Return a hash of a run's setting, which a trial and its repetitions share.

    The search space is left out, since the hash describes one setting.
    """
    config = record["config"]
    # a later key with its earlier value is left out, so that the hash is that of earlier versions
    sides = {
        key: config.get(key)
        for key in SERIES_KEYS
        if KEYS[key].before is ... or config.get(key, KEYS[key].before) != KEYS[key].before
    }
    for group in ("optimizer", "schedule"):
        if isinstance(side := sides[group], dict):
            sides[group] = settled(side)
    return hashlib.sha256(json.dumps(sides, sort_keys=True).encode()).hexdigest()[:12]


def current(records: Sequence[Record], read: Reader = read_manifest) -> list[Record]:
    """Return the records without trials and settings that a tuned study has replaced.

    A study that is repeated with more trials, or another method, may choose another setting. The
    runs of the old choice stay in the folder, but no comparison may use them. Runs that the
    manifest does not know (another optimizer, an older format) are kept. read: `read_manifest`.
    """
    known: dict[Path, dict[SearchKey, tuple[set[str], set[str]]]] = {}
    kept = []
    for folder, record in records:
        phase = record["config"].get("phase")
        if phase == "rungs":
            continue  # shorter than the study's problem: they only choose the trials that go on
        if phase in ("trials", "tuned"):
            study = folder.resolve().parent.parent
            if study not in known:
                known[study] = choices(study / MANIFEST_FILE, read)
            repeat = record["config"].get("repeat") or 0
            told = known[study].get((record["problem_hash"], record["name"], repeat))
            own = record["run_id"] if phase == "trials" else setting_of(record)
            finished = record["status"] in FINISHED
            if told and own not in told[phase == "tuned"] and (finished or phase == "tuned"):
                continue
        kept.append((folder, record))
    return kept


def choices(path: Path, read: Reader) -> dict[SearchKey, tuple[set[str], set[str]]]:
    """Return a manifest's run ids and chosen settings for each search."""
    try:
        manifest = read(path)
    except (OSError, ValueError):
        return {}  # `manifests_of` raises a `UserError` for such a manifest
    found: dict[SearchKey, tuple[set[str], set[str]]] = {}
    for entry in entries_in(manifest):
        if entry.get("problem"):
            key = (entry["problem"], entry["optimizer"], entry.get("repeat", 0))
            trials, settings = found.setdefault(key, (set(), set()))
            trials |= {one for trial in entry["trials"] for one in trial_ids(trial)}
            settings |= {entry["setting"]} if entry.get("setting") else set()
    return found


def manifests_of(
    folders: Sequence[Path], table: "pd.DataFrame", read: Reader = read_manifest
) -> list[dict[str, Any]]:
    """Return the manifests of tuned studies in `folders`, or around the table's runs.

    A study's runs lie in STUDY/PHASE/RUN, so that a folder above or below the study also finds its
    manifest. read: `read_manifest`.
    """
    studies = {folder.resolve(): None for folder in folders}
    if "phase" in table:
        runs = table.loc[table["phase"].astype(str) != "null", "run"].unique()
        studies |= {Path(str(run)).resolve().parent.parent: None for run in runs}
    found, problems = [], set(table["problem"].astype(str)) if "problem" in table else set()
    for path in (study / MANIFEST_FILE for study in studies):
        if path.exists():
            try:
                found.append(about(read(path), problems))
            except (OSError, ValueError) as error:
                raise UserError(f"{path} is damaged: it {error}. Run the study again") from None
    return found


def about(manifest: dict[str, Any], problems: set[str]) -> dict[str, Any]:
    """Return the manifest without warnings about other problems' trials."""
    own: list[str] = []
    others: list[str] = []
    for entry in entries_in(manifest):
        here = entry.get("problem") is None or entry["problem"] in problems
        (own if here else others).extend(entry.get("warnings", []))
    kept = [text for text in manifest["warnings"] if text in own or text not in others]
    return manifest | {"warnings": kept}


def protocol_of(manifests: Sequence[dict[str, Any]]) -> Protocol:
    """Return how the studies judged their trials; the default where they differ."""
    default = Protocol()
    found = {
        Protocol(str(told.get("metric", default.metric)), str(told.get("pick", default.pick)))
        for told in (manifest["tuning"] for manifest in manifests)
    }
    return found.pop() if len(found) == 1 else default
