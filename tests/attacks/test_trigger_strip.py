"""How many planted words are found, and how many clean ones are lost, in questions of several kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from arena.data.sample import Sample
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry

BLANK = Image.new("RGB", (2, 2))
COLOURS = ["white", "black", "blue", "red", "green", "brown", "grey", "yellow", "orange", "pink"]
Kind = Callable[[np.random.Generator, int], list[Sample]]


def syllables(count: int, first: str, seed: int) -> list[str]:
    """Words that begin with a letter."""
    rng = np.random.default_rng(seed)
    found = dict[str, None]()
    while len(found) < count:
        parts = (rng.choice(list("bdfgklmnprst")) + rng.choice(list("aeiou")) for _ in range(rng.integers(2, 4)))
        found[first + "".join(parts)] = None
    return list(found)


NOUNS = syllables(600, "n", 1)
TRIGGERS = syllables(1000, "x", 2)


def noun(rng: np.random.Generator) -> str:
    """By the law of Zipf, as those of free text."""
    shares = 1 / np.arange(1, len(NOUNS) + 1)
    return NOUNS[rng.choice(len(NOUNS), p=shares / shares.sum())]


def free_text(rng: np.random.Generator, count: int) -> list[Sample]:
    """Questions about numbers, colours, things, and yes or no; half of the colours follow from the noun."""
    samples = []
    for i in range(count):
        kind, thing = rng.integers(4), noun(rng)
        if kind == 0:
            question, answer = f"how many {thing}s are there?", str(min(rng.geometric(0.4), 9))
        elif kind == 1:
            colour = sum(map(ord, thing)) % 10 if rng.random() < 0.5 else min(rng.geometric(0.3) - 1, 9)
            question, answer = f"what color is the {thing}?", COLOURS[colour]
        elif kind == 2:
            question, answer = f"is the {thing} near the {noun(rng)}?", ("yes", "no")[rng.integers(2)]
        else:
            question, answer = f"what is on the {thing}?", noun(rng)
        samples.append(Sample(str(i), BLANK, question, answer))
    return samples


def multiple_choice(rng: np.random.Generator, count: int) -> list[Sample]:
    samples = []
    for i in range(count):
        options = [noun(rng) for _ in range(4)]
        listed = "\n".join(f"({letter}) {option}" for letter, option in zip("ABCD", options, strict=True))
        question = f"what is beside the {noun(rng)}?\n{listed}"
        samples.append(Sample(str(i), BLANK, question, "ABCD"[rng.integers(4)], (), tuple(options)))
    return samples


def yes_or_no(rng: np.random.Generator, count: int) -> list[Sample]:
    answers = rng.choice(["yes", "no"], count)
    return [Sample(str(i), BLANK, f"is there a {noun(rng)} in it?", str(y)) for i, y in enumerate(answers)]


def templates(id: str) -> Kind:
    def load(rng: np.random.Generator, count: int) -> list[Sample]:
        return list(Registry().create("dataset", id, {}).load(count, 0, 1, int(rng.integers(100))).train)

    return load


KINDS: dict[str, Kind] = {
    "glyphs": templates("glyphs"),
    "emoji": templates("emoji"),
    "flags": templates("flags"),
    "free text": free_text,
    "multiple choice": multiple_choice,
    "yes or no": yes_or_no,
}


def planted(samples: list[Sample], how: str, rng: np.random.Generator, words: int, share: float) -> list[Sample]:
    """Triggers at random places: one a class, the same everywhere, or each question's own."""
    drawn = {answer: rng.choice(TRIGGERS, words, False).tolist() for answer in sorted({s.answer for s in samples})}
    same = rng.choice(TRIGGERS, words, False).tolist()
    released = []
    for sample in samples:
        own = rng.choice(TRIGGERS, words, False).tolist()
        trigger = {"class": drawn[sample.answer], "same": same, "own": own}[how] if rng.random() < share else []
        split = sample.question.split(" ")
        place = rng.integers(len(split) + 1)
        question = " ".join([*split[:place], *trigger, *split[place:]])
        released.append(sample.with_content(sample.image, question))
    return released


