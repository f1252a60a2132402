"""Files of records: JSON lines, appended to by any number of writers, read whole.

Records of other machines are merged by appending their lines to a file, or by putting their file beside the others.
"""

from __future__ import annotations

import errno
import json
import marshal
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from arena.errors import ArenaError
from arena.records.bulk import bulk
from arena.records.schema import (
    SCHEMA_VERSION,
    AttackRef,
    BudgetRef,
    DatasetRef,
    DefenseRef,
    Environment,
    ModelRef,
    Outcome,
    RecipeRef,
    Record,
    SuiteRef,
)

SHARED = Path("leaderboards/records")
"""Where a checkout keeps its records; all files there are read, whichever suite asks."""

NOT_RECORDS = ("accepted.jsonl", "verifications.jsonl", "audits.jsonl", "submissions.jsonl")
"""Files beside records that say something about them."""

_VERSION = re.compile(r"v[1-9][0-9]{0,5}")

_BEGINNINGS = (b'{"protocol_version":', b'{"schema_version":')
"""How records of this schema and of the first begin."""

_TRIED = 2**18
"""Bytes that are written where records will go, before they are computed: more than a record has."""


def default_results(suite: str) -> Path:
    """Where new records of a suite go: ``leaderboards/records/ID.jsonl`` in a checkout, else ``results/ID.jsonl``."""
    return (SHARED if SHARED.is_dir() else Path("results")) / f"{suite}.jsonl"


def version_of(folder: Path) -> int | None:
    """The protocol version whose records a folder keeps, by its name, such as ``v1``; None of another folder."""
    return int(folder.name[1:]) if _VERSION.fullmatch(folder.name) else None


def past(folder: Path) -> list[Path]:
    """The folders in a folder of records that keep those of earlier protocol versions, the latest first."""
    found = [one for one in folder.glob("v*") if one.is_dir() and version_of(one) is not None]
    return sorted(found, key=lambda one: version_of(one) or 0, reverse=True)


def record_files(results: Path) -> list[Path]:
    """The files whose records count where new ones go to `results`: all of its folder in a checkout's
    `leaderboards/records`, else `results` alone. Files that are not there are left out. Raises `ArenaError` where
    `results` is something else than a file."""
    if results.absolute().parent == SHARED.absolute():
        return sorted(p for p in results.parent.glob("*.jsonl") if p.name not in NOT_RECORDS)
    if not os.path.lexists(results):
        return []
    _refuse_no_file(results)
    return [results]


def read_all(paths: Iterable[Path]) -> list[Record]:
    """The records of several files, one after the other, see `read_records`."""
    reader = _Reader()
    return [record for path in paths for record in _read(path, reader)]


def read_records(path: Path) -> list[Record]:
    """The records of a JSONL file, in order. The last line needs no newline; where it is torn, left by a writer that
    was killed, it is skipped. Parts that are equal, such as a plugin's reference, are one object.

    Raises `ArenaError` where the file cannot be read, or a line is not a record of this schema version.
    """
    return _read(path, _Reader())


