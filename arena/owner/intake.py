"""What of an owner's rows can be released: every picture is looked at once, before anything is crafted; one that cannot
be is refused with a reason and a remedy, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from PIL import Image
from pydantic import BaseModel, ConfigDict

from arena.data.folder import Entry
from arena.data.names import folded
from arena.data.pictures.decode import Picture, read_picture
from arena.data.pictures.encoding import Encoding
from arena.data.pictures.extras import Extras
from arena.data.sample import Sample
from arena.data.shelf import ShelvedImage, shelved
from arena.errors import ArenaError, Refused
from arena.text import shortened

if TYPE_CHECKING:
    from arena.owner.originals import Source

LONGEST = 255
"""Bytes of a file's name, at most, on the file systems in use."""

_NAMED = 5
"""Pictures that an error names."""


class Refusal(BaseModel):
    """A picture that is not released: the path of its file in the source, why, and what would help."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Originals:
    """Samples in the source's order, as a file in the encoding of the release shows them; of each the picture before
    that, the relative path of its file, what is kept beside its pixels, and what was changed to make it one that a
    release can have. `refused` are the pictures that are none of them, `notes` what else is to be said."""

    samples: list[Sample]
    pictures: list[Image.Image]
    files: list[str]
    extras: list[Extras]
    changes: list[tuple[str, ...]]
    refused: list[Refusal]
    notes: tuple[str, ...] = ()

    def without(self, refused: dict[int, Refusal]) -> Originals:
        """Those that are left when the samples of these numbers are refused too. Raises as `take` if none is."""
        kept = [i for i in range(len(self.samples)) if i not in refused]
        if not kept:
            raise nothing_left([f"{r.file!r} {r.reason}: {r.remedy}" for r in refused.values()])
        return replace(
            self,
            samples=[self.samples[i] for i in kept],
            pictures=[self.pictures[i] for i in kept],
            files=[self.files[i] for i in kept],
            extras=[self.extras[i] for i in kept],
            changes=[self.changes[i] for i in kept],
            refused=[*self.refused, *refused.values()],
        )


def take(
    source: Source, encoding: Encoding, keep_exif: bool = False, tell: Callable[[str], None] | None = None
) -> Originals:
    """The samples that can be released in an `encoding`. Raises `ArenaError` where there are none."""
    found = Originals([], [], [], [], [], [], source.notes)
    errors: list[Refused] = []
    taken: dict[str, str] = {}

    def refuse(file: str, error: Refused) -> None:
        errors.append(error)
        found.refused.append(Refusal(file=file, reason=error.reason, remedy=error.remedy))

    for number, entry in enumerate(source.listing.entries, 1):
        if tell is not None:
            tell(f"reading picture {number} of {len(source.listing.entries)}")
        try:
            _refuse_name(entry, encoding, taken)
            image, first = _shelved(entry, keep_exif, source.place)
            if problem := encoding.problem(image):
                raise Refused(entry.where, *problem)
        except Refused as unusable:
            refuse(entry.file, unusable)
            continue
        taken[folded(encoding.renamed(entry.file))] = entry.file
        found.samples.append(as_published(entry.about(image), encoding))
        found.pictures.append(image)
        found.files.append(entry.file)
        found.extras.append(first.extras)
        found.changes.append(first.changes)
    for file, refusal in source.listing.refused:
        refuse(file, refusal)
    if not found.samples:
        if len(errors) == 1:
            raise errors[0]
        raise nothing_left([str(error) for error in errors])
    return found


def as_published(sample: Sample, encoding: Encoding) -> Sample:
    """A sample as a file in `encoding` shows it."""
    if not encoding.lossy:
        return sample
    image = sample.image
    shown = ShelvedImage(lambda: encoding.published(image), image.size, image.mode)
    return sample.with_content(shown, sample.question)


def not_all(refused: Sequence[Refusal]) -> ArenaError:
    """The error of a run that was to release everything or nothing."""
    said = listed([f"{r.file!r} {r.reason}: {r.remedy}" for r in refused])
    return ArenaError(f"{len(refused)} pictures cannot be released, and --strict asks for all: {said}")


def nothing_left(errors: Sequence[str]) -> ArenaError:
    """The error of a source of which nothing can be released."""
    return ArenaError(f"none of its {len(errors)} pictures can be released: {listed(errors)}")


def listed(errors: Sequence[str]) -> str:
    """The first few of some errors, and how many more there are."""
    more = f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
    return "; ".join(shortened(error, 300) for error in errors[:_NAMED]) + more


@dataclass(frozen=True)
class _Beside:
    extras: Extras
    changes: tuple[str, ...]


def _shelved(entry: Entry, keep_exif: bool, place: object) -> tuple[Image.Image, _Beside]:
    """An entry's picture, to be decoded again where memory has no room for it, and what was beside its pixels; `place`
    is what its file is in, and lives as long as the picture."""
    seen: list[_Beside] = []

    def read() -> Image.Image:
        picture: Picture = read_picture(entry.path, entry.where, keep_exif)
        if not seen:
            seen.append(_Beside(picture.extras, picture.changes))
        return picture.image

    image = shelved(entry.path, entry.where, read)
    vars(image)["place"] = place
    return image, seen[0]


def _refuse_name(entry: Entry, encoding: Encoding, taken: dict[str, str]) -> None:
    """Raise `Refused` where a picture's file would be that of another one, or have a name that no file can have."""
    name = encoding.renamed(entry.file)
    if any(len(part.encode()) > LONGEST for part in PurePosixPath(name).parts):
        reason = f"would be released under a name of more than {LONGEST} bytes, which no file can have"
        raise Refused(entry.where, reason, "rename it")
    other = taken.get(folded(name), entry.file)
    if other != entry.file:  # of which there may be several questions
        raise Refused(entry.where, f"would be released as {name!r}, as {other!r} is", "rename one")
