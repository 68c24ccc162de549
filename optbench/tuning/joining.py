"""Join the manifests of one tuned study from several machines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optbench.formats.job_list import MANIFEST_FILE
from optbench.formats.study import read_manifest
from optbench.tuning import caveats


def join_manifests(folders: Sequence[Path]) -> tuple[dict[str, Any] | None, list[str]]:
    """Return one manifest from a study's folders, and a line for each contradiction.

    The folders may have different contenders. Of entries for the same search, the one with the most
    trials is kept. The manifest is None if no folder has one.
    """
    found, told = [], []
    for folder in folders:
        try:
            found.append((folder, read_manifest(folder / MANIFEST_FILE)))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            told.append(f"{folder / MANIFEST_FILE}: {error}")
    if not found:
        return None, told
    place, whole = found[0]
    for other, manifest in found[1:]:
        for key in ("tuning", "seeds"):
            if manifest.get(key) != whole.get(key):
                told.append(
                    f"{MANIFEST_FILE}: {place} (kept) and {other} have other settings for {key}"
                )
    entries: dict[tuple[Any, ...], dict[str, Any]] = {}
    for _, manifest in found:
        for entry in manifest["contenders"]:
            search = (entry["problem"], entry["optimizer"], entry.get("repeat", 0))
            known = entries.setdefault(search, entry)
            if len(entry["trials"]) > len(known["trials"]):
                entries[search] = entry
    phases = join_phases([manifest["phases"] for _, manifest in found])
    partial = {text for _, manifest in found for text in caveats.missing_runs(manifest["phases"])}
    texts = [text for _, manifest in found for text in manifest["warnings"] if text not in partial]
    return whole | {
        "phases": phases,
        "contenders": list(entries.values()),
        "earlier": [entry for _, manifest in found for entry in manifest["earlier"]],
        "warnings": [*caveats.missing_runs(phases), *dict.fromkeys(texts)],
    }, told


def join_phases(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the progress of a study's phases from that in several manifests."""
    joined = {}
    for name in dict.fromkeys(key for phases in found for key in phases):
        lists = [phases[name]["jobs"] for phases in found if name in phases]
        taken: set[str] = set()
        jobs: dict[str, list[str]] = {}
        for kind in ("done", "failed", "missing"):  # done anywhere is done
            texts = dict.fromkeys(text for each in lists for text in each.get(kind, ()))
            jobs[kind] = [text for text in texts if text not in taken]
            taken |= set(jobs[kind])
        counts = {kind: len(texts) for kind, texts in jobs.items()}
        joined[name] = {"planned": sum(counts.values()), **counts, "jobs": jobs}
    return joined