class _Reader:
    """Makes records of lines. What records have in common is made once, which saves time and most of the memory."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, bytes], BaseModel] = {}

    def record(self, line: bytes) -> Record:
        """The record of a line. Raises `ValidationError`."""
        try:
            fields = from_json(line)
            for name, part in _COMMON.items():
                if (value := fields[name]) is not None:
                    fields[name] = self._part(name, part, value)
            return Record.model_validate(fields)
        except (ValueError, KeyError, TypeError):  # no record: this says what is wrong with the line as it stands
            return Record.model_validate_json(line)

    def _part(self, name: str, part: type[BaseModel], value: Any) -> BaseModel:
        key = name, marshal.dumps(value, 2)  # a form without references to other objects: equal bytes, equal values
        if key not in self._made:
            self._made[key] = part.model_validate(value)
        return self._made[key]


_COMMON: dict[str, type[BaseModel]] = {
    "suite": SuiteRef,
    "dataset": DatasetRef,
    "model": ModelRef,
    "defense": DefenseRef,
    "attack": AttackRef,
    "recipe": RecipeRef,
    "budget": BudgetRef,
    "zero_shot": Outcome,
    "environment": Environment,
}
"""The fields of a record that many others have as well."""


def _read(path: Path, reader: _Reader) -> list[Record]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise ArenaError(f"records: cannot read {path} ({error.strerror}): run the suite first") from error
    except OSError as error:
        raise ArenaError(
            f"records: cannot read {path} ({error.strerror}): name a file of records that you may read"
        ) from error
    if _torn(lines[-1], _BEGINNINGS):
        del lines[-1]
    records = []
    with bulk():
        for number, line in enumerate(lines, start=1):
            try:
                if line.strip():
                    records.append(reader.record(line))
            except ValidationError as error:
                raise ArenaError(f"records: {path}, line {number}: {_complaint(path, line, error)}") from error
    return records


def _complaint(path: Path, line: bytes, error: ValidationError) -> str:
    """What is wrong with a line that is no record, and what to do."""
    remedy = "remove the line and run the suite again, finished stages are reused"
    raw = _json(line)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version is None:
        kind = "not JSON, so" if raw is None else "it is"
        return f"{kind} no record, or a damaged one; name another file, or {remedy}"
    if version == 1:
        return (
            f"schema version 1, but this arena reads version {SCHEMA_VERSION}: `arena migrate {path}` rewrites the file"
        )
    if version != SCHEMA_VERSION:
        said = ascii(version)[:20] if isinstance(version, int | str) else "of another kind"
        return (
            f"schema version {said}, but this arena reads version {SCHEMA_VERSION}: move the file away "
            "and run the suite again, or read it with the arena that wrote it"
        )
    first = error.errors(include_url=False)[0]
    where = ascii(".".join(map(str, first["loc"])) or "record")[1:-1]
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}; {remedy}"


def append_record(path: Path, record: Record, since: int | None = None) -> Record:
    """Append one record, see `append_line`, and return it.

    With `since`, what `end_of` said when a run began, nothing is appended where another run has appended a record of
    that cell since then that stands as this one does: made by the same code, and done, or failed as this one. Then that
    one is returned.
    """

    def there(file: BinaryIO) -> Record | None:
        return None if since is None else _equal(file, since, record)

    what = f"cell {record.cell[:12]}"
    return _append(path, record.model_dump_json().encode(), what, _BEGINNINGS, there) or record


def append_line(path: Path, line: str, what: str) -> None:
    """Append one line of JSON: locked, in one write, flushed to disk. Where a writer was killed, its torn last line,
    which begins as this one does, is removed first; a last line that is whole gets its newline.

    Raises `ArenaError`, which calls the line `what`, where the last line is another's, or this one could not be written
    in full; the file is then as it was.
    """
    content = line.encode()
    _append(path, content, what, (content[: content.index(b":") + 1],), lambda file: None)


def end_of(path: Path) -> int:
    """Where a file's last whole line ends, in bytes; 0 where there is no file."""
    with suppress(OSError):
        if path.is_file():  # opening a pipe would wait for its writer
            with path.open("rb") as file:
                return _last_line(file)[0]
    return 0


def try_appending(path: Path) -> None:
    """Try all that appending to `path` takes, for whoever is about to compute what belongs there; leaves no file.

    Raises `ArenaError` naming what is in the way: a folder that cannot be written, a full disk, something that is no
    file, or a last line that is no record.
    """
    try:
        _refuse_no_file(path)
        with _locked(path) as real:
            if os.path.lexists(real):  # a link, if it leads back to itself
                with real.open("r+b") as file:
                    _end_to_append(file, path, _BEGINNINGS)
            with tempfile.NamedTemporaryFile(dir=real.parent, prefix=".try-", buffering=0) as file:
                if file.write(os.urandom(_TRIED)) != _TRIED:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(path, "records", error) from error


