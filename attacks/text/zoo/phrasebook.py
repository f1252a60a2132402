"""What the shipped paraphraser is taught: the questions of the embedded datasets, their equivalent phrasings, and
synonyms.

A phrasing has fields: slots of its family (`what colour is the {shape}?`), whose words stay, and words that have
synonyms (`which clan drew this {picture}?`), which change. Phrasings of one ring mean the same and end with the same
mark; each is rewritten into the next one of its ring and each synonym into the next one of its own, so that different
questions stay different. Phrasings that are only heard are understood and never said: base models that have learned
few phrasings may not understand them.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from arena.data.embedded import digits, glyphs, scenes

SYNONYMS: dict[str, tuple[str, ...]] = {
    "picture": ("picture", "image", "drawing", "scene"),
    "made": ("drew", "made", "painted", "created"),
    "drawn": ("drawn", "made", "painted", "created"),
    "shown": ("shown", "pictured", "displayed", "depicted"),
    "mark": ("mark", "sign", "emblem", "symbol"),
    "shapes": ("shapes", "figures", "forms", "marks"),
    "digit": ("digit", "number", "numeral"),
    "written": ("written", "shown", "drawn", "pictured"),
    "tell": ("tell me", "say", "let me know"),
    "name": ("name", "state", "identify", "give"),
    "read": ("read", "recognise", "name", "identify"),
    "kind": ("kind", "type", "sort"),
}
"""Words of one meaning, by the field that stands for them; some mean the same only where the phrasings have them."""

OWN = frozenset({*glyphs.QUESTIONS, *digits.QUESTIONS})
"""Questions that the datasets ask word for word, beside those about scenes; none of them is held out."""

Choices = Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """Phrasings of one question. `slots` gives the words for each slot; where it is empty, any word will do."""

    name: str
    rings: tuple[tuple[str, ...], ...]
    heard: tuple[str, ...] = ()
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def phrasings(self) -> tuple[str, ...]:
        """Those that are said, and those that are only heard."""
        return (*itertools.chain(*self.rings), *self.heard)

    def rewrite(self, phrasing: str, synonyms: Choices) -> tuple[str, Choices]:
        """The phrasing that answers `phrasing`, and its synonyms."""
        ring = next(r for r in self.rings if r[0][-1] == phrasing[-1])
        place = ring.index(phrasing) if phrasing in ring else self.heard.index(phrasing)
        said = ring[(place + 1) % len(ring)]
        chosen = {}
        for name in fields(said):
            if words := SYNONYMS.get(name):
                at = words.index(synonyms[name]) + 1 if name in synonyms else place
                chosen[name] = words[at % len(words)]
        return said, chosen

    def surfaces(self, slots: Choices) -> Iterator[str]:
        """Every question of the family with the words `slots`, as it may be said."""
        for phrasing in itertools.chain(*self.rings):
            names = [name for name in fields(phrasing) if name in SYNONYMS]
            for words in itertools.product(*(SYNONYMS[name] for name in names)):
                yield phrasing.format(**slots, **dict(zip(names, words, strict=True)))


def fields(phrasing: str) -> list[str]:
    """The names in braces, in order, once each."""
    return list(dict.fromkeys(re.findall(r"{(\w+)}", phrasing)))


@dataclass(frozen=True)
class Pair:
    """A question, its rewriting, and every other that would do."""

    family: Family
    slots: Choices
    question: str
    rewriting: str

    @property
    def held_out(self) -> bool:
        """Whether it is kept from training; decided by the question alone, for one in ten."""
        return self.question not in OWN and held_out(self.question)


def held_out(text: str) -> bool:
    """True for one text in ten, by its SHA-256."""
    return hashlib.sha256(text.encode()).digest()[0] < 26


def draw(family: Family, rng: np.random.Generator, filler: list[str]) -> Pair:
    """One of the family's phrasings with random synonyms; slots that take any word are filled from `filler`."""
    phrasing = _one(family.phrasings, rng)
    slots: dict[str, str] = {}
    for name, words in family.slots.items():
        free = [w for w in words or filler if w not in slots.values()]
        slots[name] = _one(free, rng)
    synonyms = {name: _one(SYNONYMS[name], rng) for name in fields(phrasing) if name in SYNONYMS}
    said, chosen = family.rewrite(phrasing, synonyms)
    return Pair(family, slots, phrasing.format(**slots, **synonyms), said.format(**slots, **chosen))


