"""Files of records: JSON lines, appended to by any number of writers, read whole.

Records of other machines are merged by appending their lines to a file, or by putting their file beside the others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import ValidationError

from arena.errors import ArenaError
from arena.records.bulk import bulk
from arena.records.schema import SCHEMA_VERSION, Record

SHARED = Path("leaderboards/records")
"""Where a checkout keeps its records; all files there are read, whichever suite asks."""

NOT_RECORDS = ("accepted.jsonl", "verifications.jsonl")
"""Files beside records that say something about them."""


def default_results(suite: str) -> Path:
    """Where new records of a suite go: ``leaderboards/records/ID.jsonl`` in a checkout, else ``results/ID.jsonl``."""
    return (SHARED if SHARED.is_dir() else Path("results")) / f"{suite}.jsonl"


def record_files(results: Path) -> list[Path]:
    """The files whose records count where new ones go to `results`: all of its folder in a checkout's
    `leaderboards/records`, else `results` alone. Files that are not there are left out."""
    if results.absolute().parent == SHARED.absolute():
        return sorted(p for p in results.parent.glob("*.jsonl") if p.name not in NOT_RECORDS)
    return [results] if results.exists() else []


def read_all(paths: Iterable[Path]) -> list[Record]:
    """The records of several files, one after the other, see `read_records`."""
    return [record for path in paths for record in read_records(path)]


def read_records(path: Path) -> list[Record]:
    """The records of a JSONL file, in order; a torn last line, left by a writer that was killed, is skipped.

    Raises `ArenaError` where the file is missing, or a line is not a record of this schema version.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ArenaError(f"records: cannot read {path} ({error.strerror}): run the suite first") from error
    records = []
    with bulk():
        for number, line in enumerate(lines[:-1], start=1):
            try:
                if line.strip():
                    records.append(Record.model_validate_json(line))
            except ValidationError as error:
                raise ArenaError(f"records: {path}, line {number}: {_complaint(path, line, error)}") from error
    return records


def _complaint(path: Path, line: bytes, error: ValidationError) -> str:
    try:
        raw: Any = json.loads(line)
    except ValueError:
        return "not JSON: the line is damaged; remove it and run the suite again, finished stages are reused"
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version == 1:
        return (
            f"schema version 1, but this arena reads version {SCHEMA_VERSION}: `arena migrate {path}` rewrites the file"
        )
    if version != SCHEMA_VERSION:
        return (
            f"schema version {version!r}, but this arena reads version {SCHEMA_VERSION}: move the file away and run "
            "the suite again, or read it with the arena that wrote it"
        )
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "record"
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}; remove the line and run the suite again, finished stages are reused"


def append_record(path: Path, record: Record) -> None:
    """Append one record, see `append_line`."""
    append_line(path, record.model_dump_json(), f"cell {record.cell[:12]}")


def append_line(path: Path, line: str, what: str) -> None:
    """Append one line of JSON: locked, in one write, flushed to disk. A torn last line of a killed writer is removed
    first.

    Raises `ArenaError`, which calls the line `what`, where it could not be written in full; the file is then as it was.
    """
    content = line.encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")), path.open("a+b", buffering=0) as file:
        end = _end_of_last_line(file.fileno())
        file.truncate(end)
        try:
            if file.write(content) != len(content):
                raise OSError("the line was cut short")
            os.fsync(file)
        except OSError as error:
            file.truncate(end)
            raise ArenaError(
                f"records: could not append {what} to {path} ({error}): free some space or choose another folder, then "
                "run again; nothing recorded before is lost"
            ) from error


def _end_of_last_line(descriptor: int) -> int:
    """The offset just behind the last newline, 0 without one."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    return os.pread(descriptor, size, 0).rfind(b"\n") + 1
