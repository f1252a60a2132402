"""One question about one picture, and what the arena asks of a set of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from PIL import Image


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture of any size and mode, a question about it, and its answer.

    `aliases` are further accepted answers, `choices` the options of a multiple-choice question in order (its `answer`
    is
    then the letter of the right one). `id` is unique within its dataset and names the sample in errors.
    """

    id: str
    image: Image.Image
    question: str
    answer: str
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    def with_content(self, image: Image.Image, question: str) -> Sample:
        """The same sample with another picture and question; the answer is never changed."""
        return replace(self, image=image, question=question)


@dataclass(frozen=True, slots=True)
class Splits:
    """Disjoint parts of a dataset: what the owner releases, what the attacker has of their own, what scores."""

    train: tuple[Sample, ...]
    auxiliary: tuple[Sample, ...]
    test: tuple[Sample, ...]


def digest(samples: Iterable[Sample]) -> str:
    """SHA-256 over pixels, modes, sizes and texts, in order; what identifies a set of samples."""
    total = hashlib.sha256()
    for s in samples:
        fields = (s.id, s.question, s.answer, *s.aliases, "\0", *s.choices, s.image.mode, str(s.image.size))
        for field in fields:
            encoded = field.encode()
            total.update(len(encoded).to_bytes(8, "big") + encoded)
        total.update(s.image.tobytes())
    return total.hexdigest()