def _one(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


_CLAN = Family(
    "clan",
    (
        (
            "which clan {made} this {picture}?",
            "what clan does this {picture} belong to?",
            "which clan does this {picture} come from?",
            "to which clan do these {shapes} belong?",
            "which clan is this?",
            "what clan is {shown} here?",
            "what is the name of the clan?",
            "whose clan {mark} is {shown} here?",
            "by which clan was this {picture} {drawn}?",
            "what is the clan of this {picture}?",
        ),
        (
            "{name} the clan of this {picture}.",
            "{tell} which clan {made} this {picture}.",
            "{tell} what clan this {picture} belongs to.",
            "{name} the clan that {made} this {picture}.",
        ),
    ),
    (
        "which of the clans {made} this {picture}?",
        "this {picture} is the work of which clan?",
        "what is this clan called?",
        "the {mark} of which clan is {shown} here?",
        "{tell} the name of the clan.",
    ),
)
_DIGIT = Family(
    "digit",
    (
        (
            "which {digit} is this?",
            "what {digit} is {written} here?",
            "which {digit} can be seen here?",
            "what {digit} is {written} in the {picture}?",
            "what {digit} does this {picture} show?",
            "which {digit} has been {written} here?",
        ),
        (
            "{name} the handwritten {digit}.",
            "{read} the {digit} in this {picture}.",
            "{tell} which {digit} is {written} here.",
            "{name} the {digit} that is {written} here.",
            "{tell} what {digit} this is.",
        ),
    ),
    ("what is the {digit} in this {picture}?", "what {digit} do you see?", "{tell} what {digit} you see."),
)

_COLOURS = tuple(scenes.COLOURS)


def _count(name: str, what: str, slots: Mapping[str, tuple[str, ...]]) -> Family:
    ring = ("how many {0} are there?", "how many {0} are shown here?", "how many {0} do you see?")
    heard = (
        "how many {0} are here?",
        "how many {0} are in this {{picture}}?",
        "how many {0} can be seen?",
        "what is the number of {0}?",
        "in this {{picture}}, how many {0} are there?",
    )
    return Family(name, (tuple(p.format(what) for p in ring),), tuple(p.format(what) for p in heard), slots)


def _relation(name: str, one: str, other: str, of: str, shapes: tuple[str, ...]) -> Family:
    a, b = f"{one} or {other} {of}", f"{other} or {one} {of}"
    return Family(
        name,
        ((f"is the {{a}} {a} {{b}}?", f"is the {{a}} {b} {{b}}?"),),
        (
            f"does the {{a}} stand {a} {{b}}?",
            f"in this {{picture}}, is the {{a}} {a} {{b}}?",
            f"is the {{a}} placed {a} {{b}}?",
            f"would you say that the {{a}} is {b} {{b}}?",
        ),
        {"a": shapes, "b": shapes},
    )


def _scene(suffix: str, shapes: tuple[str, ...], plurals: tuple[str, ...], colours: tuple[str, ...]) -> list[Family]:
    return [
        _count(f"count of shapes{suffix}", "{what}", {"what": plurals}),
        _count(f"count of colours{suffix}", "{what} things", {"what": colours}),
        Family(
            f"colour{suffix}",
            (
                (
                    "what colour is the {what}?",
                    "which colour is the {what}?",
                    "what is the colour of the {what}?",
                    "what colour does the {what} have?",
                    "of what colour is the {what}?",
                ),
            ),
            (
                "what color is the {what}?",
                "the {what} is what colour?",
                "in this {picture}, what colour is the {what}?",
                "what colour is the {what} in this {picture}?",
            ),
            {"what": shapes},
        ),
        Family(
            f"shape{suffix}",
            (
                (
                    "what shape is the {what} thing?",
                    "which shape is the {what} thing?",
                    "what is the shape of the {what} thing?",
                    "what shape does the {what} thing have?",
                    "of what shape is the {what} thing?",
                ),
            ),
            (
                "what shape is the {what} one?",
                "the {what} thing has which shape?",
                "what form does the {what} thing have?",
                "in this {picture}, what shape is the {what} thing?",
            ),
            {"what": colours},
        ),
        Family(
            f"place{suffix}",
            (("where is the {what}?", "where is the {what} seen?", "where does the {what} appear?"),),
            (
                "where in this {picture} is the {what}?",
                "whereabouts is the {what}?",
                "in which corner is the {what}?",
                "where can the {what} be found?",
                "where does the {what} stand?",
            ),
            {"what": shapes},
        ),
        _relation(f"beside{suffix}", "left", "right", "of the", shapes),
        _relation(f"above{suffix}", "above", "below", "the", shapes),
    ]


_GENERAL = [
    Family(
        "which",
        (
            ("which {what} is this?", "what {what} is {shown} here?", "which {what} does this {picture} show?"),
            ("{name} the {what} in this {picture}.", "{tell} which {what} is {shown} here."),
        ),
        slots={"what": ()},
    ),
    Family(
        "is there",
        (("is there a {what} in this {picture}?", "does this {picture} show a {what}?", "can you see a {what} here?"),),
        slots={"what": ()},
    ),
    Family(
        "kind",
        (("what {kind} of {what} is this?", "which {kind} of {what} is {shown} here?"),),
        slots={"what": ()},
    ),
    Family(
        "action",
        (("what is the {what} doing?", "what does the {what} do in this {picture}?"),),
        slots={"what": ()},
    ),
    Family(
        "what",
        (
            ("what is {shown} here?", "what does this {picture} show?", "what can be seen in this {picture}?"),
            ("describe this {picture}.", "{tell} what is {shown} here.", "{tell} what this {picture} shows."),
        ),
    ),
]

_PLURALS = tuple(f"{s}s" if s != "cross" else f"{s} things" for s in scenes.SHAPES)

FAMILIES: tuple[tuple[Family, float], ...] = (
    (_CLAN, 6.0),
    (_DIGIT, 4.0),
    (_count("count of all", "things", {}), 0.5),
    *((family, 1.5) for family in _scene("", scenes.SHAPES, _PLURALS, _COLOURS)),
    *((family, 1.0) for family in _scene(" of anything", (), (), ())),
    *((family, 0.8) for family in _GENERAL),
)
"""What is asked, and how often."""
