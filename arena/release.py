"""Clean samples to the bytes that leave the owner's hands, and back: 8-bit pictures and UTF-8 text, an ``imagefolder``.

A release on disk is a folder of pictures, PNG files by default, and a ``metadata.jsonl`` with the columns
``file_name``, ``id``, ``question``, ``answer``, ``aliases`` and ``choices``;
``datasets.load_dataset("imagefolder", data_dir=...)`` reads it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from arena.budget import Budget, check, mode_problem
from arena.data.folder import Entry, list_rows, read_imagefolder
from arena.data.metadata import FIELDS, escapes
from arena.data.names import folded
from arena.data.pictures.decode import RELEASED, decode
from arena.data.pictures.encoding import PNG, Encoding, in_mode
from arena.data.pictures.extras import Extras
from arena.data.sample import Sample
from arena.data.shelf import shelved
from arena.errors import ArenaError, Refused, UsageError
from arena.plugins.base import Draft, Pixels

__all__ = ["build_release", "read_imagefolder", "read_release", "write_release"]

# A float that should be 1 may be a last place above it; it rounds to the same byte.
_SLACK = 1e-6


def build_release(
    samples: Sequence[Sample],
    drafts: Iterable[Draft],
    budget: Budget,
    count_tokens: Callable[[str], int] | None = None,
) -> list[Sample]:
    """Round each draft to 8 bits, check it against its original, and return the released samples, in order.

    `count_tokens` is as in `arena.budget.check`. Raises `ArenaError` for a draft that is not a picture and a text or
    for a wrong number of drafts, `BudgetError` for one out of budget; both name the sample.
    """
    released: list[Sample] = []
    for index, (original, draft) in enumerate(zip(samples, round_drafts(samples, drafts), strict=True)):
        sample = original.with_content(draft.image, draft.question)
        check(original, sample, budget, count_tokens, index)
        released.append(sample)
    return released


@dataclass(frozen=True, slots=True)
class Rounded:
    """A draft in the bytes that would be released, not yet held against its original."""

    image: Image.Image
    question: str


def round_drafts(samples: Sequence[Sample], drafts: Iterable[Draft]) -> Iterator[Rounded]:
    """Each draft rounded to 8 bits, without metadata. Raises `ArenaError`, as `build_release` does, but checks no
    budget."""
    count = 0
    for index, draft in enumerate(drafts):
        if index == len(samples):
            raise ArenaError(f"release: the defense returned more drafts than the {len(samples)} samples it was given")
        original = samples[index]
        where = f"release: sample {index} ({original.id!r})"
        if not isinstance(draft, Draft) or not isinstance(draft.question, str):
            raise ArenaError(f"{where}: the defense must return an arena.plugins.base.Draft of a picture and a text")
        if problem := mode_problem(original.image):
            raise ArenaError(f"{where}: {problem}")
        yield Rounded(_to_bytes(draft.image, original.image, where), draft.question)
        count += 1
    if count < len(samples):
        raise ArenaError(
            f"release: the defense returned {count} drafts for {len(samples)} samples: the first missing is that of "
            f"sample {count} ({samples[count].id!r})"
        )


_QUESTIONS = "questions.json"


def write_drafts(drafts: Iterable[Rounded], folder: Path) -> None:
    """Drafts as numbered PNG files and a list of their questions, in a new folder; one at a time is in memory."""
    folder.mkdir()
    questions = []
    for index, draft in enumerate(drafts):
        draft.image.save(folder / f"{index:06d}.png", "PNG", compress_level=1)  # read once, soon
        questions.append(draft.question)
    (folder / _QUESTIONS).write_text(json.dumps(questions) + "\n", encoding="utf-8")


def read_questions(folder: Path) -> list[str]:
    """The questions of drafts that `write_drafts` wrote. Raises `ArenaError`."""
    try:
        found = json.loads((folder / _QUESTIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArenaError(f"release: the questions of its drafts cannot be read ({error})") from None
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ArenaError("release: the questions of its drafts are no list of texts")
    return found


def read_drafts(folder: Path, originals: Sequence[Sample]) -> list[Sample]:
    """The originals with the pictures and questions of drafts that `write_drafts` wrote, whoever wrote them: nothing is
    decoded that has not the size of its original. Raises `ArenaError` naming the sample."""
    questions = read_questions(folder)
    if len(questions) != len(originals):
        raise ArenaError(f"release: there are {len(questions)} drafts for {len(originals)} samples")
    found = []
    for index, (original, question) in enumerate(zip(originals, questions, strict=True)):
        where = f"release: sample {index} ({original.id!r}): its picture"
        path = folder / f"{index:06d}.png"
        image = shelved(path, where, partial(_decoded, path, where, original.image.size))
        found.append(original.with_content(image, question))
    return found


def _decoded(path: Path, where: str, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.asarray(decode(path, where, size, only=RELEASED)))


HIDDEN = "?"
"""What stands for an answer that is not for the reader."""


def copy_release(source: Path, target: Path, first: int | None = None, answers: bool = True) -> None:
    """Copy a release that `write_release` wrote, or its `first` samples; without `answers` also ids say nothing.

    Pictures are copied as files and not decoded.
    """
    target.mkdir(parents=True)
    with (
        (source / "metadata.jsonl").open(encoding="utf-8") as rows,
        (target / "metadata.jsonl").open("w", encoding="utf-8", newline="\n") as copied,
    ):
        for index, line in enumerate(rows):
            if first is not None and index >= first:
                break
            row = json.loads(line)
            shutil.copyfile(source / row["file_name"], target / row["file_name"])
            if not answers:
                row |= {"id": f"{index:06d}", "answer": HIDDEN, "aliases": []}
            copied.write(json.dumps(row, ensure_ascii=False) + "\n")


def _to_bytes(pixels: Pixels, original: Image.Image, where: str) -> Image.Image:
    """An 8-bit picture without metadata; raises `ArenaError` if `pixels` is not one, up to rounding."""
    if isinstance(pixels, Image.Image):
        if problem := mode_problem(pixels):
            raise ArenaError(f"{where}: {problem}")
        return Image.fromarray(np.asarray(pixels))
    if not isinstance(pixels, np.ndarray) or not np.issubdtype(pixels.dtype, np.floating):
        kind = f"an array of {pixels.dtype}" if isinstance(pixels, np.ndarray) else f"a {type(pixels).__name__}"
        raise ArenaError(f"{where}: the picture is {kind}: return a PIL image or a float array in [0, 1]")
    wanted = np.asarray(original).shape
    if pixels.shape != wanted and pixels.shape != (*wanted[:2], len(original.getbands())):
        raise ArenaError(
            f"{where}: the picture has shape {pixels.shape}, the original {wanted}: keep size and channels"
        )
    if not np.isfinite(pixels).all():
        raise ArenaError(f"{where}: {int((~np.isfinite(pixels)).sum())} pixel values are NaN or infinite")
    low, high = float(pixels.min()), float(pixels.max())
    if low < -_SLACK or high > 1 + _SLACK:
        raise ArenaError(f"{where}: pixel values run from {low:.6g} to {high:.6g}: project them onto [0, 1]")
    rounded = np.empty(wanted, np.uint8)
    for row, values in enumerate(pixels.reshape(wanted)):  # one by one: of a photograph float64 would take gigabytes
        rounded[row] = np.rint(values.astype(np.float64) * 255)
    return Image.fromarray(rounded)


def write_release(
    samples: Iterable[Sample],
    folder: Path,
    names: Sequence[str] | None = None,
    encoding: Encoding = PNG,
    extras: Callable[[int], Extras] | None = None,
) -> None:
    """Write samples as pictures and ``metadata.jsonl`` into `folder`, which is made or must be empty.

    The bytes are a function of the samples and of what `extras` gives for each, by its place, to be kept beside the
    pixels. Files are numbered, or take the relative paths `names`, one a sample, with the suffix of the `encoding`;
    samples of one name must have one picture, and share its file. Raises `UsageError` for a folder in use and for bad
    or colliding names, `ArenaError` for a picture that cannot be written.
    """
    if names is None:
        samples = list(samples)
        files = [encoding.renamed(f"{i:06d}") for i in range(len(samples))]
    else:
        files = _files(names, encoding)
        if isinstance(samples, Sequence) and len(samples) != len(files):
            raise UsageError(f"release: {len(files)} names for {len(samples)} samples: give one a sample")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UsageError(f"release: the folder {folder} is not empty: name a new one")
    written: dict[str, bytes] = {}
    with (folder / "metadata.jsonl").open("w", encoding="utf-8", newline="\n") as metadata:
        for index, sample in enumerate(samples):
            file = files[index]
            if problem := mode_problem(sample.image):
                raise ArenaError(f"release: sample {sample.id!r}: {problem}")
            if unfit := encoding.problem(sample.image):
                raise Refused(f"release: sample {sample.id!r}", *unfit)
            content = encoding.encode(sample.image, extras(index) if extras else None)
            if written.setdefault(file, digest := sha256(content).digest()) != digest:
                raise ArenaError(f"release: sample {sample.id!r} has another picture than an earlier one in {file!r}")
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            row = {"file_name": file, **{field: getattr(sample, field) for field in FIELDS}}
            metadata.write(json.dumps(row, ensure_ascii=False) + "\n")


def _files(names: Sequence[str], encoding: Encoding) -> list[str]:
    """The relative paths of pictures of these names."""
    files = [encoding.renamed(name) for name in names]
    seen: dict[str, str] = {}
    for file, name in zip(files, names, strict=True):
        if escapes(file):
            raise UsageError(f"release: the name {name!r} leads out of the folder: use relative paths without '..'")
        if (other := seen.setdefault(folded(file), name)) != name:
            raise UsageError(f"release: the names {other!r} and {name!r} would be one file {file!r}: rename one")
    return files


def read_release(folder: Path, modes: Sequence[str] | None = None) -> list[Sample]:
    """The samples of a folder that `write_release` wrote; each in the mode of its place in `modes`, where its format
    has none such of its own (see `in_mode`).

    Raises `ArenaError` naming file, line and remedy for whatever is missing, damaged, duplicated or oversized.
    """
    entries = list_rows(folder, {field: field for field in FIELDS}, required=FIELDS).all()
    wanted = [""] * len(entries) if modes is None else modes
    if len(wanted) != len(entries):
        raise ArenaError(f"{folder} has {len(entries)} samples instead of {len(wanted)}")
    return [
        entry.about(shelved(entry.path, entry.where, partial(_as_it_is, entry, mode)))
        for entry, mode in zip(entries, wanted, strict=True)
    ]


def _as_it_is(entry: Entry, mode: str) -> Image.Image:
    image = in_mode(decode(entry.path, entry.where, only=RELEASED), mode)
    if problem := mode_problem(image):
        raise ArenaError(f"{entry.where} cannot be used: {problem}")
    return Image.fromarray(np.asarray(image))
