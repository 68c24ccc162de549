"""Tell runs of older code or data by `run.json` alone, without importing user code.

`optbench.runs.own_code` defines the code of a run.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optbench.formats.keys import GROUPS
from optbench.formats.record import FINISHED, RunRecord

# `{_target_: hydra.utils.get_method, path: losses.mine}` gives what `path` names
GETTERS = ("get_class", "get_method", "get_static_method", "get_object")
UNKNOWN = "unknown-"  # begins the digest of code without source
# reasons for leaving runs out
CHANGED = "before {} changed"
NOT_KEPT = "before optbench told versions of {} apart"
NO_SOURCE = "by another process with {}, which may have changed"
Code = dict[str, dict[str, str]]  # by target: digests of files, versions of distributions
Record = tuple[Path, RunRecord]


def targets(node: object) -> Iterator[str]:
    """Yield the names of classes and functions in a configuration, nested ones too."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str):
            yield target
            if target.rpartition(".")[2] in GETTERS:
                given = [node.get("path"), *_list(node.get("_args_"))]
                yield from (text for text in given if isinstance(text, str))
        for value in node.values():
            yield from targets(value)
    for value in _list(node):
        yield from targets(value)


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def code_in(record: Mapping[str, Any]) -> Code:
    """Return the code in a record; {} for older records and for another form."""
    code = record.get("code")
    if not isinstance(code, dict):
        return {}
    return {
        target: {name: str(digest) for name, digest in files.items()}
        for target, files in code.items()
        if isinstance(files, dict)
    }


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of files and distributions in which a target's code differs."""
    both = [name for name in now if name in before and before[name] != now[name]]
    return sorted(both or [name for name in {**before, **now} if before.get(name) != now.get(name)])


def all_changes(before: Code, now: Code) -> str:
    """Return in words where the code of two runs differs; "" where it does not."""
    found = [name for target in now for name in changes(before.get(target, {}), now[target])]
    return join(list(dict.fromkeys(found)))


def sourceless(code: Code) -> list[str]:
    """Return the targets with a part without source, which equals no other run's."""
    return [
        target
        for target, files in code.items()
        if any(digest.startswith(UNKNOWN) for digest in files.values())
    ]


def newest_only(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Return the records without older code, and sentences on the left-out runs.

    Each target's newest code is that of the finished run that was started or reused last.
    """
    if not any(code_in(record) for _, record in records):
        return list(records), []
    newest: Code = {}
    finished = [record for _, record in records if record["status"] in FINISHED]
    for record in sorted(finished, key=asked_for):
        newest |= _code_by_target(record)
    kept, counts = [], dict[str, int]()
    for folder, record in records:
        changed, why = dict[str, None](), CHANGED
        for target, files in _code_by_target(record).items():
            found = changes(files, newest.get(target, files))
            changed |= dict.fromkeys(found)
            if found and not files:
                why = NOT_KEPT
            elif any(files.get(name, "").startswith(UNKNOWN) for name in found):
                why = NO_SOURCE
        if changed:
            reason = why.format(join(list(changed)))
            counts[reason] = counts.get(reason, 0) + 1
        else:
            kept.append((folder, record))
    sentences = [f"{n} run{'s' if n > 1 else ''} made {reason}" for reason, n in counts.items()]
    return kept, sentences


def newest_data_only(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Return the records without older data, and sentences on the left-out runs.

    Within a folder of runs, a file or folder of the user's own (`data.path`) has one content: that
    of the finished run that was started or reused last. A run that was started later is kept.
    """
    newest: dict[tuple[str, ...], RunRecord] = {}
    finished = [item for item in records if item[1]["status"] in FINISHED]
    for folder, record in sorted(finished, key=lambda item: asked_for(item[1])):
        if found := _own_data(folder, record):
            newest[found] = record
    kept, counts = [], dict[str, int]()
    for folder, record in records:
        found = _own_data(folder, record)
        now = newest.get(found, record)
        if _digest(record) != _digest(now) and asked_for(record) <= asked_for(now):
            counts[found[0]] = counts.get(found[0], 0) + 1
        else:
            kept.append((folder, record))
    sentences = [
        f"{n} run{'s' if n > 1 else ''} made {CHANGED.format(join([Path(path).name]))}"
        for path, n in counts.items()
    ]
    return kept, sentences


def _own_data(folder: Path, record: RunRecord) -> tuple[str, ...]:
    """Return the path of a run's own data, the folder of runs, and what else the digest is of.

    Returns () for data without a path.
    """
    path = (record["config"].get("data") or {}).get("path")
    if not path:
        return ()
    made = [record["problem"].get(key) for key in ("dataset", "data", "preprocessing")]
    return str(path), str(folder.parent), json.dumps(made, sort_keys=True, default=str)


def _digest(record: RunRecord) -> Any:
    return record["problem"].get("data_digest")


def _code_by_target(record: RunRecord) -> Code:
    """Return the code of each target; {} for torch's targets and for older records."""
    groups = {key: record["config"].get(key) for key in GROUPS}
    return {target: {} for target in targets(groups)} | code_in(record)


def asked_for(record: RunRecord) -> float:
    """Return when a command last asked for the run, in seconds since 1970."""
    return max(moment(record.get(key)) for key in ("started", "reused"))


def moment(text: object) -> float:
    """Return a time in ISO format as seconds since 1970; -inf for other text."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return -math.inf
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def join(names: Sequence[str]) -> str:
    """Return "a, b and c", with ? for characters that cannot be printed."""
    shown = ["".join(c if c.isprintable() else "?" for c in name) for name in names]
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))
