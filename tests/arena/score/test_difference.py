"""The interval of a difference between public and secret effects holds what it says, on synthetic truth."""

from __future__ import annotations

import numpy as np
import pytest

from arena.score.difference import Effect, difference, effect

ITEMS = 160


def right(rng: np.random.Generator, hard: np.ndarray, accuracy: float) -> np.ndarray:
    """Which items are right, of a given difficulty each."""
    return rng.random(hard.size) < np.clip(accuracy + hard, 0, 1)


def simulated(rng: np.random.Generator, seeds: int, drop: float, of_draws: float, of_seeds: float) -> Effect:
    """The secret side: every seed on a draw of its own."""
    hard = [rng.normal(0, 0.15, ITEMS) for _ in range(seeds)]
    drops = drop + rng.normal(0, of_draws, seeds) + rng.normal(0, of_seeds, seeds)
    return effect(
        [right(rng, h, 0.8) for h in hard],
        [right(rng, h, 0.8 - d) for h, d in zip(hard, drops, strict=True)],
        one_draw=False,
    )


def published(rng: np.random.Generator, seeds: int, drop: float, of_draws: float, of_seeds: float) -> Effect:
    """The public side: all seeds on one draw."""
    hard, own = rng.normal(0, 0.15, ITEMS), drop + rng.normal(0, of_draws)
    return effect(
        [right(rng, hard, 0.8) for _ in range(seeds)],
        [right(rng, hard, 0.8 - own - rng.normal(0, of_seeds)) for _ in range(seeds)],
        one_draw=True,
    )


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    ("drop", "of_draws", "of_seeds"), [(0.0, 0.0, 0.0), (0.3, 0.0, 0.05), (0.3, 0.03, 0.03), (0.35, 0.07, 0.02)]
)
def test_an_honest_entry_is_blamed_once_in_twenty_times_at_most(
    seeds: int, drop: float, of_draws: float, of_seeds: float
) -> None:
    rng, truth = np.random.default_rng(5), (seeds, drop, of_draws, of_seeds)
    beyond = [difference(published(rng, *truth), simulated(rng, *truth)).beyond for _ in range(200)]
    assert np.mean(beyond) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(beyond))


def test_an_effect_that_is_gone_is_found() -> None:
    rng = np.random.default_rng(6)
    told = [difference(published(rng, 3, 0.5, 0, 0.02), simulated(rng, 3, 0.0, 0.0, 0.02)) for _ in range(60)]
    assert np.mean([one.beyond for one in told]) > 0.95 and all(one.value < 0 for one in told)


def test_an_interval_that_holds_both_the_effect_and_none_tells_nothing() -> None:
    public = Effect(0.4, (0.38, 0.42, 0.4), 0.02)
    assert not difference(public, Effect(0.3, (0.0, 0.6, 0.3), 0.02)).telling
    assert difference(public, Effect(0.4, (0.39, 0.41, 0.4), 0.02)).telling
    assert difference(Effect(0.0, (0.01, -0.01, 0.0), 0.02), Effect(0.0, (0.01, -0.01, 0.0), 0.02)).telling


def test_more_comparisons_make_wider_intervals() -> None:
    one, other = Effect(0.4, (0.38, 0.42, 0.4), 0.02), Effect(0.3, (0.28, 0.32, 0.3), 0.02)
    alone, together = difference(one, other), difference(one, other, comparisons=3)
    assert alone.value == together.value == pytest.approx(-0.1)
    assert together.high - together.low > alone.high - alone.low
    assert alone.high - alone.value == pytest.approx(alone.value - alone.low)


def test_an_effect_is_the_paired_difference_with_the_error_over_items() -> None:
    rng = np.random.default_rng(7)
    more, less = rng.random((3, ITEMS)) < 0.8, rng.random((3, ITEMS)) < 0.5
    for one_draw in (True, False):
        found = effect(list(more), list(less), one_draw)
        assert found.value == pytest.approx(more.mean() - less.mean())
        assert found.seeds == pytest.approx(more.mean(axis=1) - less.mean(axis=1))
        delta = more.astype(float) - less
        each = delta.mean(axis=0).var() / ITEMS if one_draw else delta.var(axis=1).sum() / 9 / ITEMS
        assert found.items_error == pytest.approx(np.sqrt(each), rel=1e-9)
    same = effect(list(more), list(more), one_draw=True)
    assert (same.value, same.items_error, same.spread) == (0, 0, 0)
    assert difference(same, same).low == difference(same, same).high == 0 and not difference(same, same).beyond
