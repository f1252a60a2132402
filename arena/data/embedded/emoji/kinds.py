"""What is asked about an emoji beside its colour: its kind, its group, and whether it lives, is eaten, or carries.

Groups are the categories of Unicode's emoji list, kinds its subcategories, brought together where two look or mean the
same, each said in one or two words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Kind:
    """Facts of all emojis of a kind; None where people would not agree, or where some are and some are not."""

    group: str
    alive: bool | None = False
    edible: bool | None = False
    vehicle: bool | None = False

    def says(self, fact: Literal["alive", "edible", "vehicle"]) -> str | None:
        """The answer to a question for a fact: "yes", "no", or None where it is not to be asked."""
        known: bool | None = getattr(self, fact)
        return None if known is None else "yes" if known else "no"


FACTS: tuple[Literal["alive", "edible", "vehicle"], ...] = ("alive", "edible", "vehicle")

KINDS: dict[str, Kind] = {
    "happy face": Kind("smiley", alive=None),
    "sad face": Kind("smiley", alive=None),
    "calm face": Kind("smiley", alive=None),
    "sick face": Kind("smiley", alive=None),
    "mask": Kind("smiley", alive=None),
    "cat face": Kind("smiley", alive=None),
    "heart": Kind("smiley"),
    "bubble": Kind("smiley"),
    "hand": Kind("people", alive=None),
    "body part": Kind("people", alive=None),
    "person": Kind("people", alive=True, vehicle=None),  # some in a wheelchair
    "worker": Kind("people", alive=True),
    "athlete": Kind("people", alive=True, vehicle=None),  # some on a bicycle
    "fantasy person": Kind("people", alive=None),
    "mammal": Kind("nature", alive=True, edible=None),
    "bird": Kind("nature", alive=True, edible=None),
    "reptile": Kind("nature", alive=True, edible=None),
    "sea animal": Kind("nature", alive=True, edible=None),
    "bug": Kind("nature", alive=True, edible=None),
    "flower": Kind("nature", alive=True, edible=None),
    "plant": Kind("nature", alive=True, edible=None),
    "fruit": Kind("food", alive=None, edible=True),
    "vegetable": Kind("food", alive=None, edible=True),
    "meal": Kind("food", edible=True),
    "sweet": Kind("food", edible=True),
    "drink": Kind("food", edible=None),
    "dishes": Kind("food"),
    "building": Kind("travel"),
    "place": Kind("travel"),
    "vehicle": Kind("travel", vehicle=True),
    "road": Kind("travel"),
    "sky": Kind("travel"),
    "clock": Kind("travel"),
    "festival": Kind("activity"),
    "sport": Kind("activity"),
    "game": Kind("activity"),
    "art": Kind("activity"),
    "clothing": Kind("object"),
    "music": Kind("object"),
    "device": Kind("object"),
    "paper": Kind("object"),
    "office": Kind("object"),
    "tool": Kind("object"),
    "medicine": Kind("object"),
    "household": Kind("object"),
    "sign": Kind("symbol"),
    "zodiac": Kind("symbol"),
    "religion": Kind("symbol"),
    "arrow": Kind("symbol"),
    "button": Kind("symbol"),
    "letter": Kind("symbol"),
    "number": Kind("symbol"),
    "shape": Kind("symbol"),
    "mark": Kind("symbol"),
}
"""Kinds by what they are called in answers."""

ASKED = frozenset(
    {
        *("happy face", "sad face", "calm face", "sick face"),
        *("hand", "body part", "person", "worker", "athlete", "fantasy person"),
        *("mammal", "bird", "sea animal", "bug", "flower", "plant"),
        *("fruit", "vegetable", "meal", "sweet", "drink"),
        *("building", "vehicle", "sky"),
        *("festival", "sport", "game"),
        *("clothing", "music", "device", "paper", "office", "tool", "medicine", "household"),
        *("sign", "zodiac"),
    }
)
"""Kinds of the dataset ``emoji``: they have nine bases or more, so that each is on every side of a split."""

_SUBCATEGORIES = {
    "happy face": "face-smiling face-affection face-tongue face-glasses face-hat",
    "sad face": "face-concerned",
    "calm face": "face-neutral-skeptical face-sleepy face-hand",
    "sick face": "face-unwell",
    "mask": "face-negative face-costume",
    "cat face": "cat-face monkey-face",
    "heart": "heart",
    "bubble": "emotion",
    "hand": "hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands hand-prop",
    "body part": "body-parts",
    "person": "person person-gesture person-activity person-resting person-symbol family",
    "worker": "person-role",
    "athlete": "person-sport",
    "fantasy person": "person-fantasy",
    "mammal": "animal-mammal",
    "bird": "animal-bird",
    "reptile": "animal-reptile animal-amphibian",
    "sea animal": "animal-marine",
    "bug": "animal-bug",
    "flower": "plant-flower",
    "plant": "plant-other",
    "fruit": "food-fruit",
    "vegetable": "food-vegetable",
    "meal": "food-prepared food-asian",
    "sweet": "food-sweet",
    "drink": "drink",
    "dishes": "dishware",
    "building": "place-building place-religious",
    "place": "place-geographic place-other place-map hotel",
    "vehicle": "transport-ground transport-water transport-air",
    "sky": "sky&weather",
    "clock": "time",
    "festival": "event award-medal",
    "sport": "sport",
    "game": "game",
    "art": "arts&crafts",
    "clothing": "clothing",
    "music": "musical-instrument music sound",
    "device": "computer phone light&video",
    "paper": "book-paper mail money",
    "office": "office writing",
    "tool": "tool lock",
    "medicine": "medical science",
    "household": "household other-object",
    "sign": "transport-sign warning",
    "zodiac": "zodiac",
    "religion": "religion",
    "arrow": "arrow",
    "button": "av-symbol",
    "letter": "alphanum currency",
    "number": "keycap",
    "shape": "geometric",
    "mark": "other-symbol math punctuation gender",
}
_KIND = {subcategory: kind for kind, names in _SUBCATEGORIES.items() for subcategory in names.split()}

_EXCEPTIONS = {
    "road": "1F689 1F68F 1F6E3 1F6E4 1F6E2 26FD 1F6DE 1F6A8 1F6A5 1F6A6 1F6D1 1F6A7 2693 1F6DF 1F4BA 1FA82",
    # stations, rails, fuel, lights, signs, an anchor, a buoy, a seat, a parachute: beside the vehicles
    "mark": "1F43E 1FAB6 1FABD 1F578 1F463 1FAC6",  # traces and parts of animals and people
    "tool": "1FA9C 1F9EF",
    "building": "26F2 26FA 1F3AA 1F6D5",
}
_KIND_OF_CODE = {code: kind for kind, codes in _EXCEPTIONS.items() for code in codes.split()}


def kind_of(code: str, subcategory: str) -> str | None:
    """The kind of an emoji, a key of `KINDS`, by its code points as Unicode writes them and its subcategory there; None
    for flags and for what is no picture by itself, such as a skin tone."""
    plain = code.upper().removesuffix("-FE0F")
    return _KIND_OF_CODE.get(plain) or _KIND.get(subcategory.replace(" ", ""))
