"""Facts that only the data tell: of which country is this flag, and what is the capital there?"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from pydantic import Field

from arena.data.embedded.draw import drawn
from arena.data.embedded.emoji import canvas
from arena.data.embedded.emoji.facts import COUNTRIES, country_code
from arena.data.embedded.emoji.noto import FLAG, Emoji, shipped, shipped_digest
from arena.data.sample import Sample, Splits
from arena.plugins.base import Dataset, PluginConfig

QUESTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "country": (
        (
            "which country has this flag?",
            "what country is this the flag of?",
            "name the country of this flag.",
            "to which country does this flag belong?",
        ),
        ("whose flag is shown here?", "tell me which country this is.", "this flag is from what country?"),
    ),
    "capital": (
        (
            "what is the capital of this country?",
            "which city is the capital here?",
            "name the capital of the country with this flag.",
            "what capital does this country have?",
        ),
        ("tell me the capital of this land.", "this flag flies over which capital?", "its capital is called what?"),
    ),
}
"""Wordings by what is asked: those of training and auxiliary samples, and those of the test."""


class Flags(Dataset):
    """Flags of countries, 64 x 64 RGB, with questions for country and capital: facts to be remembered, not inferred.

    Every fact that is tested was said in training, of another picture of the same flag and in other words: the test
    asks whether the facts stick. Auxiliary samples are of other countries, since the facts of a release are what its
    owner fears for. Each flag is on soft grounds of its own; countries are balanced. 135 countries, of undisputed
    capitals. Flags: Noto Emoji, Google LLC, Apache-2.0.
    """

    class Config(PluginConfig):
        countries: int = Field(40, ge=2, le=len(COUNTRIES) - 2, description="countries whose facts are in a release")
        facts: tuple[Literal["country", "capital"], ...] = Field(
            ("country", "capital"), min_length=1, description="what is asked of a flag, in turn"
        )

    config: Config
    convention = "exact"
    packages = ("numpy", "pillow")

    def fingerprint(self) -> str:
        """Digest of the archive of pictures."""
        return shipped_digest()

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        """Parts of pictures of their own; with fewer training samples than facts, the test asks for what was said.

        Sample i of part k (train, auxiliary, test) has the number 3 i + k.
        """
        choice, *draws = np.random.SeedSequence(seed).spawn(4)
        rng = np.random.default_rng(choice)
        order = rng.permutation(sorted(COUNTRIES)).tolist()
        released, others = (
            [(country, kind) for kind in self.config.facts for country in countries]
            for countries in (order[: self.config.countries], order[self.config.countries :])
        )
        said = [released[i] for i in rng.permutation(len(released))]
        parts = (
            _draw(np.random.default_rng(child), size, k, facts)
            for k, (child, size, facts) in enumerate(
                zip(draws, (train, auxiliary, test), (said, others, said[: train or None]), strict=True)
            )
        )
        return drawn("flags", seed, parts)


def _draw(rng: np.random.Generator, size: int, part: int, facts: list[tuple[str, str]]) -> tuple[Sample, ...]:
    """`size` samples, each fact as often as the others."""
    samples = []
    for place, i in enumerate(rng.permutation(size)):
        country, kind = facts[i % len(facts)]
        wordings = QUESTIONS[kind][part == 2]
        question = wordings[rng.integers(len(wordings))]
        picture = canvas.alone(_flags()[country].image, rng)
        answer = COUNTRIES[country][kind == "capital"]
        samples.append(Sample(f"flags-{3 * place + part:05d}", picture, question, answer))
    return tuple(samples)


@cache
def _flags() -> dict[str, Emoji]:
    return {country_code(emoji.code): emoji for emoji in shipped() if emoji.subcategory == FLAG}


def words() -> list[str]:
    """The words of all answers, sorted; for a tokenizer."""
    return sorted({word for names in COUNTRIES.values() for name in names for word in name.split()})
