"""The datasets of Noto emojis: what is on which side of a split, what the answers are, and what a release can teach."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from arena.data.colour_names import COLOURS, dominant
from arena.data.embedded.emoji import canvas, dataset, flags
from arena.data.embedded.emoji.bases import base_of
from arena.data.embedded.emoji.dataset import Emojis
from arena.data.embedded.emoji.facts import COUNTRIES, country_code
from arena.data.embedded.emoji.flags import Flags
from arena.data.embedded.emoji.kinds import ASKED, FACTS, KINDS
from arena.data.embedded.emoji.noto import FLAG, SHIPPED, Emoji, shipped
from arena.data.sample import Sample, Splits, digest
from arena.errors import UsageError
from arena.plugins.registry import Registry

THINGS = [emoji for emoji in shipped() if emoji.subcategory != FLAG]
VARIANTS = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF", "2640", "2642", "1F9B0", "1F9B1", "1F9B2", "1F9B3", "27A1"}
"""Skin tones, genders, hair, and facing right."""
SAME = {"man", "men", "woman", "women", "person", "people", "left", "right", "leftwards", "rightwards", "facing"}
"""Words of names that tell variants apart."""


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[Splits, list[list[str]]]]:
    """A split, and by part the bases of all that was painted."""
    by_bytes = {emoji.image.tobytes(): emoji.base for emoji in THINGS}
    assert len(by_bytes) > 0.98 * len(THINGS)  # two hearts of a man and a woman look alike
    painted: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:

        def recording(name: str) -> Any:
            paint = getattr(canvas, name)

            def record(images: Any, rng: np.random.Generator) -> Image.Image:
                painted.append([by_bytes[i.tobytes()] for i in ([images] if name == "alone" else images)])
                picture: Image.Image = paint(images, rng)
                return picture

            return record

        for name in ("alone", "several"):
            patch.setattr(dataset.canvas, name, recording(name))
        splits = Emojis().load(420, 140, 560, seed=1)
    yield splits, painted


def kind_of(sample: Sample) -> str:
    (kind,) = (kind for kind, wordings in dataset.QUESTIONS.items() if sample.question in wordings)
    return kind


def answers(samples: Sequence[Sample]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        found[kind_of(sample)][sample.answer] += 1
    return found


# Bases


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1F9D1-200D-1F680", "1F469-1F3FD-200D-1F680"),  # astronaut; woman of medium skin tone
        ("1F3C3", "1F3C3-1F3FF-200D-2642-FE0F-200D-27A1-FE0F"),  # runner; man of dark skin, to the right
        ("1F468-200D-1F9B0", "1F474-1F3FB"),  # man with red hair; old man
        ("1F46B", "1F9D1-1F3FB-200D-1F91D-200D-1F9D1-1F3FF"),  # holding hands
        ("1F48F", "1F469-200D-2764-FE0F-200D-1F48B-200D-1F468"),  # kiss
        ("1F468-200D-1F469-200D-1F467", "1F46A"),  # families
        ("1F448", "1F446"),  # pointing left, up
        ("1F436", "1F415"),  # the dog's face, the dog
        ("1F408", "1F408-200D-2B1B"),  # cat, black cat
        ("1F550", "1F567"),  # one o'clock, half past twelve
    ],
)
def test_variants_have_one_base(one: str, other: str) -> None:
    assert base_of(one) == base_of(other)


@pytest.mark.parametrize(
    ("one", "other"), [("1F415", "1F408"), ("1F9D1-200D-1F680", "1F9D1-200D-1F692"), ("2640", "2642")]
)
def test_others_have_not(one: str, other: str) -> None:
    assert base_of(one) != base_of(other)


def test_no_variant_of_an_emoji_is_called_another_base() -> None:
    """By code points and by names alone, which the rule does not look at."""
    by_points, by_name = defaultdict(set), defaultdict(set)
    for emoji in THINGS:
        first, *rest = emoji.code.split("-")
        by_points[(first, *(p for p in rest if p not in {*VARIANTS, "200D", "FE0F"}))].add(emoji.base)
        by_name[" ".join(w for w in re.findall("[a-z]+", emoji.name) if w not in SAME)].add(emoji.base)
    by_name.pop("", None)
    assert {points for points, bases in by_points.items() if len(bases) > 1} == set()
    assert {name for name, bases in by_name.items() if len(bases) > 1} <= {"thermometer", "frowning", "pouting"}


def test_no_base_is_in_two_parts(parts: tuple[Splits, list[list[str]]]) -> None:
    splits, painted = parts
    cuts = np.cumsum([0, len(splits.train), len(splits.auxiliary), len(splits.test)])
    train, auxiliary, test = ({base for bases in painted[a:b] for base in bases} for a, b in pairwise(cuts))
    assert len(painted) == cuts[-1] and min(map(len, (train, auxiliary, test))) > 60
    assert not train & auxiliary and not train & test and not auxiliary & test


# What ships


def test_what_ships_is_what_is_asked_about() -> None:
    assert len({emoji.code for emoji in THINGS}) == len(THINGS) > 1200
    assert {emoji.kind for emoji in THINGS} == ASKED <= set(KINDS)
    assert min(len({e.base for e in THINGS if e.kind == kind}) for kind in ASKED) >= 5
    assert SHIPPED.stat().st_size < 6e6
    said = {word for kind in KINDS for word in (kind, KINDS[kind].group)}
    assert all(re.fullmatch("[a-z]+( [a-z]+)?", words) for words in said)


@pytest.mark.parametrize(
    ("code", "name", "kind", "says"),
    [
        ("1F41D", "honeybee", "bug", ("yes", None, "no")),
        ("1F9C1", "cupcake", "sweet", ("no", "yes", "no")),
        ("1F681", "helicopter", "vehicle", ("no", "no", "yes")),
        ("1F6D1", "octagonal sign", "road", ("no", "no", "no")),  # among the vehicles of Unicode's list
        ("1F43E", "paw prints", "mark", ("no", "no", "no")),  # among the mammals
    ],
)
def test_what_is_known_of_an_emoji(code: str, name: str, kind: str, says: tuple[str | None, ...]) -> None:
    subcategories = {"bug": "animal-bug", "sweet": "food-sweet", "mark": "animal-mammal"}
    emoji = Emoji(code, name, subcategories.get(kind, "transport-ground"), b"")
    assert emoji.kind == kind and tuple(KINDS[kind].says(fact) for fact in FACTS) == says


# Colours


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((220, 30, 30), "red"),
        ((245, 130, 20), "orange"),
        ((255, 210, 40), "yellow"),
        ((60, 160, 70), "green"),
        ((30, 110, 220), "blue"),
        ((130, 50, 170), "purple"),
        ((240, 120, 170), "pink"),
        ((120, 70, 40), "brown"),
        ((15, 15, 15), "black"),
        ((140, 140, 145), "grey"),
        ((250, 250, 250), "white"),
        ((245, 220, 190), None),  # light skin
    ],
)
def test_the_colour_of_most_pixels_is_named(rgb: tuple[int, int, int], name: str | None) -> None:
    picture = Image.new("RGBA", (20, 20))  # transparent black counts for nothing
    ImageDraw.Draw(picture).rectangle((0, 0, 9, 9), fill=(*rgb, 255))
    ImageDraw.Draw(picture).rectangle((0, 0, 2, 9), fill=(0, 255, 0, 255))
    assert dominant(picture) == name
    assert name is None or name in COLOURS


def test_no_colour_is_named_where_none_has_most() -> None:
    stripes = Image.new("RGB", (30, 10), "red")
    stripes.paste("blue", (10, 0, 20, 10))
    stripes.paste("white", (20, 0, 30, 10))
    assert dominant(stripes) is None and dominant(Image.new("RGBA", (4, 4))) is None


# Questions about emojis


def test_no_answer_is_worth_guessing(parts: tuple[Splits, list[list[str]]]) -> None:
    splits, _ = parts
    for samples in (splits.train, splits.test):
        found = answers(samples)
        assert found.keys() == set(dataset.QUESTIONS)
        for kind, counts in found.items():
            assert counts.total() == len(samples) // 7
            assert max(counts.values()) - min(counts.values()) <= 1, kind
    taught, asked = answers(splits.train), answers(splits.test)
    assert {kind: set(counts) for kind, counts in taught.items()} == {
        kind: set(counts) for kind, counts in asked.items()
    }
    assert len(asked["kind"]) == len(ASKED) and len(asked["colour"]) >= 9
    assert set(asked["group"]) == {KINDS[kind].group for kind in ASKED}


def test_answers_are_true(parts: tuple[Splits, list[list[str]]]) -> None:
    splits, painted = parts
    truth = defaultdict(set)
    for emoji in THINGS:
        kind = KINDS[str(emoji.kind)]
        known = {"kind": emoji.kind, "group": kind.group, "colour": dominant(emoji.image)}
        for asked, answer in {**known, **{fact: kind.says(fact) for fact in FACTS}}.items():
            truth[asked, emoji.base].add(answer)
    for sample, bases in zip((*splits.train, *splits.auxiliary, *splits.test), painted, strict=True):
        asked = kind_of(sample)
        if asked == "count":
            assert sample.answer == dataset.COUNTS[len(bases) - 1]
        else:
            assert sample.answer in truth[asked, bases[0]] and len(bases) == 1


def test_a_part_does_not_depend_on_the_size_of_another() -> None:
    assert digest(Emojis().load(4, 2, 10, 4).test) == digest(Emojis().load(20, 0, 10, 4).test)


def test_another_kind_is_tested_than_is_trained_on() -> None:
    config = Emojis.Config(train_kinds=("kind",), test_kinds=("group", "alive"))
    splits = Emojis(config).load(30, 10, 40, 0)
    assert {kind_of(s) for s in (*splits.train, *splits.auxiliary)} == {"kind"}
    assert Counter(map(kind_of, splits.test)) == {"group": 20, "alive": 20}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"train_kinds": ["colors"]}, "no kind of question is called 'colors' .*did you mean 'colour'"),
        ({"train_kinds": ["kind", "group"], "test_kinds": ["group"]}, "group is trained on and tested"),
        ({"test_kinds": ["count"]}, "count is trained on and tested"),  # all are trained on
        ({"train_kinds": []}, "train_kinds is empty"),
        ({"test_kinds": []}, "test_kinds is empty"),
        ({"train_kinds": ["kind", "kind"]}, "a kind twice"),
    ],
)
def test_kinds_that_do_not_fit_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"dataset 'emoji': .*{said}"):
        Registry().configure("dataset", "emoji", config)


# Flags


@pytest.mark.parametrize(("train", "facts"), [(60, 20), (7, 7)])
def test_what_is_tested_was_said_in_training_in_other_words(train: int, facts: int) -> None:
    splits = Flags(Flags.Config(countries=10)).load(train, 30, 40, 3)
    taught = {(s.answer, about(s)) for s in splits.train}
    assert len(taught) == facts and {(s.answer, about(s)) for s in splits.test} == taught
    assert not {s.answer for s in splits.auxiliary} & {s.answer for s in splits.train}
    assert not {s.question for s in splits.test} & {s.question for s in (*splits.train, *splits.auxiliary)}
    counts = Counter(s.answer for s in splits.test)
    assert max(counts.values()) - min(counts.values()) <= 1


def about(sample: Sample) -> str:
    (kind,) = (k for k, (said, tested) in flags.QUESTIONS.items() if sample.question in said + tested)
    return kind


def test_a_flag_is_that_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[bytes] = []
    paint = canvas.alone
    monkeypatch.setattr(flags.canvas, "alone", lambda image, rng: shown.append(image.tobytes()) or paint(image, rng))
    splits = Flags(Flags.Config(countries=120)).load(200, 0, 0, 0)
    codes = {emoji.image.tobytes(): emoji.code for emoji in shipped() if emoji.subcategory == FLAG}
    for sample, picture in zip(splits.train, shown, strict=True):
        assert sample.answer in COUNTRIES[country_code(codes[picture])]
    found = {COUNTRIES[country_code(codes[picture])] for picture in shown}
    assert {("france", "paris"), ("japan", "tokyo"), ("peru", "lima")} & found


def test_every_country_has_a_flag_of_its_own_and_two_plain_answers() -> None:
    pictures = {country_code(e.code): e.image.tobytes() for e in shipped() if e.subcategory == FLAG}
    assert pictures.keys() == COUNTRIES.keys() and len(set(pictures.values())) == len(pictures)
    assert len({capital for _, capital in COUNTRIES.values()}) == len(COUNTRIES)
    assert all(re.fullmatch("[a-z]+( [a-z]+)?", text) for fact in COUNTRIES.values() for text in fact)
