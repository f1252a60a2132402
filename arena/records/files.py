"""Files of records: JSON lines, appended to by any number of writers, read whole."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from arena.errors import ArenaError
from arena.records.bulk import bulk
from arena.records.schema import SCHEMA_VERSION, Record


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
                raise ArenaError(f"records: {path}, line {number}: {_complaint(line, error)}") from error
    return records


def _complaint(line: bytes, error: ValidationError) -> str:
    try:
        raw: Any = json.loads(line)
    except ValueError:
        return "not JSON: the line is damaged; remove it and run the suite again, finished stages are reused"
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        return (
            f"schema version {version!r}, but this arena reads version {SCHEMA_VERSION}: move the file away and run "
            "the suite again, or read it with the arena that wrote it"
        )
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "record"
    return f"{where}: {first['msg']}; remove the line and run the suite again, finished stages are reused"


def append_record(path: Path, record: Record) -> None:
    """Append one line: locked, in one write, flushed to disk. A torn last line of a killed writer is removed first.

    Raises `ArenaError` where the line could not be written in full; the file is then as it was.
    """
    line = record.model_dump_json().encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = _end_of_last_line(file.fileno())
        file.truncate(end)
        try:
            if file.write(line) != len(line):
                raise OSError("the line was cut short")
            os.fsync(file)
        except OSError as error:
            file.truncate(end)
            raise ArenaError(
                f"records: could not append cell {record.cell[:12]} to {path} ({error}): free some space or choose "
                "another folder, then run again; nothing recorded before is lost"
            ) from error


def _end_of_last_line(descriptor: int) -> int:
    """The offset just behind the last newline, 0 without one."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    return os.pread(descriptor, size, 0).rfind(b"\n") + 1
