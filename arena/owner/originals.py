"""A data owner's samples as they come: an imagefolder, or anything `datasets` loads, with the pictures' own names."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from arena.data.folder import Listing, has_metadata, list_imagefolder, splits_of
from arena.data.hub.table import BROKEN, encoded_pictures, is_saved, load_saved, without_bars
from arena.data.metadata import FIELDS, METADATA, escapes
from arena.data.pictures.decode import SUFFIXES
from arena.data.pictures.encoding import PNG, Encoding
from arena.data.values import as_text, with_class_names
from arena.errors import ArenaError, Refused, UsageError
from arena.owner.intake import LONGEST, Originals, take
from arena.owner.splits import Split
from arena.paths import exists, is_file, is_folder

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def read_originals(
    source: str,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    limit: int | None = None,
    encoding: Encoding = PNG,
    keep_exif: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Originals:
    """The samples of `source`: a folder, a parquet file, or the hub id of a data set.

    A folder is an imagefolder with ``metadata.jsonl`` or ``metadata.csv`` in it or in its subfolder `split`, was
    written by ``Dataset.save_to_disk``, or holds files that ``datasets.load_dataset`` reads. `columns` maps fields of
    a sample to the source's columns: ``image`` (not for an imagefolder, whose pictures are named by ``file_name``),
    ``question``, ``answer``, ``id``, ``aliases``, ``choices``. `split` may be a part of one, such as ``train[:100]``.
    The first `limit` rows are taken, all where None. The source is only read, and only those rows are.

    A picture that cannot be released, or not in `encoding`, is refused and named; `tell` is told how far reading is.

    Raises `UsageError` for a source, split or column that is not there, `ArenaError` for damaged metadata, or where
    nothing can be released.
    """
    return take(list_originals(source, columns, split, limit), encoding, keep_exif, tell)


@dataclass(frozen=True)
class Source:
    """The rows of a source, pictures not decoded yet, and what is to be said of it; `place` is a temporary folder that
    their files are in, if they are."""

    listing: Listing
    notes: tuple[str, ...] = ()
    place: object = None


def list_originals(
    source: str, columns: Mapping[str, str] | None = None, split: str = "train", limit: int | None = None
) -> Source:
    """The rows of what `read_originals` reads. Raises as that does, but for pictures."""
    columns, part = dict(columns or {}), Split(split)
    if unknown := sorted(set(columns) - {"image", *FIELDS}):
        raise UsageError(f"a sample has no field {unknown[0]!r}: map image, {', '.join(FIELDS)}")
    found = imagefolder(source, split)
    if found is None:
        return _from_datasets(source, columns, split, limit)
    if "image" in columns:
        raise UsageError(
            f"{found.folder} is an imagefolder, which names its pictures in the column file_name: map no image column"
        )
    chosen = None if part.whole and limit is None else (lambda count: part.rows(count)[:limit])
    return Source(list_imagefolder(found.folder, columns, found.below, chosen), found.notes)


@dataclass(frozen=True)
class Place:
    """An imagefolder; with `below` only the rows of the subfolder of that name are meant."""

    folder: Path
    below: str = ""
    notes: tuple[str, ...] = ()


def imagefolder(source: str, split: str) -> Place | None:
    """The imagefolder that `source` is or has as its `split`; None if it is something else."""
    folder, name = Path(source), Split(split).name
    if is_folder(folder / name) and has_metadata(folder / name):
        return Place(folder / name)
    if not has_metadata(folder):
        return None
    if splits := splits_of(folder):
        if name not in splits:
            raise UsageError(f"{folder} has no split {name!r}: name one of {', '.join(splits)}")
        others = ", ".join(f"{other} ({count})" for other, count in splits.items() if other != name)
        return Place(folder, name, (f"rows of other splits were left out: {others}; --split takes them",))
    if name != "train":
        raise UsageError(f"{folder} has no split {name!r}: it is an imagefolder without a subfolder of that name")
    return Place(folder)


def _from_datasets(source: str, columns: Mapping[str, str], split: str, limit: int | None) -> Source:
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
        table = encoded_pictures(table.select_columns([*dict.fromkeys([image, *kept.values()])]), image)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UsageError(f"{source}: column {image!r} (image) holds no pictures ({error}): map another") from error
    place = _Folder()
    names = _names(source, [row[image]["path"] if row[image] else None for row in table])
    where = f"{source}, split {split!r}, row"
    written, refused = _export(where, table, image, kept, names, place.path)
    listing = (
        list_imagefolder(place.path, called=lambda line: f"{where} {written[line - 1]}:") if written else Listing()
    )
    return Source(Listing(listing.entries, [*refused, *listing.refused]), place=place)


class _Folder:
    """A temporary folder that is there as long as this object."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="arena-originals-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _load(source: str, split: str) -> Any:
    """The `datasets.Dataset` of a split."""
    import datasets
    from datasets.exceptions import DatasetsError

    path, part = Path(source), Split(split)
    if not exists(path) and not HUB_ID.fullmatch(source):
        raise UsageError(f"{source} does not exist: name a folder, a parquet file or the hub id of a data set")
    if (file := is_file(path)) and path.suffix != ".parquet":
        raise UsageError(f"{source} is a file: name a folder, a parquet file or the hub id of a data set")
    try:
        with without_bars():
            if not file and not is_saved(path):
                return datasets.load_dataset(source, split=split)
            if file:  # it is train, but for one that its name says to be another
                name = part.name if part.name in re.split(r"[-._ ]", path.stem) else "train"
                saved = {name: datasets.load_dataset("parquet", data_files=str(path), split="train")}
            else:
                saved = load_saved(path)
            if part.name not in saved:
                raise UsageError(f"{source} has no split {part.name!r}: name one of {', '.join(saved)}")
            table = saved[part.name]
            return table if part.whole else table.select(part.rows(len(table)))
    except (*BROKEN, DatasetsError) as error:
        raise ArenaError(
            f"{source}, split {split!r}, cannot be loaded as a data set ({error}): repair it, or name another split"
        ) from error


