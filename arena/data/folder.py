"""Samples from a folder of pictures with a metadata file beside them, Hugging Face's ``imagefolder`` layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image

from arena.data.litter import is_data
from arena.data.metadata import FIELDS, METADATA, Texts, escapes, read_rows, text_of, texts_of
from arena.data.multiple_choice import asked
from arena.data.names import Names, folded
from arena.data.pictures.decode import RAW, SUFFIXES, read_picture
from arena.data.sample import Sample
from arena.data.shelf import shelved
from arena.errors import ArenaError, Refused, UsageError
from arena.paths import is_file, is_folder

PARTS = "train", "test"
"""The subfolders of training and test samples, where a folder has them."""

Chosen = Callable[[int], Sequence[int]]
"""Which rows are looked at, by their numbers from 0, of so many."""
Called = Callable[[int], str]
"""What a row is called in errors, by its line number."""


@dataclass(frozen=True)
class Entry:
    """A row whose texts are good, with a picture that is not decoded yet: `file` is its name in the data, `path` where
    it lies, `where` names it in errors."""

    id: str
    file: str
    path: Path
    where: str
    texts: Texts

    def about(self, image: Image.Image) -> Sample:
        """The row's sample about a picture."""
        t = self.texts
        return Sample(self.id, image, t.question, t.answer, t.aliases, t.choices)

    def sample(self) -> Sample:
        """The row's sample, with its picture in a mode that a release can have. Raises as `read_picture`."""
        return self.about(shelved(self.path, self.where, lambda: read_picture(self.path, self.where).image))


@dataclass(frozen=True)
class Listing:
    """The rows of a folder in order: those that can be used, as far as that is known without decoding a picture, and
    the others, by the name of the picture."""

    entries: list[Entry] = field(default_factory=list)
    refused: list[tuple[str, Refused]] = field(default_factory=list)

    def all(self) -> list[Entry]:
        """The entries. Raises the first refusal if there is one, with the number of the others."""
        if len(self.refused) == 1:
            raise self.refused[0][1]
        if self.refused:
            raise ArenaError(f"{self.refused[0][1]} (one of {len(self.refused)} that cannot be used)")
        return self.entries


def read_imagefolder(folder: Path, columns: Mapping[str, str] | None = None) -> list[Sample]:
    """The samples of a folder of pictures and a ``metadata.jsonl`` or ``metadata.csv`` with a ``file_name`` column.

    `columns` maps fields of a sample (``id``, ``question``, ``answer``, ``aliases``, ``choices``) to the folder's own
    column names; those not mapped go by their own names. Without ids, file names serve. Pictures are as `read_picture`
    gives them. In a CSV file aliases and choices are JSON lists. Choices are put into the question, see
    `arena.data.multiple_choice.asked`.

    Raises `UsageError` for a wrong folder or mapping, `ArenaError` naming file, line and remedy for what is missing,
    damaged, duplicated or too large.
    """
    return [entry.sample() for entry in list_imagefolder(folder, columns).all()]


def list_imagefolder(
    folder: Path,
    columns: Mapping[str, str] | None = None,
    below: str = "",
    chosen: Chosen | None = None,
    called: Called | None = None,
) -> Listing:
    """The rows of an imagefolder without their pictures; of a folder that has one metadata file for several, those
    whose pictures are `below` the subfolder of that name. `chosen` says which of so many rows are looked at, all where
    None; `called` what the row of a line number is called in errors.

    A picture of the folder without a row is refused, unless it is one that systems and tools leave there for themselves
    (see `is_data`), or only some of the rows were asked for. Raises as `read_imagefolder`, but not for single rows.
    """
    if unknown := sorted(set(columns or {}) - set(FIELDS)):
        raise UsageError(f"a sample has no field {unknown[0]!r}: map {', '.join(FIELDS)}")
    named = {name: name for name in FIELDS} | dict(columns or {})
    return _asked(list_rows(folder, named, ("question", "answer", *(columns or {})), below, chosen, called))


def _asked(listing: Listing) -> Listing:
    """The rows with their choices in the question; those whose choices cannot be listed are refused."""
    found = Listing(refused=list(listing.refused))
    for entry in listing.entries:
        try:
            question = asked(entry.about(Image.new("L", (1, 1)))).question
        except ArenaError:
            reason = f"has {len(entry.texts.choices)} choices, which need a text each, and a letter each from A to Z"
            found.refused.append((entry.file, Refused(entry.where, reason, "repair the row")))
        else:
            found.entries.append(replace(entry, texts=replace(entry.texts, question=question)))
    return found


def has_metadata(folder: Path) -> bool:
    """Whether a folder is an imagefolder."""
    return any(is_file(folder / name) for name in METADATA)


