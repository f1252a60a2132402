"""What a look at all of an owner's pictures finds: pictures that stand in several samples, near copies, and copies of
another size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from arena.data.colours import colours, recoloured
from arena.data.copies import Look, Sharing, look, sharing
from arena.data.sample import Sample
from arena.data.shelf import ShelvedImage
from arena.text import shortened


class Copies(BaseModel):
    """How many pictures the samples have, of which `shared` stand in several samples, `near` are near copies of another
    one, and `resized` copies of another one at another size, by their files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pictures: int
    shared: int
    near: int
    resized: list[tuple[str, str]]

    def notes(self) -> list[str]:
        """What of it concerns the owner, in words."""
        found = []
        if self.shared or self.near:
            kinds = [f"{self.shared} pictures stand in several samples"] if self.shared else []
            kinds += [f"{self.near} are near copies of another one"] if self.near else []
            found.append(
                f"{' and '.join(kinds)}: each of them has one perturbation, crafted for all its questions, so that "
                "averaging copies undoes nothing"
            )
        if self.resized:
            copy, other = (shortened(file, 100) for file in self.resized[0])
            found.append(
                f"{len(self.resized)} pictures are copies of another one at another size, such as {copy!r} of "
                f"{other!r}: they have perturbations of their own, which averaging weakens. Publish one size of each"
            )
        return found


@dataclass(frozen=True)
class Seen:
    """Looks at the pictures of all samples, in order."""

    looks: list[Look]
    sharing: Sharing

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Seen:
        """Looks at every picture once."""
        looks = [look(sample.image) for sample in samples]
        return cls(looks, sharing(looks))

    def copies(self, files: Sequence[str]) -> Copies:
        """What is to be said of copies; `files` are those of the samples."""
        s = self.sharing
        first = [files[s.picture.index(picture)] for picture in range(len(s.delta))]
        counts = np.bincount(s.picture)
        return Copies(
            pictures=len(s.delta),
            shared=int((counts > 1).sum()),
            near=len(s.delta) - len(set(s.delta)),
            resized=[(first[copy], first[other]) for copy, other in s.resized],
        )

    def one_each(self, originals: Sequence[Sample], drafts: Sequence[Sample], near: bool) -> list[Sample]:
        """The drafts, where all samples of one picture have the perturbation of the first one, whatever the defense
        made; with `near` near copies too, of which it is cut off at black and white."""
        leaders: dict[int, int] = {}
        numbers = self.sharing.of_sample if near else self.sharing.picture
        found = []
        for index, (number, draft) in enumerate(zip(numbers, drafts, strict=True)):
            leader = leaders.setdefault(number, index)
            if leader == index or draft.image.mode != drafts[leader].image.mode:
                found.append(draft)
                continue
            image = _Moved(originals[index].image, originals[leader].image, drafts[leader].image)
            found.append(draft.with_content(ShelvedImage(image, draft.image.size, draft.image.mode), draft.question))
        return found


@dataclass(frozen=True)
class _Moved:
    """A picture moved by the change of another one of its size and mode."""

    image: Image.Image
    before: Image.Image
    after: Image.Image

    def __call__(self) -> Image.Image:
        change = colours(self.after).astype(np.int16) - colours(self.before)
        values = np.clip(colours(self.image) + change, 0, 255).astype(np.uint8)
        return Image.fromarray(recoloured(self.image, values))
