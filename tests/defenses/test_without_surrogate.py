"""Protections that need no surrogate: what sets each apart, on released bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from PIL import Image

from arena.budget import Budget, amount, colours
from arena.data.sample import Sample
from arena.plugins.base import DefenderWorld, Defense
from arena.plugins.registry import Registry
from arena.release import build_release

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
