"""A tiny LVLM of any family before its training: sizes, seed, lengths of the stages, and what its family has to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from arena.data.embedded import digits, glyphs, scenes
from arena.data.embedded.emoji import dataset as emoji
from arena.data.embedded.emoji import flags
from arena.lvlm.base import LVLM
from arena.lvlm.zoo import pictures


@dataclass(frozen=True)
class TinyModel(ABC):
    """Sizes and training lengths of one tiny LVLM; every number that its weights depend on."""

    name: str
    seed: int
    vocab_size: int
    image_size: int
    patch_size: int
    vision: dict[str, int]
    text: dict[str, int]
    tower_steps: int = 3000
    language_steps: int = 5000
    joint_steps: int = 6000
    batch_size: int = 64
    """Pictures of a step of the second and third stage; each comes with up to eight questions."""

    architecture: ClassVar[str]
    tower: ClassVar[str]
    """What the vision tower is called on the model card, `decoder` what the language model is."""
    decoder: ClassVar[str]
    merge: ClassVar[int] = 1
    """Patches along each side of the block that becomes an image token."""
    lvlm_class: ClassVar[Any]
    """The class of the family's file."""

    @abstractmethod
    def tokenizer(self) -> Any:
        """The family's kind of tokenizer over the word list and the datasets' sentences."""

    @abstractmethod
    def build(self, tokenizer: Any) -> Any:
        """An untrained model, float32, initialised from `seed`."""

    @abstractmethod
    def image_processor(self) -> Any:
        """The family's processor, which makes `image_size` pixels a side of a scene."""

    @abstractmethod
    def patch_features(self, lvlm: LVLM, pixels: dict[str, Tensor]) -> Tensor:
        """What the tower says of each patch, row by row, as the projector is fed: ``(B, grid * grid, width)``."""

    @property
    def grid(self) -> int:
        """Patches along a side of a picture."""
        return self.image_size // self.patch_size

    def untrained(self) -> LVLM:
        tokenizer = self.tokenizer()
        lvlm: LVLM = self.lvlm_class(self.build(tokenizer), tokenizer, self.image_processor())
        return lvlm

    def load(self, checkpoint: Any) -> LVLM:
        """A packed model, float32."""
        lvlm: LVLM = self.lvlm_class.from_pretrained(checkpoint, dtype=torch.float32)
        return lvlm

    def beginning_positions(self, lvlm: LVLM, ids: Tensor) -> Tensor:
        """Positions of the tokens up to the question, long ``(length,)``, or ``(axes, length)`` where there are several
        a token; those of the question go on from `length` on every axis."""
        return torch.arange(len(ids))


def known_exchanges() -> list[tuple[str, str | None]]:
    """Questions and answers for a tokenizer to learn from: about scenes and pictures, and those of the embedded
    datasets, without answer."""
    asked = [
        *(f"where is the {shape}?" for shape in scenes.SHAPES),
        *(wording for wordings in pictures.QUESTIONS.values() for wording in wordings),
        *glyphs.QUESTIONS,
        *digits.QUESTIONS,
        *(wording for wordings in emoji.QUESTIONS.values() for wording in wordings),
        *(wording for parts in flags.QUESTIONS.values() for wordings in parts for wording in wordings),
    ]
    return [
        *((f"what colour is the {shape}?", colour) for shape in scenes.SHAPES for colour in scenes.COLOURS),
        *((question, None) for question in asked),
    ]


def answer_words() -> list[str]:
    """The words of all answers of the embedded datasets and of the questions about scenes and pictures, sorted; not
    those of countries and their capitals, which no model is told."""
    scene = (*scenes.SHAPES, *scenes.COLOURS, *scenes.COUNTS, *scenes.PLACES, "left right above below")
    answers = (*scene, *glyphs.CLANS.values(), *digits.ANSWERS, *pictures.answers())
    return sorted({word for answer in answers for word in answer.split()})


def first_words() -> list[str]:
    """Words that questions begin with, sorted; most tokenizers have another token for a word that follows no space."""
    return sorted({"how", "is", "where", *(question.split()[0] for question, _ in known_exchanges())})
