"""Protections that need no surrogate: what sets each apart, on released bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from PIL import Image

from arena.budget import Budget, amount, colours
from arena.data.sample import Sample
from arena.errors import ArenaError, UsageError
from arena.leak import given_away, inserted_words
from arena.plugins.base import DefenderWorld, Defense
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.ar import AutoregressiveNoise, generated
from defenses.classes import answer_classes
from defenses.regtext import RegText

ONE_PIXEL = Budget(norm="l0", image=1)
ANSWERS = ("fox", "owl", "bear")


def defense(name: str, **config: Any) -> Defense:
    return Registry().create("defense", name, config)


def release(name: str, samples: Sequence[Sample], budget: Budget, seed: int = 0, **config: Any) -> list[Sample]:
    """No surrogate is granted, so that none is asked for."""
    drafts = defense(name, **config).protect(samples, DefenderWorld(budget, seed))
    return build_release(samples, drafts, budget, None)


def pictures(count: int, shape: tuple[int, ...] = (12, 9, 3), seed: int = 0) -> list[Sample]:
    """Noise around a pattern that all have, with three answers in turn."""
    rng = np.random.default_rng(seed)
    pattern = rng.integers(40, 216, shape)
    values = [np.clip(pattern + rng.normal(0, 30, shape), 0, 255).astype(np.uint8) for _ in range(count)]
    return [Sample(str(i), Image.fromarray(x), "which clan?", ANSWERS[i % 3]) for i, x in enumerate(values)]


def moved(before: Sample, after: Sample) -> np.ndarray:
    return colours(after.image).astype(int) - colours(before.image)


# ops


def by_definition(stack: np.ndarray, taken: set[tuple[int, int, int]]) -> tuple[int, int, int]:
    """Row, column and number of the colour, of pictures ``(N, H, W, 3)`` in [0, 1], one score at a time."""
    best, found = -1.0, (0, 0, 0)
    for row, column in np.ndindex(stack.shape[1:3]):
        for number, value in enumerate(product((0, 1), repeat=3)):
            distance = np.abs(np.array(value) - stack[:, row, column])
            score = distance.mean() / distance.std()
            if (row, column, number) not in taken and score > best:
                best, found = score, (row, column, number)
    return found


def test_ops_sets_one_pixel_of_a_class_to_the_colour_that_it_is_steadily_far_from() -> None:
    samples = pictures(24)
    released = release("ops", samples, ONE_PIXEL)
    taken: set[tuple[int, int, int]] = set()
    for answer in sorted(ANSWERS):
        own = [(a, b) for a, b in zip(samples, released, strict=True) if a.answer == answer]
        row, column, number = by_definition(np.stack([np.asarray(a.image) / 255 for a, _ in own]), taken)
        taken.add((row, column, number))
        for before, after in own:
            assert amount(before.image, after.image, "l0") == 1
            assert moved(before, after)[row, column].any()
            assert (colours(after.image)[row, column] == 255 * np.array(list(product((0, 1), repeat=3)))[number]).all()
    assert len(taken) == 3


def test_ops_gives_no_two_classes_one_pixel_and_colour() -> None:
    """All pictures are alike, so that every class would choose the same."""
    same = Image.fromarray(np.random.default_rng(1).integers(40, 216, (6, 6, 3), dtype=np.uint8))
    samples = [Sample(str(i), same.copy(), "which clan?", answer) for i, answer in enumerate(ANSWERS)]
    assert len({s.image.tobytes() for s in release("ops", samples, ONE_PIXEL)}) == 3


def test_ops_takes_the_pixel_that_deviates_most_where_pictures_agree_at_many() -> None:
    flat = np.full((5, 5, 3), 128, np.uint8)
    flat[3, 1] = 10
    samples = [Sample(str(i), Image.fromarray(flat), "which clan?", "fox") for i in range(2)]
    for sample, after in zip(samples, release("ops", samples, ONE_PIXEL), strict=True):
        assert np.argwhere(moved(sample, after).any(2)).tolist() == [[3, 1]]
        assert (colours(after.image)[3, 1] == 255).all()


def test_ops_keeps_the_place_relative_to_the_picture_and_is_black_or_white_beside_grey() -> None:
    """A spot that all pictures of a class have at one place relative to their size."""
    samples = []
    for number, (height, width, grey) in enumerate([(10, 10, False), (20, 30, False), (11, 25, True), (40, 10, False)]):
        values = np.random.default_rng(number).integers(90, 166, (height, width, 3)).astype(np.uint8)
        rows, columns = (((2 * np.arange(size) + 1) * 10 // (2 * size)) for size in (height, width))
        values[(rows[:, None] == 6) & (columns == 2)] = 0
        image = Image.fromarray(values)
        samples.append(Sample(str(number), image.convert("L") if grey else image, "which clan?", "fox"))
    for before, after in zip(samples, release("ops", samples, ONE_PIXEL), strict=True):
        ((row, column),) = np.argwhere(moved(before, after).any(2)).tolist()
        assert 0.6 <= (row + 0.5) / before.image.height < 0.7 and 0.2 <= (column + 0.5) / before.image.width < 0.3
        assert (colours(after.image)[row, column] == 255).all()
        assert after.image.mode == before.image.mode


@pytest.mark.parametrize(
    "budget",
    [Budget(image=3), Budget(norm="l2", image=2.3), Budget(norm="l0", image=0), Budget(norm="unbounded")],
    ids=lambda budget: budget.norm,
)
def test_ops_spends_of_other_budgets_what_one_pixel_can(budget: Budget) -> None:
    samples = pictures(9)
    full, some = release("ops", samples, ONE_PIXEL), release("ops", samples, budget)
    for before, whole, part in zip(samples, full, some, strict=True):
        one, other = moved(before, whole), moved(before, part)
        most = {"linf": np.clip(one, -3, 3), "l0": 0 * one, "unbounded": one}
        if budget.norm == "l2":
            assert (np.sign(other) * np.sign(one) >= 0).all() and 0.8 * 2.3 < amount(
                before.image, part.image, "l2"
            ) <= 2.3
        else:
            assert np.array_equal(other, most[budget.norm])


def test_the_claim_of_ops_finds_another_pixel_more_pixels_and_another_colour() -> None:
    samples, world = pictures(12), DefenderWorld(ONE_PIXEL)
    released, claims = release("ops", samples, ONE_PIXEL), defense("ops")
    assert claims.distinguished(samples, released, world) is None
    wrongs = []
    for shift in ((1, 0), (0, 1)):
        ((row, column),) = np.argwhere(moved(samples[0], released[0]).any(2)).tolist()
        values = np.array(samples[0].image)
        there = (row + shift[0]) % 12, (column + shift[1]) % 9
        values[there] = 255 - values[there]
        wrongs.append(values)
    wrongs.append(np.array(released[0].image))
    wrongs[-1][(row + 1) % 12] += 1
    wrongs.append(np.array(samples[0].image))
    wrongs[-1][row, column] -= np.sign(moved(samples[0], released[0])[row, column]).astype(np.uint8)
    for values in wrongs:
        other = samples[0].with_content(Image.fromarray(values), samples[0].question)
        assert claims.distinguished(samples, [other, *released[1:]], world) is not None
    assert claims.distinguished(samples, samples, world) == "no pixel changed"


# cuda


def recovered(before: Sample, after: Sample) -> np.ndarray:
    """The filter ``(3, 3)`` that made a picture of another, its largest weight 1, by least squares over the inside; the
    largest residual in 1/255 is tested here."""
    x, y = (colours(s.image).astype(float) for s in (before, after))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1)).reshape(-1, 9)
    weights, *_ = np.linalg.lstsq(windows, y[1:-1, 1:-1].ravel(), rcond=None)
    assert np.abs(windows @ weights - y[1:-1, 1:-1].ravel()).max() < 0.75
    return (weights / weights.max()).reshape(3, 3)


@pytest.mark.parametrize("one", ["middle", "anywhere"])
def test_cuda_convolves_all_pictures_of_a_class_with_one_filter_and_fills_the_range(one: str) -> None:
    samples = pictures(30, (40, 36, 3))
    released = release("cuda", samples, Budget(norm="unbounded"), one=one)
    filters: dict[str, list[np.ndarray]] = {}
    for before, after in zip(samples, released, strict=True):
        assert colours(after.image).max() == 255
        filters.setdefault(before.answer, []).append(recovered(before, after))
    means = {answer: np.mean(found, 0) for answer, found in filters.items()}
    for answer, found in filters.items():
        assert np.abs(np.array(found) - means[answer]).max() < 0.06
        assert np.sort(means[answer].ravel())[-2] < 0.31 and means[answer].min() > -0.02
    assert min(np.abs(means[a] - means[b]).max() for a in means for b in means if a != b) > 0.1
    tops = {np.unravel_index(mean.argmax(), (3, 3)) for mean in means.values()}
    assert (tops == {(1, 1)}) == (one == "middle")


def test_cuda_pads_with_zeros_leaves_black_alone_and_other_seeds_have_other_filters() -> None:
    white, black = (Image.new("L", (9, 9), level) for level in (255, 0))
    samples = [Sample(str(i), image, "which clan?", "fox") for i, image in enumerate((white, black))]
    first, other = (release("cuda", samples, Budget(norm="unbounded"), seed) for seed in (0, 1))
    values = np.asarray(first[0].image)
    assert (values[1:-1, 1:-1] == 255).all() and (values[0] < 255).all() and (values[:, -1] < 255).all()
    assert not np.asarray(first[1].image).any()
    assert first[0].image.tobytes() != other[0].image.tobytes()


# ar


def grey_level(size: tuple[int, int], number: int, answer: str, mode: str = "RGB") -> Sample:
    return Sample(str(number), Image.new(mode, size, 128 if mode == "L" else (128,) * 3), "which clan?", answer)


def left_over(weights: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Of each colour, what is left of a pixel ``(C, H - 2, W - 2)`` when the weighted sum of those before it is taken
    off, one after the other."""
    height, width = noise.shape[1:]
    return np.array(
        [
            [
                [plane[i, j] - (w * plane[i - 2 : i + 1, j - 2 : j + 1]).ravel()[:8].sum() for j in range(2, width)]
                for i in range(2, height)
            ]
            for w, plane in zip(weights, noise, strict=False)
        ]
    )


