"""Anybody's own data: a folder of pictures with a metadata file, in Hugging Face's ``imagefolder`` layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Literal

import numpy as np
from pydantic import Field

from arena.data.embedded.draw import Drawing, divide
from arena.data.fingerprint import LocalConfig, files_fingerprint
from arena.data.folder import PARTS, files_of, has_metadata, list_imagefolder, splits_of
from arena.data.sample import Sample, Splits
from arena.errors import ArenaError, UsageError
from arena.paths import is_folder
from arena.plugins.base import Dataset, PluginConfig, setting


class ImageFolder(Dataset):
    """A folder of pictures with ``metadata.jsonl`` or ``metadata.csv``: columns file_name, question, answer, and where
    there are any id, aliases and choices, which are listed in the question.

    With the subfolders ``train`` and ``test``, each with metadata of its own or both with the folder's, training and
    auxiliary samples come from the one and test samples from the other; a folder without them is divided by the seed,
    no picture in two parts. Pictures are decoded when they are drawn.
    """

    class Config(LocalConfig):
        source: str = setting(runtime=True, description="the folder")
        columns: dict[str, str] = Field(
            default_factory=dict, description="fields (id, question, answer, aliases, choices) with the column to take"
        )
        scoring: Literal["exact", "normalized", "choice"] = Field(
            "normalized", description="which answers count; choice needs the letter of the right option as answer"
        )

    config: Config
    packages = ("pillow",)

    def __init__(self, config: PluginConfig | None = None) -> None:
        super().__init__(config)
        vars(self)["convention"] = self.config.scoring  # of the class elsewhere, of the user's data here

    def fingerprint(self) -> str:
        """Digest of metadata and pictures.

        Raises `UsageError` where there is no folder, or other data than those that the setting `fingerprint` names.
        """
        folder = Path(self.config.source)
        if not is_folder(folder):
            raise UsageError(f"{folder} is not a folder: name one that holds pictures and a metadata.jsonl or .csv")
        files = (file for place in self._places() for file in files_of(place))
        return self.config.identified(files_fingerprint(folder, files))

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        """The folder's samples, or those of its two subfolders, divided by the seed.

        Raises `ArenaError` as `read_imagefolder`, `UsageError` for more samples than there are.
        """
        ours, theirs = np.random.SeedSequence(seed).spawn(2)
        folder, *others = self._places()
        if others:
            training, scored = self._drawing(folder, ours), self._drawing(others[0], theirs)
        elif splits_of(folder):
            training, scored = (self._drawing(folder, of, part) for of, part in zip((ours, theirs), PARTS, strict=True))
        else:
            return divide(self._drawing(folder, ours), train, auxiliary, test)
        tested = scored.take("test", test)
        return Splits(training.take("training", train), training.take("auxiliary", auxiliary), tested)

    def _places(self) -> list[Path]:
        """The folder that has the metadata, or the two subfolders where these have metadata of their own."""
        folder = Path(self.config.source)
        parts = [folder / name for name in PARTS]
        return parts if all(is_folder(part) and has_metadata(part) for part in parts) else [folder]

    def _drawing(self, folder: Path, seed: np.random.SeedSequence, below: str = "") -> Drawing:
        entries = list_imagefolder(folder, self.config.columns, below).all()
        for entry in entries if self.config.scoring == "choice" else ():
            letters = ascii_uppercase[: len(entry.texts.choices) or None]
            if len(entry.texts.answer) != 1 or entry.texts.answer.upper() not in letters:
                raise ArenaError(
                    f"{folder}: sample {entry.id!r} has the answer {entry.texts.answer!r}: scoring by choice needs the "
                    f"letter of the right option, one of {letters[0]} to {letters[-1]}"
                )
        # The same file name may be in both of two folders.
        prefix = "" if folder == Path(self.config.source) else f"{folder.name}/"

        def at(index: int) -> Sample:
            sample = entries[index].sample()
            return replace(sample, id=f"{prefix}{sample.id}")

        return Drawing(str(folder / below), len(entries), at, seed)