def _names(source: str, paths: Sequence[str | None]) -> list[str]:
    """The pictures' own relative paths where they have some that differ and that files can have, else numbers."""
    root, names = Path(source).absolute(), []
    for i, path in enumerate(paths):
        if path is None or Path(path).suffix.lower() not in SUFFIXES:
            names.append(f"{i:06d}.png")
            continue
        name = Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path
        names.append(Path(name).name if escapes(name) else name)
    stems = {PurePosixPath(name).with_suffix("").as_posix().casefold() for name in names}
    fit = all(len(part.encode()) <= LONGEST for name in names for part in PurePosixPath(name).parts)
    if fit and len(stems) == len(names):
        return names
    return [f"{i:06d}{PurePosixPath(name).suffix}" for i, name in enumerate(names)]


def _export(
    where: str, table: Any, image: str, kept: Mapping[str, str], names: Sequence[str], folder: Path
) -> tuple[list[int], list[tuple[str, Refused]]]:
    """Write the pictures' own bytes as an imagefolder, so that there is one way to read and check samples. The numbers
    of the rows that are in it, and the others with why they cannot be."""
    written: list[int] = []
    refused: list[tuple[str, Refused]] = []
    with (folder / METADATA[0]).open("w", encoding="utf-8", newline="\n") as metadata:
        for number, (row, name) in enumerate(zip(table, names, strict=True)):
            picture, path = row[image], folder / name
            try:
                if picture is None:
                    raise Refused(f"{where} {number}", f"has no picture in {image!r}", "remove the row")
                fields = {
                    f: as_text(with_class_names(row[column], table.features[column])) for f, column in kept.items()
                }
                text = json.dumps({"file_name": name, **fields})
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture["bytes"] or Path(picture["path"]).read_bytes())
            except Refused as error:
                refused.append((name, error))
            except (OSError, TypeError, ValueError) as error:  # no picture behind a path, a name or value of no file
                reason = f"cannot be taken over ({error})"
                refused.append((name, Refused(f"{where} {number}, picture {name!r},", reason, "repair or remove it")))
            else:
                written.append(number)
                metadata.write(text + "\n")
    return written, refused