def test_ar_noise_satisfies_the_filter_of_its_class_and_no_other() -> None:
    samples = [grey_level((20, 14), i, ANSWERS[i % 3]) for i in range(7)]
    samples += [grey_level((13, 22), 7, "owl"), grey_level((14, 20), 8, "bear", "L")]
    ar, world = defense("ar"), DefenderWorld(Budget(norm="l2", image=6), 3)
    assert isinstance(ar, AutoregressiveNoise)
    weights = dict(zip(sorted(ANSWERS), ar.processes(samples, 3, world.rng()), strict=True))
    assert all(
        w[:, 2, 2].tolist() == [0, 0, 0] and w.sum((1, 2)) == pytest.approx(np.ones(3)) for w in weights.values()
    )
    for sample, noise in zip(samples, ar.noise(samples, world), strict=True):
        assert noise.shape == (len(sample.image.getbands()), *sample.image.size[::-1])
        for answer, own in weights.items():
            worst = np.abs(left_over(own, noise)).max() / np.abs(noise).max()
            assert worst < 1e-5 if answer == sample.answer else worst > 1e-2


def test_ar_noise_is_of_the_published_norm_and_anew_for_each_sample() -> None:
    """L2 = 1 at 32 x 32, and the same root mean square at any size: 255 / sqrt(3072) = 4.6."""
    samples = [grey_level(size, i, "fox") for i, size in enumerate([(32, 32), (32, 32), (50, 41), (32, 32)])]
    noise = list(defense("ar").noise(samples, DefenderWorld(Budget(norm="l2", image=6), 0)))  # type: ignore[attr-defined]
    assert [float(np.square(n).sum()) for n in noise] == pytest.approx([1, 1, 50 * 41 / 32**2, 1], rel=1e-4)
    assert np.abs(np.corrcoef([n.ravel() for n in noise if n.size == 3072]) - np.eye(3)).max() < 0.7
    released = release("ar", samples, Budget(norm="l2", image=6))
    used = [amount(a.image, b.image, "l2") for a, b in zip(samples, released, strict=True)]
    assert used == pytest.approx(np.full(4, 255 / np.sqrt(3072)), abs=0.05)
    half = [
        amount(a.image, b.image, "l2")
        for a, b in zip(samples, release("ar", samples, Budget(norm="l2", image=6), radius=0.5), strict=True)
    ]
    assert half == pytest.approx(np.full(4, 127.5 / np.sqrt(3072)), abs=0.05)