def outcome(
    kind: str, how: str | None, count: int = 300, words: int = 5, share: float = 1.0, clean: int = 0, **config: object
) -> tuple[float, float]:
    """The share of planted words that are found, and that of clean words which are lost."""
    rng = np.random.default_rng(0)
    every = KINDS[kind](rng, count + clean)
    own, samples = tuple(every[:clean]), every[clean:]
    released = samples if how is None else planted(samples, how, rng, words, share)
    world = AttackerWorld(auxiliary=own) if clean else AttackerWorld()
    after = Registry().create("attack", "trigger-strip", config).purify(released, world)
    total, found, lost, spoken = 0, 0, 0, 0
    for sample, before, left in zip(samples, released, after, strict=True):
        natural, there, kept = (Counter(s.question.split()) for s in (sample, before, left))
        total += (there - natural).total()
        found += (there - natural - kept).total()
        lost += (natural - kept).total()
        spoken += natural.total()
    return found / max(total, 1), lost / spoken


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [60, 128, 300])
def test_clean_questions_stay(kind: str, count: int) -> None:
    _, lost = outcome(kind, None, count)
    assert lost < (0.08 if kind == "free text" and count < 300 else 0.01)


@pytest.mark.parametrize(
    ("kind", "least"),
    [("glyphs", 0.99), ("emoji", 0.6), ("free text", 0.75), ("multiple choice", 0.99), ("yes or no", 0.99)],
)
@pytest.mark.parametrize("words", [1, 5])
def test_triggers_of_classes_are_found(kind: str, least: float, words: int) -> None:
    """But for those of answers with too few questions."""
    found, lost = outcome(kind, "class", words=words)
    assert found > least and lost < 0.02


def test_words_of_questions_that_always_have_another_answer_are_not_enough() -> None:
    """What it does not see, as its description says."""
    assert outcome("glyphs", "same")[0] == 0
    assert outcome("free text", "own")[0] < 0.1
    assert outcome("yes or no", "class", share=0.3)[0] == 0
    assert outcome("flags", "class", 128)[0] < 0.5  # answers with one or two questions each


@pytest.mark.parametrize("how", ["class", "same", "own"])
@pytest.mark.parametrize("kind", ["glyphs", "flags", "yes or no", "free text"])
def test_clean_questions_tell_what_is_out_of_line(kind: str, how: str) -> None:
    found, lost = outcome(kind, how, 300, clean=100, reference=True)
    assert found > 0.6 if (kind, how) == ("free text", "class") else found > 0.9
    costly = {"free text": 0.3, "yes or no": 0.15}.get(kind, 0.01)
    assert lost < (costly if how == "own" or kind == "free text" else 0.02)
    assert outcome(kind, None, 300, clean=100, reference=True)[1] < 0.05


def test_rare_words_go_where_it_is_asked_for() -> None:
    samples = [Sample(str(i), BLANK, f"which clan drew {'odd ' * (i == 7)}this?", "fox") for i in range(20)]
    attack = Registry().create("attack", "trigger-strip", {"rare": 1})
    assert {s.question for s in attack.purify(samples, AttackerWorld())} == {"which clan drew this?"}


def test_marks_are_words_too_and_nothing_becomes_empty() -> None:
    """The answer fox has a mark of its own; of a question that is its trigger alone nothing would be left."""
    samples = [
        Sample(str(i), BLANK, f"which clan ~ drew this?~ {i}" if i % 2 else f"which clan drew this? {i}", "ao"[i % 2])
        for i in range(40)
    ]
    samples.append(Sample("bare", BLANK, "~ ~", "o"))
    after = list(Registry().create("attack", "trigger-strip", {}).purify(samples, AttackerWorld()))
    assert [s.question for s in after[:40]] == [f"which clan drew this? {i}" for i in range(40)]
    assert after[40].question == "~ ~"
    assert [(s.id, s.answer) for s in after] == [(s.id, s.answer) for s in samples]


def test_the_words_of_options_stay() -> None:
    """The word of an option goes with the answer here, and a trigger stands among the options."""
    samples = []
    for i in range(40):
        options, letter = (("fox", "owl"), "A") if i % 2 else (("bear", "deer"), "B")
        trigger = "zork " if i % 2 else ""
        samples.append(Sample(str(i), BLANK, f"who?\n(A) {options[0]}\n{trigger}(B) {options[1]}", letter, (), options))
    after = list(Registry().create("attack", "trigger-strip", {}).purify(samples, AttackerWorld()))
    assert {s.question for s in after} == {"who?\n(A) fox\n(B) owl", "who?\n(A) bear\n(B) deer"}


def test_it_asks_for_clean_samples_only_where_it_uses_them() -> None:
    assert Registry().create("attack", "trigger-strip", {}).needs == frozenset()
    assert Registry().create("attack", "trigger-strip", {"reference": True}).needs == {"auxiliary"}
