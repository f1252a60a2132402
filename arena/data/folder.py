"""Samples from a folder of pictures with a metadata file beside them, Hugging Face's ``imagefolder`` layout."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from arena.budget import mode_problem
from arena.data.multiple_choice import asked
from arena.data.sample import Sample
from arena.errors import ArenaError, UsageError
from arena.paths import is_file, is_folder, unreadable

MAX_PIXELS = 64 * 2**20
"""Pictures of more pixels are refused before they are decoded."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
METADATA = ("metadata.jsonl", "metadata.csv")
"""Names of a metadata file; the first that is there is read."""
FIELDS = ("id", "question", "answer", "aliases", "choices")


def read_imagefolder(folder: Path, columns: Mapping[str, str] | None = None) -> list[Sample]:
    """The samples of a folder of pictures and a ``metadata.jsonl`` or ``metadata.csv`` with a ``file_name`` column.

    `columns` maps fields of a sample (``id``, ``question``, ``answer``, ``aliases``, ``choices``) to the folder's own
    column names; those not mapped go by their own names. Without ids, file names serve. Pictures are turned upright as
    their camera noted. In a CSV file aliases and choices are JSON lists. Choices are put into the question, see
    `arena.data.multiple_choice.asked`.

    Raises `UsageError` for a wrong folder or mapping, `ArenaError` naming file, line and remedy for what is missing,
    damaged, duplicated or too large.
    """
    if unknown := sorted(set(columns or {}) - set(FIELDS)):
        raise UsageError(f"a sample has no field {unknown[0]!r}: map {', '.join(FIELDS)}")
    named = {field: field for field in FIELDS} | dict(columns or {})
    return list(map(asked, read_rows(folder, named, required=("question", "answer", *(columns or {})))))


def is_read(path: Path) -> bool:
    """Whether a file of an imagefolder is metadata or a picture, by its name; what macOS puts beside a picture under a
    name of the kind ``._picture.png`` is neither."""
    return path.name in METADATA or (path.suffix.lower() in SUFFIXES and not path.name.startswith("._"))


def read_rows(folder: Path, columns: Mapping[str, str], required: Sequence[str]) -> list[Sample]:
    """As `read_imagefolder`; `columns` names every field, the fields `required` must have their column."""
    metadata = _metadata(folder)
    samples: list[Sample] = []
    files: dict[str, int] = {}
    ids: dict[str, int] = {}
    for line, row in _rows(metadata):
        where = f"{metadata}, line {line}"
        for field in required:
            if columns[field] not in row:
                found = ", ".join(map(str, row)) or "nothing"
                raise ArenaError(f"{where}: column {columns[field]!r} ({field}) is missing; the row has {found}")
        file = _text(row, "file_name", where)
        if escapes(file):
            raise ArenaError(f"{where}: file_name {file!r} leads out of the folder: use relative paths without '..'")
        sample = Sample(
            id=_text(row, columns["id"], where) if columns["id"] in row else file,
            image=_image(folder / file, where),
            question=_text(row, columns["question"], where),
            answer=_text(row, columns["answer"], where),
            aliases=_texts(row, columns["aliases"], where),
            choices=_texts(row, columns["choices"], where),
        )
        for name, value, taken in (("file_name", PurePosixPath(file).as_posix(), files), ("id", sample.id, ids)):
            if (other := taken.setdefault(value, line)) != line:
                raise ArenaError(f"{where}: {name} {value!r} is already used in line {other}: remove or rename one")
        samples.append(sample)
    pictures = (p for p in folder.rglob("*") if is_read(p) and p.name not in METADATA and is_file(p))
    orphans = sorted({p.relative_to(folder).as_posix() for p in pictures} - set(files))
    if orphans:
        raise ArenaError(
            f"{metadata}: {len(orphans)} of the folder's pictures have no row, the first is {orphans[0]!r}: "
            "add rows or remove the pictures"
        )
    if not samples:
        raise ArenaError(f"{metadata} has no rows: one a picture is needed")
    return samples


def _metadata(folder: Path) -> Path:
    if not is_folder(folder):
        raise UsageError(f"{folder} is not a folder: name one that holds pictures and a metadata.jsonl or metadata.csv")
    for name in METADATA:
        if is_file(path := folder / name):
            return path
    below = sorted(p.parent.name for p in folder.glob("*/metadata.*"))
    hint = f"; its subfolders {', '.join(below)} have one: name one of them" if below else ""
    raise UsageError(f"{folder} has no metadata.jsonl or metadata.csv{hint}")


def _rows(metadata: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with their line numbers, from 1."""
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
    if metadata.suffix == ".csv":
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
        return
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


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ArenaError(f"{where}: {column} is missing or empty: every picture needs one")
    return _valid_text(value, column, where)


def _valid_text(value: object, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise ArenaError(f"{where}: {column} is a {_type(value)}, not a text: put it in quotes")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ArenaError(f"{where}: {column} has an unpaired surrogate, which is not UTF-8: repair the text") from None
    return value


def _texts(row: Mapping[str, Any], column: str, where: str) -> tuple[str, ...]:
    value = row.get(column)
    if isinstance(value, str):  # a CSV cell
        with suppress(ValueError):
            value = json.loads(value) if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ArenaError(f'{where}: {column} must be a JSON list of texts such as ["car", "a car"]')
    return tuple(_valid_text(item, column, where) for item in value)


def _type(value: object) -> str:
    return {bool: "truth value", int: "number", float: "number", list: "list", dict: "object"}.get(type(value), "null")


def escapes(file: str) -> bool:
    """Whether a relative path would leave its folder, on any system."""
    path = PureWindowsPath(file)
    return not path.parts or bool(path.anchor) or ".." in path.parts


def _image(path: Path, where: str) -> Image.Image:
    """A picture, decoded and upright, without the metadata of its file."""
    upright = decode(path, f"{where}: {path.name!r}")
    if problem := mode_problem(upright):
        raise ArenaError(f"{where}: {path.name!r} cannot be used: {problem}")
    return Image.fromarray(np.asarray(upright))


def decode(source: Path | io.BytesIO, where: str, size: tuple[int, int] | None = None) -> Image.Image:
    """The picture of a file or of its bytes, in its own mode, turned upright as its camera noted.

    Raises `ArenaError`, which begins with `where`, for a picture that is missing, damaged, of more than `MAX_PIXELS`
    pixels, or of another `size` (width, height) where one is wanted; the last two are found before anything is decoded.
    """

    def refuse(problem: str) -> NoReturn:
        raise ArenaError(f"{where} {problem}") from None

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
                if size is not None and image.size != size:
                    refuse(f"is of {image.width} x {image.height} pixels instead of {size[0]} x {size[1]}")
                return ImageOps.exif_transpose(image)
    except ArenaError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        refuse(f"is too large to decode safely ({error}; the limit is {MAX_PIXELS} pixels): scale it down")
    except FileNotFoundError:
        refuse("is not in the folder: add the picture or remove the row")
    except UnidentifiedImageError:  # which would print where a file's bytes lie in memory
        refuse("is damaged or no picture (of no known format): restore it or remove its row")
    except Exception as error:  # decoders raise anything on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            refuse(f"cannot be read ({error.strerror}): check its name and permissions, or remove its row")
        refuse(f"is damaged or no picture ({error}): restore it or remove its row")