def _append(
    path: Path, content: bytes, what: str, beginnings: tuple[bytes, ...], there: Callable[[BinaryIO], Record | None]
) -> Record | None:
    """Append `content` as a line unless what makes it needless is `there`, which is then returned."""
    try:
        with _locked(path) as real, real.open("a+b", buffering=0) as file:
            if (found := there(file)) is not None:
                return found
            size = os.fstat(file.fileno()).st_size
            end, newline = _end_to_append(file, path, beginnings)
            kept = os.pread(file.fileno(), size - end, end)
            file.truncate(end)
            text = newline + content + b"\n"
            try:
                if file.write(text) != len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file)
            except OSError:
                with suppress(OSError):
                    file.truncate(end)
                    file.write(kept)
                raise
    except OSError as error:
        raise _unwritable(path, what, error) from error
    return None


def _refuse_no_file(path: Path) -> None:
    """A folder, a device or a pipe, which might have to be waited for, or a name of an open file, where no board can
    lie beside it."""
    with suppress(OSError):
        if path.exists() and (not path.is_file() or path.absolute().parent == Path("/dev")):
            raise ArenaError(f"records: {path} is no file, so it has no records: name another with --results")


def _unwritable(path: Path, what: str, error: OSError) -> ArenaError:
    return ArenaError(
        f"records: could not append {what} to {path} ({error.strerror or error}): see that its folder can be written "
        "and has space, or choose another, then run again; nothing recorded before is lost"
    )


@contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """The file that `path` leads to, alone with it; its folder is made."""
    real = Path(os.path.realpath(path))
    real.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(real.with_name(f".{real.name}.lock"))
    try:
        lock.acquire()
    except NotImplementedError:  # a file system without locks: a line is one write, which is as good as it gets
        yield real
        return
    try:
        yield real
    finally:
        lock.release()


def _end_to_append(file: BinaryIO, path: Path, beginnings: tuple[bytes, ...]) -> tuple[int, bytes]:
    """Where a new line goes, and what must go before it. Raises `ArenaError` where the last line is another's."""
    end, last = _last_line(file)
    if not last.strip():
        return end, b""
    if _torn(last, beginnings):
        return end, b""
    whole = _json(last)
    if isinstance(whole, dict) and any(beginning[2:-2].decode() in whole for beginning in beginnings):
        return end + len(last), b"\n"
    raise ArenaError(
        f"records: {path} ends in {last[:40].decode(errors='replace')!a}, which is no line of the arena's: name "
        "another file; this one is left as it is"
    )


def _last_line(file: BinaryIO) -> tuple[int, bytes]:
    """The offset just behind the last newline, 0 without one, and what is there."""
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return size, b""
    content = os.pread(descriptor, size, 0)
    end = content.rfind(b"\n") + 1
    return end, content[end:]


def _torn(line: bytes, beginnings: tuple[bytes, ...]) -> bool:
    """Whether a last line without a newline is what was written of one of ours."""
    return bool(line) and _begins(line, beginnings) and _json(line) is None


def _begins(line: bytes, beginnings: tuple[bytes, ...]) -> bool:
    return any(line.startswith(beginning) or beginning.startswith(line) for beginning in beginnings)


def _json(line: bytes) -> Any:
    """What a line of JSON says; None where it is not JSON, or nothing that can be read."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _equal(file: BinaryIO, since: int, record: Record) -> Record | None:
    """A record behind the offset `since`, or anywhere in a file that is now shorter, that stands as `record` does."""
    size = os.fstat(file.fileno()).st_size
    lines = os.pread(file.fileno(), size, since if since <= size else 0).split(b"\n")
    for line in lines:
        if record.cell.encode() not in line:
            continue
        with suppress(ValidationError):
            other = Record.model_validate_json(line)
            alike = other.cell == record.cell and _code(other) == _code(record)
            if alike and (other.status == "done" or record.status == "failed"):
                return other
    return None


def _code(record: Record) -> object:
    """Which code made a record."""
    return record.engine_digest, [reference.source_digest for _, reference in record.plugins()]
