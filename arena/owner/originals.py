"""A data owner's samples as they come: an imagefolder, or anything `datasets` loads, with the pictures' own names."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from arena.data.folder import FIELDS, METADATA, SUFFIXES, escapes
from arena.data.hub.table import BROKEN, is_saved, load_saved, without_bars
from arena.data.sample import Sample
from arena.data.values import as_text, with_class_names
from arena.errors import ArenaError, UsageError
from arena.paths import exists, is_file, is_folder
from arena.release import read_imagefolder
from arena.text import shortened

LONGEST = 255
"""Bytes of a file's name, at most, on the file systems in use."""

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Originals:
    """Samples in the source's order, and the relative path of each one's picture."""

    samples: list[Sample]
    files: list[str]


def read_originals(
    source: str, columns: Mapping[str, str] | None = None, split: str = "train", limit: int | None = None
) -> Originals:
    """The samples of `source`: a folder, a parquet file, or the hub id of a data set.

    A folder is an imagefolder with ``metadata.jsonl`` or ``metadata.csv`` in it or in its subfolder `split`, was
    written by ``Dataset.save_to_disk``, or holds files that ``datasets.load_dataset`` reads. `columns` maps fields of
    a sample to the source's columns: ``image`` (not for an imagefolder, whose pictures are named by ``file_name``),
    ``question``, ``answer``, ``id``, ``aliases``, ``choices``. The first `limit` samples are taken, all where None. The
    source is only read.

    Raises `UsageError` for a source, split or column that is not there, `ArenaError` naming what is damaged.
    """
    columns = dict(columns or {})
    if unknown := sorted(set(columns) - {"image", *FIELDS}):
        raise UsageError(f"a sample has no field {unknown[0]!r}: map image, {', '.join(FIELDS)}")
    folder = imagefolder(source, split)
    if folder is None:
        return _from_datasets(source, columns, split, limit)
    if "image" in columns:
        raise UsageError(
            f"{folder} is an imagefolder, which names its pictures in the column file_name: map no image column"
        )
    samples, files = read_imagefolder(folder, columns), _file_names(folder)
    return Originals(samples[:limit], _distinct(files[:limit]))


def imagefolder(source: str, split: str) -> Path | None:
    """The imagefolder that `source` is or has as its `split`; None if it is something else."""
    folder = Path(source)
    if is_folder(folder / split) and _has_metadata(folder / split):
        return folder / split
    if not _has_metadata(folder):
        return None
    if split != "train":
        raise UsageError(f"{folder} has no split {split!r}: it is an imagefolder without a subfolder of that name")
    return folder


def _has_metadata(folder: Path) -> bool:
    return any(is_file(folder / name) for name in METADATA)


