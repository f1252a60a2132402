"""Anybody's own data: a folder of pictures with a metadata file, in Hugging Face's ``imagefolder`` layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Literal

import numpy as np
from pydantic import Field

from arena.data.embedded.draw import Drawing, divide
from arena.data.fingerprint import LocalConfig, folder_fingerprint
from arena.data.folder import is_read, read_imagefolder
from arena.data.sample import Splits
from arena.errors import ArenaError, UsageError
from arena.paths import is_folder
from arena.plugins.base import Dataset, PluginConfig, setting


class ImageFolder(Dataset):
    """A folder of pictures with ``metadata.jsonl`` or ``metadata.csv``: columns file_name, question, answer, and where
    there are any id, aliases and choices, which are listed in the question.

    With the subfolders ``train`` and ``test``, each with metadata of its own, training and auxiliary samples come from
    the one and test samples from the other; a folder without them is divided by the seed, no picture in two parts.
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
        return self.config.identified(folder_fingerprint(folder, is_read))

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        """The folder's samples, or those of its two subfolders, divided by the seed.

        Raises `ArenaError` as `read_imagefolder`, `UsageError` for more samples than there are.
        """
        folder = Path(self.config.source)
        ours, theirs = np.random.SeedSequence(seed).spawn(2)
        if not (is_folder(folder / "train") and is_folder(folder / "test")):
            return divide(self._drawing(folder, ours), train, auxiliary, test)
        training = self._drawing(folder / "train", ours)
        scored = self._drawing(folder / "test", theirs).take("test", test)
        return Splits(training.take("training", train), training.take("auxiliary", auxiliary), scored)

    def _drawing(self, folder: Path, seed: np.random.SeedSequence) -> Drawing:
        samples = read_imagefolder(folder, self.config.columns)
        for sample in samples if self.config.scoring == "choice" else ():
            letters = ascii_uppercase[: len(sample.choices) or None]
            if len(sample.answer) != 1 or sample.answer.upper() not in letters:
                raise ArenaError(
                    f"{folder}: sample {sample.id!r} has the answer {sample.answer!r}: scoring by choice needs the "
                    f"letter of the right option, one of {letters[0]} to {letters[-1]}"
                )
        if folder != Path(self.config.source):  # the same file name may be in both
            samples = [replace(s, id=f"{folder.name}/{s.id}") for s in samples]
        return Drawing(str(folder), len(samples), samples.__getitem__, seed)
