"""Datasets of the field by hub id or local folder: what they share. A dataset's own file says how it reads a row."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from arena.budget import mode_problem
from arena.data.embedded.draw import Drawing, divide
from arena.data.fingerprint import LocalConfig, folder_fingerprint
from arena.data.hub.table import encoded_pictures, open_split
from arena.data.pictures.decode import decode
from arena.data.sample import Sample, Splits
from arena.data.values import with_class_names
from arena.errors import ArenaError, UsageError
from arena.hub_commit import resolve
from arena.paths import is_folder
from arena.plugins.base import Dataset, setting

Row = Mapping[str, Any]
"""A row of the data set by the dataset's own field names."""

_WHERE = ("subset", "revision", "training_split", "evaluation_split", "columns", "fingerprint")
"""Settings that say where in the published data something is found."""

_AS = {"1": "L", "P": "RGB", "PA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB"}
"""Modes that a release cannot have, and what the field's image processors make of them."""


class Exchange(NamedTuple):
    """What a row says beside its picture; see `Sample`."""

    question: str
    answer: str
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


class HubConfig(LocalConfig):
    """Settings of every dataset that is read with `datasets`."""

    subset: str = Field("", description="configuration of the data set, where it has several")
    revision: str = setting(
        "main", runtime=True, description="branch, tag or commit of a hub id; a commit stays what it is"
    )
    training_split: str = Field("train", description="split of training and auxiliary samples")
    evaluation_split: str = Field("test", description="split of test samples; if it is the other one, that is divided")
    columns: dict[str, str] = Field(
        default_factory=dict, description="fields by name with the column to take instead of the published one"
    )
    instruction: str = Field("", description="last line of every question; empty for none")


class HubDataset(Dataset):
    """A published data set of pictures with questions."""

    fields: ClassVar[Mapping[str, str]] = {"image": "image", "question": "question", "answer": "answer"}
    """The columns of the published data set that are read, by field name; one of them is ``image``."""
    fixture: ClassVar[str] = ""
    """Key of `arena.data.fixtures.FIXTURES` for its schema; without one there is no dry run of it."""
    packages = ("datasets", "pillow")

    config: HubConfig

    @abstractmethod
    def exchange(self, row: Row) -> Exchange:
        """The question and answer of a row. Raises `ValueError` saying what is wrong with it."""

    def wanted(self, row: Row) -> bool:
        """Whether a row belongs to the task; its picture is not decoded yet."""
        return True

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        """Training and auxiliary samples from the training split, test samples from the evaluation split, by the seed.

        No picture is in two parts of one split; official splits are taken as they are. A sample's id has its split and
        row. Raises `ArenaError` for data that cannot be reached, used or decoded, `UsageError` for a wrong column or
        for more samples than there are.
        """
        c = self.config
        ours, theirs = np.random.SeedSequence(seed).spawn(2)
        training = self._drawing(c.training_split, ours)
        if c.evaluation_split == c.training_split:
            return divide(training, train, auxiliary, test)
        scored = self._drawing(c.evaluation_split, theirs).take("test", test) if test else ()
        return Splits(training.take("training", train), training.take("auxiliary", auxiliary), scored)

    def fingerprint(self) -> str:
        """Digest of the files where `source` is a folder, else id and commit.

        Raises `UnresolvedRevision` where the hub cannot say the commit, `UsageError` for other data than those that the
        setting `fingerprint` names.
        """
        c, folder = self.config, Path(self.config.source)
        if is_folder(folder):
            return c.identified(folder_fingerprint(folder))
        return c.identified(f"{c.source}@{resolve(c.source, c.revision, 'dataset')}")

    def pinned(self) -> Mapping[str, Any]:
        c = self.config
        return {} if is_folder(c.source) else {"revision": resolve(c.source, c.revision, "dataset")}

    def dry_run(self, folder: Path, rows: int) -> Mapping[str, Any] | None:
        from arena.data.fixtures import FIXTURES, write

        if not self.fixture:
            return None
        write(self.fixture, folder, dict.fromkeys(FIXTURES[self.fixture].splits, rows))
        fields = type(self.config).model_fields
        return {**{name: fields[name].get_default(call_default_factory=True) for name in _WHERE}, "source": str(folder)}

    def _drawing(self, split: str, seed: np.random.SeedSequence) -> Drawing:
        c = self.config
        if unknown := sorted(set(c.columns) - set(self.fields)):
            raise UsageError(f"{self._name} has no field {unknown[0]!r}: map {', '.join(self.fields)}")
        columns = {**self.fields, **c.columns}
        table = open_split(c.source, c.subset, c.revision, split)
        where = f"data set {c.source!r}, split {split!r}"
        for field, column in columns.items():
            if column not in table.column_names:
                raise UsageError(
                    f"{where}: column {column!r} ({field}) is missing; there are {', '.join(table.column_names)}: "
                    f"map one of them, as in columns: {{{field}: {table.column_names[0]}}}"
                )
        try:
            table = encoded_pictures(table.select_columns([*dict.fromkeys(columns.values())]), columns["image"])
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UsageError(
                f"{where}: column {columns['image']!r} (image) holds no pictures ({error}): map another"
            ) from error

        def at(number: int) -> Sample | None:
            found = table[number]
            row = {field: with_class_names(found[column], table.features[column]) for field, column in columns.items()}
            return self._sample(row, f"{self._name}-{split}-{number:06d}", f"{where}, row {number}")

        return Drawing(where, len(table), at, seed)

    @property
    def _name(self) -> str:
        return type(self).__name__.lower()

    def _sample(self, row: Row, id: str, where: str) -> Sample | None:
        if not self.wanted(row):
            return None
        try:
            said = self.exchange(row)
        except ValueError as error:
            raise ArenaError(f"{where}: {error}") from error
        if row["image"] is None:
            raise ArenaError(f"{where}: it has no picture: remove the row")
        question = "\n".join(line for line in (said.question.strip(), self.config.instruction) if line)
        return Sample(id, _picture(row["image"], where), question, said.answer, said.aliases, said.choices)


def text(row: Row, field: str) -> str:
    """A text of a row, or a whole number as one, without white space around it. Raises `ValueError` if it is none or
    empty."""
    value = row[field]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{field} is {value!r} where a text is needed: take a split that has answers, or map another column"
        )
    return value.strip()


def texts(row: Row, field: str) -> tuple[str, ...]:
    """The texts of a list, without white space around them; some may be empty.

    Raises `ValueError` if all of them are, or something in the list is no text.
    """
    value = row[field]
    listed = isinstance(value, list) and all(isinstance(v, str) for v in value)
    if not listed or not any(v.strip() for v in value):
        raise ValueError(
            f"{field} is {value!r} where a list of texts is needed: take a split that has answers, or map another "
            "column"
        )
    return tuple(v.strip() for v in value)


def _picture(encoded: Mapping[str, Any], where: str) -> Image.Image:
    content, path = encoded["bytes"], encoded["path"]
    image = decode(io.BytesIO(content) if content is not None else Path(path), f"{where}: the picture")
    if image.mode in _AS:
        image = image.convert("RGBA" if image.mode == "P" and "transparency" in image.info else _AS[image.mode])
    if problem := mode_problem(image):
        raise ArenaError(f"{where}: the picture cannot be used: {problem}")
    return Image.fromarray(np.asarray(image))
