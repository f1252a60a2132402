"""One question about one picture, and what the arena asks of a set of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from PIL import Image


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture, a question about it, and its answer. Nothing is checked here: the budget's check, the release and the
    readers of data raise `ArenaError` for what does not fit.
    """

    id: str
    """Unique within its dataset; names the sample in errors."""
    image: Image.Image
    """Of any size. A release needs 8 bits a channel: mode ``L`` (grey), ``LA``, ``RGB`` or ``RGBA``, see
    `arena.budget.MODES`. A model sees it as RGB without alpha."""
    question: str
    """As the user of a model would ask it, options and instruction included; the chat template is the model's."""
    answer: str
    """What a model is trained to say, and what scores; of a multiple-choice question the letter of the right option."""
    aliases: tuple[str, ...] = ()
    """Further accepted answers; where a measure counts annotators, one of each."""
    choices: tuple[str, ...] = ()
    """The options of a multiple-choice question in order, without letters; empty where there are none."""

    def with_content(self, image: Image.Image, question: str) -> Sample:
        """The same sample with another picture and question; the answer is never changed."""
        return replace(self, image=image, question=question)


@dataclass(frozen=True, slots=True)
class Splits:
    """Disjoint parts of a dataset, each of exactly the size that `Dataset.load` was asked for.

    No picture may be in two parts of one source: an attacker's own clean samples would hold the originals of what was
    released. `arena.data.embedded.draw` draws such parts. A dataset that has too few raises `UsageError`.
    """

    train: tuple[Sample, ...]
    """What the owner protects and releases, and the fine-tuner trains on."""
    auxiliary: tuple[Sample, ...]
    """Clean samples of the same kind, which a suite grants to attacks or defenses; empty where it asks for none."""
    test: tuple[Sample, ...]
    """What scores; nobody sees it before."""


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
