"""Emojis as visual question answering: what kind of thing, of which group and colour, and how many?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from arena.data.embedded.draw import drawn
from arena.data.embedded.emoji import canvas
from arena.data.embedded.emoji.kinds import FACTS, KINDS
from arena.data.embedded.emoji.noto import Emoji, shipped, shipped_digest
from arena.data.embedded.question_kinds import KindsConfig, trained_kinds
from arena.data.sample import Sample, Splits
from arena.plugins.base import Dataset

QUESTIONS: dict[str, tuple[str, ...]] = {
    "kind": (
        "what kind of thing is shown?",
        "which kind of thing do you see?",
        "name the kind of this thing.",
        "what sort of thing is in the picture?",
    ),
    "group": (
        "which group does this belong to?",
        "what group of things is this from?",
        "name the group of this thing.",
        "to which group does the picture belong?",
    ),
    "colour": (
        "what colour is most of it?",
        "which colour does this thing have?",
        "name the colour of this thing.",
        "what is the main colour here?",
    ),
    "alive": ("is this thing alive?", "does this thing live?", "is it a living thing?"),
    "edible": ("can you eat this thing?", "is this thing food?", "do people eat it?"),
    "vehicle": ("can this carry people?", "is this thing a vehicle?", "do people travel in it?"),
    "count": ("how many things are there?", "how many things do you see?", "count the things in the picture."),
}
"""Wordings by kind of question."""
COUNTS = ("one", "two", "three", "four")
_SHARES = (0.45, 0.15)
"""Of the bases of each kind of thing, what training and auxiliary samples are drawn from; test samples of the rest."""


class Emojis(Dataset):
    """Google's Noto emojis on soft grounds, 64 x 64 RGB, with questions on kind, group, colour, use and number.

    1,273 emojis of 602 bases: an emoji's skin tones, genders, directions and the like are never in two parts (see
    `arena.data.embedded.emoji.bases`). The answers of a kind of question are equally frequent, so that the commonest is
    right in one of 37 (kind), 8 (group), 10 or 11 (colour), 4 (count) and 2 cases. A colour is what most pixels have.
    Pictures: Noto Emoji, Google LLC, Apache-2.0; names and kinds: Unicode's emoji list.
    """

    class Config(KindsConfig):
        known = tuple(QUESTIONS)
        train_kinds: tuple[str, ...] = trained_kinds(tuple(QUESTIONS))

    config: Config
    convention = "exact"
    packages = ("numpy", "pillow")

    def fingerprint(self) -> str:
        """Digest of the archive of pictures."""
        return shipped_digest()

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        """Parts drawn from bases of their own, each by a seed of its own: one does not depend on the size of another.

        Sample i of part k (train, auxiliary, test) has the number 3 i + k.
        """
        divide, *draws = np.random.SeedSequence(seed).spawn(4)
        sides = _sides(np.random.default_rng(divide))
        kinds = (self.config.train_kinds, self.config.train_kinds, self.config.tested)
        answers = {kind: _answers(kind, sides) for kind in {*kinds[0], *kinds[2]}}
        parts = (
            _draw(np.random.default_rng(child), size, k, sides[k], {kind: answers[kind] for kind in kinds[k]})
            for k, (child, size) in enumerate(zip(draws, (train, auxiliary, test), strict=True))
        )
        return drawn("emoji", seed, parts)


@dataclass(frozen=True)
class _Known:
    """One emoji with what is known of it, for as often as it is drawn."""

    emoji: Emoji
    base: str
    answers: dict[str, str | None]
    """By kind of question, but for counting."""


@cache
def _known() -> tuple[_Known, ...]:
    def of(emoji: Emoji, kind: str) -> _Known:
        said: dict[str, str | None] = {"kind": kind, "group": KINDS[kind].group, "colour": emoji.colour}
        return _Known(emoji, emoji.base, said | {fact: KINDS[kind].says(fact) for fact in FACTS})

    return tuple(of(emoji, kind) for emoji in shipped() if (kind := emoji.kind) is not None)


def _sides(rng: np.random.Generator) -> list[list[_Known]]:
    """The emojis of training, auxiliary and test samples: of each kind of thing a share of its bases, at least one."""
    kind_of: dict[str, str] = {}  # of a base, by its first emoji, since some have variants of two kinds
    for known in _known():
        kind_of.setdefault(known.base, str(known.answers["kind"]))
    side: dict[str, int] = {}
    for kind in sorted(set(kind_of.values())):
        order = rng.permutation([base for base in kind_of if kind_of[base] == kind]).tolist()
        training, auxiliary = (max(1, round(share * len(order))) for share in _SHARES)
        side |= {base: (i >= training) + (i >= training + auxiliary) for i, base in enumerate(order)}
    return [[known for known in _known() if side[known.base] == part] for part in range(3)]


def _answers(kind: str, sides: Sequence[Sequence[_Known]]) -> list[str]:
    """The answers that are possible on all sides, sorted."""
    if kind == "count":
        return list(COUNTS)
    return sorted(set.intersection(*({a for known in side if (a := known.answers[kind])} for side in sides)))


def _draw(
    rng: np.random.Generator, size: int, part: int, side: Sequence[_Known], answers: dict[str, list[str]]
) -> tuple[Sample, ...]:
    """`size` samples of one part, whose kinds of questions take turns, and within a kind the answers."""
    by_base: dict[tuple[str, str], dict[str, list[Emoji]]] = {}
    for known in side:
        for kind in answers.keys() - {"count"}:
            if answer := known.answers[kind]:
                by_base.setdefault((kind, answer), {}).setdefault(known.base, []).append(known.emoji)
    everything: dict[str, list[Emoji]] = {}
    for known in side:
        everything.setdefault(known.base, []).append(known.emoji)

    def any_of(bases: dict[str, list[Emoji]]) -> Emoji:
        variants = list(bases.values())[rng.integers(len(bases))]
        return variants[rng.integers(len(variants))]

    kinds = list(answers)
    turns = {kind: rng.permutation(np.arange(-(-size // len(kinds))) % len(answers[kind])) for kind in kinds}
    samples = []
    for place, i in enumerate(rng.permutation(size)):
        kind = kinds[i % len(kinds)]
        answer = answers[kind][turns[kind][i // len(kinds)]]
        if kind == "count":
            count = COUNTS.index(answer) + 1
            shown = [any_of(everything)] * count if rng.random() < 0.5 else [any_of(everything) for _ in range(count)]
            picture = canvas.several([emoji.image for emoji in shown], rng)
        else:
            picture = canvas.alone(any_of(by_base[kind, answer]).image, rng)
        wordings = QUESTIONS[kind]
        question = wordings[rng.integers(len(wordings))]
        samples.append(Sample(f"emoji-{3 * place + part:05d}", picture, question, answer))
    return tuple(samples)
