"""Cache the records and curves of a large folder's runs in Parquet files.

Reading ten thousand runs means twenty thousand small files, each with a checksum. The cache keeps
their checked content. An entry holds only while the file's mtime, ctime, size and inode stay the
same; no program can set the ctime. A file that has changed is read and checked again. Without
pyarrow (the extra `parquet`), in a small folder, or in one that cannot be written, there is no
cache.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import numpy as np

from optbench import __version__
from optbench.formats.record import RunRecord

CACHE_FOLDER = ".cache"
MIN_RUNS = 300  # below, reading the files takes less than a second
YOUNG_SECONDS = 2.0  # a file may change again within one tick of its times
ROWS = ("epochs", "steps")  # the CSV files that are kept
VERSION = f"1 {__version__}"  # of the cache's format, and of the code that checks the files
RECORDS = "records"
Stamp = tuple[int, ...]  # mtime, ctime, size, inode


def stamp_of(path: Path) -> Stamp:
    """Return a stamp that changes whenever the file changes. Raises OSError."""
    found = path.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def times_in(stamp: Stamp) -> list[int]:
    """Return the times in a stamp of one file, or of several."""
    return [time for index, time in enumerate(stamp) if index % 4 < 2]


class RunCache:
    """The checked records and CSV columns of the runs below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / CACHE_FOLDER
        self.root = folder
        self._stamps: dict[str, dict[str, Stamp]] = {}  # by kind of file and run
        self._records: dict[str, str] = {}
        self._columns: dict[str, dict[str, dict[str, np.ndarray]]] = {}
        self._changed: set[str] = set()
        self._used: dict[str, set[str]] = {}

    def record(self, folder: Path) -> RunRecord | None:
        """Return a run's record if its file is as it was; else None."""
        name = self._known(RECORDS, folder, folder / "run.json")
        return None if name is None else cast(RunRecord, json.loads(self._records[name]))

    def note_record(self, folder: Path, record: RunRecord, stamp: Stamp) -> None:
        """Keep a record that was read and checked. stamp: of its file before it was read."""
        name = self._name(folder)
        self._load(RECORDS)
        self._records[name] = json.dumps(record)
        self._note(RECORDS, name, stamp)

    def columns(self, folder: Path, rows: str) -> dict[str, np.ndarray] | None:
        """Return the columns of a CSV file if it is as it was; else None.

        Its record has to be the same as well, since the file was checked against it.
        """
        if rows not in ROWS:
            return None
        record = self._stamps.get(RECORDS, {}).get(self._name(folder))
        name = self._known(rows, folder, folder / f"{rows}.csv", record)
        return None if name is None else self._columns[rows][name]

    def note_columns(
        self, folder: Path, rows: str, columns: dict[str, np.ndarray], stamp: Stamp
    ) -> None:
        """Keep the columns of a CSV file. stamp: of the file before it was read."""
        if rows in ROWS:
            name = self._name(folder)
            self._load(rows)
            self._columns[rows][name] = columns
            self._note(rows, name, (*stamp, *self._stamps[RECORDS][name]))

    def save(self) -> None:
        """Write what has changed, without files that are gone or were changed just now."""
        for kind in sorted(self._changed):
            with suppress(OSError):  # without write permission there is no cache
                self._write(kind)
        self._changed.clear()

    def _name(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix()

    def _note(self, kind: str, name: str, stamp: Stamp) -> None:
        self._stamps[kind][name] = stamp
        self._used.setdefault(kind, set()).add(name)
        self._changed.add(kind)

    def _known(self, kind: str, folder: Path, path: Path, record: Stamp | None = ()) -> str | None:
        """Return a run's name if the cache's entry for its file still holds.

        record: the stamp of the run's record, which is part of the entry of a CSV file.
        """
        self._load(kind)
        name = self._name(folder)
        stamp = self._stamps[kind].get(name)
        try:
            if stamp is None or record is None or (*stamp_of(path), *record) != stamp:
                return None
        except OSError:
            return None
        self._used.setdefault(kind, set()).add(name)
        return name

    def _load(self, kind: str) -> None:
        """Read a file of the cache, once; a damaged one counts as none."""
        if kind in self._stamps:
            return
        self._stamps[kind], self._columns[kind] = {}, {}
        import pyarrow.parquet as parquet

        try:
            table = parquet.read_table(self.folder / f"{kind}.parquet")
            meta = json.loads((table.schema.metadata or {})[b"optbench"])
            if meta["version"] != VERSION:
                return
            stamps = {name: tuple(stamp) for name, stamp in meta["stamps"].items()}
            if kind == RECORDS:
                names, texts = (table[key].to_pylist() for key in ("run", "record"))
                self._records = dict(zip(names, texts, strict=True))
            else:
                arrays = {key: table[key].to_numpy() for key in table.column_names}
                for name, (start, end, keys) in meta["runs"].items():
                    here = {key: arrays[key][start:end] for key in meta["keys"][keys]}
                    self._columns[kind][name] = here
            self._stamps[kind] = stamps
        except Exception:  # of pyarrow or of a changed form, any of many classes
            self._stamps[kind], self._columns[kind] = {}, {}

    def _write(self, kind: str) -> None:
        self.folder.mkdir(exist_ok=True)
        temporary = self.folder / f"{kind}-{uuid4().hex[:8]}.tmp"
        try:
            temporary.touch()
            now = temporary.stat().st_mtime_ns  # by the clock that stamps the files
            old = now - int(YOUNG_SECONDS * 1e9)
            names = [
                name
                for name in sorted(self._used.get(kind, ()))
                if max(times_in(self._stamps[kind][name])) < old
            ]
            table = self._records_table(names) if kind == RECORDS else self._rows_table(kind, names)
            import pyarrow.parquet as parquet

            parquet.write_table(table, temporary, compression="zstd")
            os.replace(temporary, self.folder / f"{kind}.parquet")  # noqa: PTH105
        finally:
            temporary.unlink(missing_ok=True)

    def _meta(self, kind: str, names: list[str], **more: Any) -> dict[bytes, bytes]:
        stamps = {name: self._stamps[kind][name] for name in names}
        return {b"optbench": json.dumps({"version": VERSION, "stamps": stamps, **more}).encode()}

    def _records_table(self, names: list[str]) -> Any:
        import pyarrow

        texts = [self._records[name] for name in names]
        table = pyarrow.table(
            {"run": names, "record": pyarrow.array(texts, pyarrow.large_string())}
        )
        return table.replace_schema_metadata(self._meta(RECORDS, names))

    def _rows_table(self, kind: str, names: list[str]) -> Any:
        import pyarrow

        runs: dict[str, tuple[int, int, int]] = {}
        sets: dict[tuple[str, ...], int] = {}
        start = 0
        for name in names:
            columns = self._columns[kind][name]
            number = sets.setdefault(tuple(columns), len(sets))
            length = len(columns["step"])
            runs[name] = (start, start + length, number)
            start += length
        keys = list(dict.fromkeys(key for each in sets for key in each))
        data = {}
        for key in keys:
            parts = []
            for name in names:
                columns = self._columns[kind][name]
                empty = np.full(runs[name][1] - runs[name][0], np.nan)
                parts.append(np.asarray(columns.get(key, empty), dtype=float))
            data[key] = np.concatenate(parts) if parts else np.empty(0)
        meta = self._meta(kind, names, runs=runs, keys=[list(each) for each in sets])
        return pyarrow.table(data).replace_schema_metadata(meta)


def cache_of(folders: list[Path], runs: int) -> RunCache | None:
    """Return the cache for the runs of one large folder, if there can be one."""
    if len(folders) != 1 or runs < MIN_RUNS:
        return None
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return None
    return RunCache(folders[0])