def parts_of(folder: Path) -> dict[str, int]:
    """The number of rows of each of `PARTS`, which have metadata of their own or share the folder's; none where a
    folder is not divided so."""
    places = [folder / name for name in PARTS]
    if all(is_folder(place) and has_metadata(place) for place in places):
        return {place.name: len(named_files(place)) for place in places}
    return splits_of(folder) if has_metadata(folder) else {}


def splits_of(folder: Path) -> dict[str, int]:
    """The splits of a folder that has one metadata file for several, with the number of their rows: its subfolders,
    where `PARTS` are among them; none of any other folder."""
    found = Counter(PureWindowsPath(file).parts[0] for file in named_files(folder))
    return dict(found) if set(PARTS) <= set(found) else {}


def named_files(folder: Path) -> list[str]:
    """The pictures that a folder's metadata name, those rows left out that name none."""
    rows = (row.get("file_name") for _, row in read_rows(metadata_of(folder)))
    return [name for name in rows if isinstance(name, str) and not escapes(name)]


def files_of(folder: Path) -> list[Path]:
    """The files that an imagefolder is: its metadata, and the pictures that they name."""
    names = Names(folder)
    found = (names.find(file) for file in dict.fromkeys(named_files(folder)))
    return [metadata_of(folder), *(path for path in found if path is not None)]


def metadata_of(folder: Path) -> Path:
    """The metadata file of an imagefolder. Raises `UsageError` where there is none."""
    if not is_folder(folder):
        raise UsageError(f"{folder} is not a folder: name one that holds pictures and a metadata.jsonl or metadata.csv")
    for name in METADATA:
        if is_file(path := folder / name):
            return path
    below = sorted(p.parent.name for p in folder.glob("*/metadata.*") if is_data(p.relative_to(folder)))
    hint = f"; its subfolders {', '.join(below)} have one: name one of them" if below else ""
    raise UsageError(f"{folder} has no metadata.jsonl or metadata.csv{hint}")


def list_rows(
    folder: Path,
    columns: Mapping[str, str],
    required: Sequence[str],
    below: str = "",
    chosen: Chosen | None = None,
    called: Called | None = None,
) -> Listing:
    """As `list_imagefolder`; `columns` names every field, the fields `required` must have their column."""
    metadata, names, listing = metadata_of(folder), Names(folder), Listing()
    called = called or (lambda line: f"{metadata}, line {line}:")
    ids: dict[str, int] = {}
    asked: Counter[str] = Counter()
    named: set[str] = set()
    rows = [(line, row) for line, row in read_rows(metadata) if _is_below(row.get("file_name"), below)]
    for line, row in rows if chosen is None else [rows[i] for i in chosen(len(rows))]:
        where, file = called(line), row.get("file_name")
        path = names.find(file) if isinstance(file, str) and not escapes(file) else None
        if path is not None:
            named.add(path.relative_to(folder).as_posix())
        try:
            texts = texts_of(row, columns, required, where)
            file = text_of(row, "file_name", where)
            if path is None:
                raise _no_file(file, names, where)
            asked[file] += 1
            again = f"#{asked[file]}" if asked[file] > 1 else ""  # one picture, several questions
            id = f"{file}{again}" if texts.id is None else texts.id
            if (other := ids.setdefault(id, line)) != line:
                raise Refused(where, f"id {id!r} is already used in line {other}", "remove or rename one")
            listing.entries.append(Entry(id, file, path, f"{where} {path.name!r}", texts))
        except Refused as error:
            listing.refused.append((file if isinstance(file, str) and file else f"line {line}", error))
    if chosen is None:
        listing.refused.extend(_without_row(names, named, metadata, below))
    if not listing.entries and not listing.refused:
        raise ArenaError(f"{metadata} has no rows: one a picture is needed")
    return listing


def _no_file(file: str, names: Names, where: str) -> Refused:
    if escapes(file):
        return Refused(where, f"file_name {file!r} leads out of the folder", "use relative paths without '..'")
    where = f"{where} {PurePosixPath(file).name!r}"
    if like := names.like(file):
        reason = f"may be {' or '.join(map(repr, like))}"
        return Refused(where, reason, "write the name just as the folder has it")
    return Refused(where, "is not in the folder", "add the picture or remove the row")


def _without_row(names: Names, named: set[str], metadata: Path, below: str) -> Iterator[tuple[str, Refused]]:
    """The folder's pictures that no row names, or names by a name that its file system has for the same."""
    same = {folded(file) for file in named - set(names.listed)}
    for file in names.listed:
        picture = PurePosixPath(file).suffix.lower() in SUFFIXES | RAW and _is_below(file, below)
        if picture and file not in named and folded(file) not in same:
            where = f"{metadata}: the picture {file!r}"
            yield file, Refused(where, "has no row", "add one, or remove the picture")


def _is_below(file: object, folder: str) -> bool:
    """Whether a picture lies in a subfolder; of a row that names none nobody knows."""
    return not folder or (isinstance(file, str) and file.replace("\\", "/").removeprefix("./").startswith(f"{folder}/"))