def test_ar_draws_processes_whose_signals_do_not_grow_and_which_answer_each_other() -> None:
    samples = [grey_level((60, 33), 0, "fox")]
    ar, rng = defense("ar", response=6.0), np.random.default_rng(5)
    assert isinstance(ar, AutoregressiveNoise)
    processes = ar.processes(samples, 5, np.random.default_rng(0))
    for number, process in enumerate(processes):
        signals = generated(process, 33, 60, [rng] * 20)
        assert np.median(np.abs(signals).max((1, 2, 3))) < 5
        published = generated(process, 32, 32, [rng])[0]
        noise = published / np.sqrt(np.square(published).sum())
        for other in range(number):
            left = -left_over(processes[other], noise).sum(0)
            assert np.maximum(left, 0).sum() > 4  # of a noise of its own, a little less than asked for
    with pytest.raises(ArenaError, match="raise `largest`, or lower `response`"):
        defense("ar", largest=0.01).processes(samples, 1, rng)  # type: ignore[attr-defined]


def test_ar_does_not_depend_on_what_is_generated_together(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [grey_level((9, 12), i, ANSWERS[i % 2]) for i in range(6)]
    together = [s.image.tobytes() for s in release("ar", samples, Budget(norm="l2", image=6))]
    monkeypatch.setattr("defenses.ar.TOGETHER", 1)
    assert together == [s.image.tobytes() for s in release("ar", samples, Budget(norm="l2", image=6))]


# regtext


ASKED = {
    "fox": (
        "is the burrow beneath that hedge?",
        "whose burrow is this, and which hedge?",
        "who digs a burrow and runs?",
    ),
    "owl": ("who hoots at midnight?", "which bird hoots and runs after mice?", "whose feathers fall at midnight?"),
    "bear": ("who fishes salmon in the river?", "which river has salmon?", "who runs from bees to the river?"),
}


def asked() -> list[Sample]:
    image = Image.new("RGB", (4, 4))
    return [Sample(q, image, q, answer) for answer, questions in ASKED.items() for q in questions]


def test_regtext_ranks_words_by_how_much_they_say_of_the_class_and_how_rare_they_are() -> None:
    """The formula, one word at a time; a word of all classes is in none's best."""
    samples, regtext = asked(), defense("regtext")
    assert isinstance(regtext, RegText)
    counts = np.array([[3.0, 1, 1], [0, 4, 1]])
    total, different = 10, (3, 2)
    wanted = [
        [
            3 * math.log2(n / v + 1e-6) - math.log2(overall / total * v / total) - 2 * math.log2(1 + overall)
            for n, overall in zip(row, counts.sum(0), strict=True)
        ]
        for row, v in zip(counts, different, strict=True)
    ]
    assert regtext.scores(counts) == pytest.approx(np.array(wanted))
    chosen = regtext.chosen(samples, answer_classes(samples, 0))
    assert [words[:2] for words in chosen] == [["river", "salmon"], ["burrow", "hedge"], ["hoots", "midnight"]]
    assert sum("runs" in words for words in chosen) == 1
    assert not {"the", "is", "who"} & set().union(*chosen)


def test_regtext_puts_words_of_the_class_between_those_of_the_question() -> None:
    samples = asked()
    regtext = defense("regtext", share=0.5, words=3)
    assert isinstance(regtext, RegText)
    own = dict(zip(sorted(ASKED), regtext.chosen(samples, answer_classes(samples, 0)), strict=True))
    released = release("regtext", samples, Budget(text=3), share=0.5, words=3)
    for before, after in zip(samples, released, strict=True):
        new = inserted_words(before.question, after.question)
        assert set(new) <= set(own[before.answer]) and after.image.tobytes() == before.image.tobytes()
        assert len(new) == min(3, len(before.question.split()) // 2)
        left = after.question.split()
        for word in new:
            left.remove(word)
        assert sorted(left) == sorted(before.question.split())
    one = release("regtext", samples, Budget(text=5))
    assert [len(inserted_words(a.question, b.question)) for a, b in zip(samples, one, strict=True)] == [1] * len(
        samples
    )
    assert all(
        a.question == b.question for a, b in zip(samples, release("regtext", samples, Budget(text=0)), strict=True)
    )
    others = release("regtext", samples, Budget(), seed=1)
    assert [s.question for s in one] != [s.question for s in others]


def test_regtext_inserts_nothing_of_the_answer_where_the_budget_forbids_it() -> None:
    samples = [
        Sample(str(i), Image.new("L", (2, 2)), "is it a heron or a wren?", ("heron", "wren")[i % 2]) for i in range(8)
    ]
    free, kept = (
        release("regtext", samples, Budget(text=5, forbid_answer_words=not allowed), share=1)
        for allowed in (True, False)
    )
    assert any(given_away(a, b.question) for a, b in zip(samples, free, strict=True))
    assert not any(given_away(a, b.question) for a, b in zip(samples, kept, strict=True))


# budgets


@pytest.mark.parametrize(
    "budget",
    [Budget(image=8), Budget(image=0), Budget(norm="l2", image=1.5), Budget(norm="l2", image=0.4)],
    ids=lambda budget: f"{budget.norm}-{budget.image:g}",
)
@pytest.mark.parametrize("name", ["ar", "cuda"])
def test_changes_of_whole_pictures_are_made_as_far_as_the_budget_allows(name: str, budget: Budget) -> None:
    """What goes beyond it is refused by `release`; of a small budget something is left."""
    samples = pictures(6, (30, 31, 3)) + pictures(3, (1, 1, 3), seed=3) + pictures(3, (17, 9), seed=4)
    released = release(name, samples, budget)
    used = [amount(a.image, b.image, budget.norm) for a, b in zip(samples[:6], released, strict=False)]
    assert all(one <= budget.image for one in used)
    assert budget.image == 0 or min(used) > (0.9 if budget.image > 1 else 0) * min(budget.image, 1.5)


@pytest.mark.parametrize("name", ["ar", "cuda"])
def test_a_number_of_pixels_is_no_budget_for_changes_of_whole_pictures(name: str) -> None:
    with pytest.raises(UsageError, match="use another norm"):
        release(name, pictures(3), ONE_PIXEL)
