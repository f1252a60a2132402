"""A protection that was made elsewhere, by whatever tool: its release, held against the originals as any other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from arena.data.fingerprint import files_fingerprint
from arena.data.folder import files_of, read_imagefolder
from arena.data.pairs import paired
from arena.data.pictures.encoding import in_mode
from arena.data.sample import Sample, digest
from arena.errors import ArenaError, UsageError
from arena.paths import is_folder
from arena.plugins.base import DefenderWorld, Defense, Draft, PluginConfig, setting


class Released(Defense):
    """Hands over what a folder holds for each training sample: the picture and question of the same id or file name.

    The folder is an imagefolder of released samples, such as `arena protect` or any other tool leaves. Samples that the
    data do not train on are not looked at. `arena stress FOLDER` uses it.

    Budget: that of what was released.
    """

    class Config(PluginConfig):
        folder: str = setting(runtime=True, description="imagefolder of the released samples")
        columns: dict[str, str] = Field(
            default_factory=dict, description="fields (id, question, answer, aliases, choices) with the column to take"
        )

    config: Config
    packages = ("pillow",)

    def fingerprint(self) -> str:
        """Digest of metadata and pictures. Raises `UsageError` where there is no folder."""
        folder = Path(self.config.folder)
        if not is_folder(folder):
            raise UsageError(f"{folder} is not a folder: name one that holds released pictures and their metadata")
        return files_fingerprint(folder, files_of(folder))

    def protect(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Draft]:
        found = paired(samples, read_imagefolder(Path(self.config.folder), self.config.columns))
        for original, released in zip(samples, found, strict=True):
            if released is None:
                raise ArenaError(
                    f"{self.config.folder} has no released sample of {original.id!r}: its id, or the name of its "
                    "picture's file, must be that of the original"
                )
            yield Draft(in_mode(released.image, original.image.mode), released.question)

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Pictures and questions are those of the folder."""
        found = paired(samples, read_imagefolder(Path(self.config.folder), self.config.columns))
        for original, other, made in zip(samples, found, released, strict=True):
            if other is not None:
                other = original.with_content(in_mode(other.image, original.image.mode), other.question)
            if other is None or digest([other]) != digest([made]):
                return f"sample {original.id!r} is not what {self.config.folder} has of it"
        return None
