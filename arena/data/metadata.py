"""The rows of an imagefolder's metadata file, and what each says of a sample."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from arena.errors import ArenaError, Refused
from arena.paths import unreadable

METADATA = ("metadata.jsonl", "metadata.csv")
"""Names of a metadata file; the first that is there is read."""
FIELDS = ("id", "question", "answer", "aliases", "choices")


@dataclass(frozen=True)
class Texts:
    """What a row says beside its picture; `id` is None where the data have none."""

    id: str | None
    question: str
    answer: str
    aliases: tuple[str, ...]
    choices: tuple[str, ...]


def read_rows(metadata: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a ``metadata.jsonl`` or ``metadata.csv`` with their line numbers, from 1.

    Raises `ArenaError` naming file, line and remedy for a file that cannot be read as one.
    """
    try:
        content = metadata.read_bytes()
    except OSError as error:
        raise unreadable(metadata, error) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = content[: error.start].count(b"\n") + 1
        raise ArenaError(
            f"{metadata}, line {at}: byte 0x{content[error.start]:02x} is not UTF-8: save the file as UTF-8"
        ) from None
    yield from _csv(metadata, text) if metadata.suffix == ".csv" else _json_lines(metadata, text)


def texts_of(row: Mapping[str, Any], columns: Mapping[str, str], required: Sequence[str], where: str) -> Texts:
    """What a row says; `columns` names every field, the fields `required` must have their column. Raises `Refused`."""
    for field in required:
        if columns[field] not in row:
            found = ", ".join(map(str, row)) or "nothing"
            raise Refused(
                where,
                f"column {columns[field]!r} ({field}) is missing; the row has {found}",
                "name the column that has it, or fill it in",
            )
    return Texts(
        id=text_of(row, columns["id"], where) if columns["id"] in row else None,
        question=text_of(row, columns["question"], where),
        answer=text_of(row, columns["answer"], where),
        aliases=_texts(row, columns["aliases"], where),
        choices=_texts(row, columns["choices"], where),
    )


def text_of(row: Mapping[str, Any], column: str, where: str) -> str:
    """A text that is not empty. Raises `Refused`."""
    value = row.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Refused(where, f"{column} is missing or empty", "every picture needs one")
    return _valid_text(value, column, where)


def escapes(file: str) -> bool:
    """Whether a relative path would leave its folder, on any system."""
    path = PureWindowsPath(file)
    return not path.parts or bool(path.anchor) or ".." in path.parts


def _csv(metadata: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            if None in fields or None in fields.values():
                raise ArenaError(
                    f"{metadata}, line {reader.line_num}: the row has not as many fields as the header: quote "
                    "fields that hold commas"
                )
            yield reader.line_num, dict(fields)
    except csv.Error as error:
        raise ArenaError(f"{metadata}, line {reader.reader.line_num}: not valid CSV ({error})") from None


def _json_lines(metadata: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ArenaError(
                f"{metadata}, line {number}: not valid JSON ({error}): each line is one JSON object; a torn line means "
                "that the file was cut off"
            ) from None
        if not isinstance(row, dict):
            raise ArenaError(f"{metadata}, line {number}: each line must be a JSON object, this is a {_type(row)}")
        yield number, row


def _valid_text(value: object, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise Refused(where, f"{column} is a {_type(value)}, not a text", "put it in quotes")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(where, f"{column} has an unpaired surrogate, which is not UTF-8", "repair the text") from None
    return value


def _texts(row: Mapping[str, Any], column: str, where: str) -> tuple[str, ...]:
    value = row.get(column)
    if isinstance(value, str):  # a CSV cell
        with suppress(ValueError):
            value = json.loads(value) if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Refused(where, f"{column} must be a JSON list of texts", 'such as ["car", "a car"]')
    return tuple(_valid_text(item, column, where) for item in value)


def _type(value: object) -> str:
    return {bool: "truth value", int: "number", float: "number", list: "list", dict: "object"}.get(type(value), "null")