def _file_names(folder: Path) -> list[str]:
    """The column ``file_name`` of metadata that `read_imagefolder` has found good."""
    path = next(folder / name for name in METADATA if is_file(folder / name))
    text = path.read_bytes().decode("utf-8-sig")
    if path.suffix == ".csv":
        return [row["file_name"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    return [json.loads(line)["file_name"] for line in text.split("\n") if line.strip()]


def released_name(file: str) -> str:
    """A picture's path in a release, which holds PNG files."""
    return PurePosixPath(file).with_suffix(".png").as_posix()


def _distinct(files: list[str]) -> list[str]:
    """`files`; an error now, not after hours of crafting, where two of them would be one file of the release, or one
    has a name that no file can have."""
    seen: dict[str, str] = {}
    for file in files:
        if any(len(part.encode()) > LONGEST for part in PurePosixPath(released_name(file)).parts):
            raise UsageError(
                f"the picture '{shortened(file, 400)}' would be released under a name of more than {LONGEST} bytes, "
                "which no file can have: rename it"
            )
        if (other := seen.setdefault(released_name(file).casefold(), file)) is not file:
            raise UsageError(
                f"the pictures {other!r} and {file!r} would both be released as {released_name(file)!r}: rename one"
            )
    return files


def _from_datasets(source: str, columns: Mapping[str, str], split: str, limit: int | None) -> Originals:
    import datasets

    table = _load(source, split)
    image = columns.get("image", "image")
    named = {field: columns.get(field, field) for field in FIELDS}
    required = {"image": image, **{f: named[f] for f in FIELDS if f in ("question", "answer") or f in columns}}
    for field, column in required.items():
        if column not in table.column_names:
            found = ", ".join(table.column_names)
            raise UsageError(f"{source}: column {column!r} ({field}) is missing; map one of its columns: {found}")
    if limit is not None:
        table = table.select(range(min(limit, len(table))))
    kept = {field: column for field, column in named.items() if column in table.column_names}
    try:
        table = table.select_columns([*dict.fromkeys([image, *kept.values()])])
        if isinstance(table.features[image], datasets.Value):  # a text would be taken for a file's path
            raise TypeError("it holds plain values")
        table = table.cast_column(image, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UsageError(f"{source}: column {image!r} (image) holds no pictures ({error}): map another") from error
    with tempfile.TemporaryDirectory(prefix="arena-originals-") as folder:
        names = _names(source, [row[image]["path"] if row[image] else None for row in table])
        _export(source, table, image, kept, names, Path(folder))
        try:
            samples = read_imagefolder(Path(folder))
        except ArenaError as error:  # the copy's place means nothing to the owner
            where = f"{source}, split {split!r}"
            raise type(error)(str(error).replace(str(Path(folder) / METADATA[0]), where)) from error
    return Originals(samples, names)


def _load(source: str, split: str) -> Any:
    """The `datasets.Dataset` of a split."""
    import datasets
    from datasets.exceptions import DatasetsError

    path = Path(source)
    if not exists(path) and not HUB_ID.fullmatch(source):
        raise UsageError(f"{source} does not exist: name a folder, a parquet file or the hub id of a data set")
    if (file := is_file(path)) and path.suffix != ".parquet":
        raise UsageError(f"{source} is a file: name a folder, a parquet file or the hub id of a data set")
    try:
        with without_bars():
            if file:
                return datasets.load_dataset("parquet", data_files={split: str(path)}, split=split)
            if is_saved(path):
                saved = load_saved(path)
                if split not in saved:
                    raise UsageError(f"{source} has no split {split!r}: name one of {', '.join(saved)}")
                return saved[split]
            return datasets.load_dataset(source, split=split)
    except (*BROKEN, DatasetsError) as error:
        raise ArenaError(
            f"{source}, split {split!r}, cannot be loaded as a data set ({error}): repair it, or name another split"
        ) from error


def _names(source: str, paths: Sequence[str | None]) -> list[str]:
    """The pictures' own relative paths where they have some that differ, else numbers."""
    root, names = Path(source).absolute(), []
    for i, path in enumerate(paths):
        if path is None or Path(path).suffix.lower() not in SUFFIXES:
            names.append(f"{i:06d}.png")
            continue
        name = Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path
        names.append(Path(name).name if escapes(name) else name)
    distinct = len({released_name(name).casefold() for name in names}) == len(names)
    return names if distinct else [f"{i:06d}{PurePosixPath(name).suffix}" for i, name in enumerate(names)]


def _export(source: str, table: Any, image: str, kept: Mapping[str, str], names: Sequence[str], folder: Path) -> None:
    """Write the pictures' own bytes as an imagefolder, so that there is one way to read and check samples."""
    with (folder / METADATA[0]).open("w", encoding="utf-8", newline="\n") as metadata:
        for number, (row, name) in enumerate(zip(table, names, strict=True)):
            picture = row[image]
            if picture is None:
                raise ArenaError(f"{source}: row {number} has no picture in {image!r}: remove the row")
            path = folder / name
            try:
                fields = {
                    f: as_text(with_class_names(row[column], table.features[column])) for f, column in kept.items()
                }
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture["bytes"] or Path(picture["path"]).read_bytes())
                metadata.write(json.dumps({"file_name": name, **fields}) + "\n")
            except (OSError, TypeError, ValueError) as error:  # no picture behind a path, a name or value of no file
                raise ArenaError(
                    f"{source}: row {number}, picture {name!r}, cannot be taken over ({error}): repair or remove it"
                ) from error
