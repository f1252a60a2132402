"""The embedded datasets: seeded, disjoint, answerable, in words that the tiny models have."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import arena
from arena.data.embedded import digits, glyphs
from arena.data.embedded.digits import Digits
from arena.data.embedded.emoji.dataset import Emojis
from arena.data.embedded.emoji.flags import Flags
from arena.data.embedded.glyphs import CLANS, Glyphs
from arena.data.embedded.scenes import COLOURS, COUNTS, PLACES, SHAPES, scene_of
from arena.data.sample import Sample, digest
from arena.errors import ArenaError, UsageError
from arena.score.answers import CONVENTIONS

WORDS = set((Path(arena.__file__).parent / "lvlm" / "zoo" / "words.txt").read_text(encoding="utf-8").split())
DATASETS = [
    (Glyphs, (48, 48), "RGB"),
    (Digits, (40, 40), "L"),
    (Emojis, (64, 64), "RGB"),
    (Flags, (64, 64), "RGB"),
]


@pytest.mark.parametrize(("cls", "size", "mode"), DATASETS)
def test_splits_have_the_sizes_asked_for_and_are_disjoint(cls, size, mode):
    splits = cls().load(train=40, auxiliary=13, test=25, seed=3)
    parts = (splits.train, splits.auxiliary, splits.test)
    assert [len(part) for part in parts] == [40, 13, 25]
    everything = [s for part in parts for s in part]
    assert len({s.id for s in everything}) == 78
    assert len({s.image.tobytes() for s in everything}) == 78
    assert {(s.image.size, s.image.mode) for s in everything} == {(size, mode)}
    assert cls.convention in CONVENTIONS


@pytest.mark.parametrize(("cls", "size", "mode"), DATASETS)
def test_a_seed_fixes_the_bytes_and_another_changes_them(cls, size, mode):
    def digests(seed):
        splits = cls().load(20, 5, 10, seed)
        return [digest(part) for part in (splits.train, splits.auxiliary, splits.test)]

    assert digests(1) == digests(1)
    assert not set(digests(1)) & set(digests(2))


@pytest.mark.parametrize(("cls", "size", "mode"), DATASETS)
def test_empty_splits_are_allowed(cls, size, mode):
    splits = cls().load(5, 0, 0, 0)
    assert (len(splits.train), splits.auxiliary, splits.test) == (5, (), ())


@pytest.mark.parametrize("answers", [CLANS.values(), digits.ANSWERS], ids=["glyphs", "digits"])
def test_every_answer_is_a_word_of_the_tiny_models(answers):
    assert set(answers) <= WORDS


def test_glyphs_are_balanced_and_the_clan_follows_from_the_shape(monkeypatch):
    shapes = []

    def recording(rng, shape):
        shapes.append(shape)
        return scene_of(rng, shape)

    monkeypatch.setattr(glyphs, "scene_of", recording)
    splits = Glyphs().load(36, 0, 14, seed=0)
    everything = (*splits.train, *splits.test)
    assert [s.answer for s in everything] == [CLANS[shape] for shape in shapes]
    assert len(set(CLANS.values())) == len(SHAPES) == 6
    assert set(Counter(s.answer for s in splits.train).values()) == {6}
    assert set(Counter(s.answer for s in splits.test).values()) == {2, 3}
    assert {s.question for s in everything} <= set(glyphs.QUESTIONS)
    assert len({s.question for s in everything}) > 4
    assert [s.answer for s in splits.train[:6]] != [CLANS[shape] for shape in SHAPES]


def test_glyphs_may_be_asked_other_things_than_the_clan():
    config = Glyphs.Config(test_kinds=("count", "colour", "shape", "place"))
    splits = Glyphs(config).load(12, 6, 40, 0)
    assert {s.answer for s in (*splits.train, *splits.auxiliary)} <= set(CLANS.values())
    assert digest(splits.train) == digest(Glyphs().load(12, 6, 40, 0).train)
    said = {"how": set(COUNTS), "colour": set(COLOURS), "shape": set(SHAPES), "where": set(PLACES)}
    found = Counter()
    for sample in splits.test:
        (kind,) = (word for word in said if word in sample.question.split()[:2])
        assert sample.answer in said[kind]
        found[kind] += 1
    assert found == dict.fromkeys(said, 10)


def test_a_split_of_glyphs_does_not_depend_on_the_size_of_another():
    assert digest(Glyphs().load(6, 3, 10, 4).test) == digest(Glyphs().load(30, 0, 10, 4).test)


def test_a_seed_that_repeats_a_picture_is_refused(monkeypatch):
    scene = scene_of(np.random.default_rng(0), "star")
    monkeypatch.setattr(glyphs, "scene_of", lambda rng, shape: scene)
    with pytest.raises(ArenaError, match="seed 7 draws a picture twice"):
        Glyphs().load(2, 0, 0, 7)


def test_digits_are_the_source_with_its_labels():
    from sklearn.datasets import load_digits

    source = load_digits()
    splits = Digits().load(1000, 400, 397, seed=5)
    everything = (*splits.train, *splits.auxiliary, *splits.test)
    numbers = [int(s.id.removeprefix("digits-")) for s in everything]
    assert sorted(numbers) == list(range(1797))
    for sample, number in list(zip(everything, numbers, strict=True))[::50]:
        assert sample.answer == digits.ANSWERS[source.target[number]]
        small = np.asarray(sample.image.resize((8, 8), resample=4), float) * 16 / 255
        assert np.corrcoef(small.ravel(), source.images[number].ravel())[0, 1] > 0.9
    assert min(Counter(s.answer for s in splits.train).values()) > 50
    assert {s.question for s in everything} == set(digits.QUESTIONS)


def test_digits_have_no_more_than_there_are():
    with pytest.raises(UsageError, match="1000 training, 400 auxiliary and 398 test samples are 1 more than the 1797"):
        Digits().load(1000, 400, 398, seed=0)


def test_a_digest_tells_samples_apart():
    base = Glyphs().load(2, 0, 0, 0).train
    assert digest(base) != digest(base[::-1])
    first = base[0]
    for other in (
        first.with_content(first.image, first.question + " "),
        first.with_content(first.image.convert("L"), first.question),
        Sample(first.id, first.image, first.question, first.answer, ("x",)),
        Sample(first.id, first.image, first.question, first.answer, (), ("x",)),
    ):
        assert digest([other]) != digest([first])
