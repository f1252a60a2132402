"""Scores against hand-made contests with known truths."""

from __future__ import annotations

import numpy as np
import pytest

from arena.score.cells import CLEAN, Place
from arena.score.contest import Contest, Robust, Scores
from arena.score.statistics import (
    FAILED,
    FEW_SEEDS,
    NO_BASELINE,
    NO_CONTROL,
    NO_GAIN,
    NO_PROTECTION,
    NO_ZERO_SHOT,
    Bits,
    Bootstrap,
    minimum_detectable_difference,
)

ITEMS = 200
Table = dict[Place, dict[int, Bits]]


def at(defense: str, attack: str = CLEAN, recipe: str = "lora", auxiliary: float = 0.0) -> Place:
    return Place(defense, attack, recipe, auxiliary)


def right(share: float, items: int = ITEMS, shift: int = 0) -> Bits:
    """Exactly `share` of the items, the first ones after `shift`."""
    return np.roll(np.arange(items) < round(share * items), shift)


def table(accuracies: dict[Place, float], seeds: int = 3) -> Table:
    return {place: {s: right(a, shift=s) for s in range(seeds)} for place, a in accuracies.items()}


def scores(bits: Table, zero: Bits | None = None) -> dict[Place, Scores]:
    contest = Contest(bits, right(0.1) if zero is None else zero, Bootstrap(ITEMS, 2000))
    return {place: s for results, _ in contest.results() for place, s in results.items()}


def robust(bits: Table) -> list[Robust]:
    return [r for _, levels in Contest(bits, right(0.1), Bootstrap(ITEMS, 2000)).results() for r in levels]


BASE = {at(CLEAN): 0.9, at(CLEAN, "jpeg"): 0.8, at("em"): 0.3, at("em", "jpeg"): 0.55}


def test_every_score_is_its_definition() -> None:
    s = scores(table(BASE))[at("em", "jpeg")]
    expected = {
        "zero_shot": 0.1,
        "clean": 0.9,
        "clean_attacked": 0.8,
        "accuracy": 0.55,
        "gain": 0.8,
        "drop": 0.35,
        "paired_drop": 0.25,
        "attack_cost": 0.1,
        "protection": 0.35 / 0.8,
        "retention": 0.25 / 0.6,
    }
    for name, value in expected.items():
        estimate = getattr(s, name)
        assert estimate.value == pytest.approx(value), name
        assert estimate.low <= value <= estimate.high, name
    assert s.drop.seeds == 3


def test_bootstrap_error_of_one_accuracy_is_the_binomial_one() -> None:
    bits = right(0.3)
    bootstrap = Bootstrap(ITEMS, 4000)
    draws = bootstrap.mean([int(bits.sum())] * 2, [bootstrap.right_answers(bits[None])[0]] * 2)
    assert draws.standard_error() == pytest.approx(np.sqrt(0.3 * 0.7 / ITEMS), rel=0.05)


def test_intervals_cover_the_truth() -> None:
    """Items of random difficulty, seeds with their own luck: the expected accuracy is in most 95 % intervals."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(150):
        difficulty = rng.beta(2, 2, 80)
        bits = {at(CLEAN): {seed: rng.random(80) < difficulty for seed in range(4)}}
        contest = Contest(bits, None, Bootstrap(80, 400))
        estimate = next(iter(contest.results()))[0][at(CLEAN)].accuracy
        assert estimate.low is not None and estimate.high is not None
        hits += estimate.low <= 0.5 <= estimate.high
    assert 0.91 <= hits / 150 <= 1.0


def test_pairing_uses_the_shared_items() -> None:
    """Where both cells fail on the same items the drop is narrower than where the failures fall on any items."""
    rng = np.random.default_rng(2)
    clean = rng.random(ITEMS) < 0.7
    shared = clean & (rng.random(ITEMS) < 0.8)
    loose = rng.permutation(shared)

    def width(protected: Bits) -> float:
        bits = {at(CLEAN): dict.fromkeys(range(3), clean), at("em"): dict.fromkeys(range(3), protected)}
        drop = scores(bits)[at("em")].drop
        assert drop.value == pytest.approx(clean.mean() - shared.mean())
        assert drop.low is not None and drop.high is not None
        return drop.high - drop.low

    assert width(shared) < 0.75 * width(loose)


def test_pairing_uses_the_shared_seeds() -> None:
    """A seed that is bad for both sides cancels in the drop."""
    levels = [0.9, 0.6, 0.3]
    bits = {
        at(CLEAN): {s: right(level) for s, level in enumerate(levels)},
        at("em"): {s: right(level - 0.1) for s, level in enumerate(levels)},
    }
    s = scores(bits, right(0.0))[at("em")]
    assert s.accuracy.high is not None and s.accuracy.low is not None and s.accuracy.high - s.accuracy.low > 0.4
    assert s.drop.high is not None and s.drop.low is not None and s.drop.high - s.drop.low < 0.15


def test_no_drop_is_nothing_to_retain() -> None:
    s = scores(table({**BASE, at("lsp"): 0.9, at("lsp", "jpeg"): 0.5}))[at("lsp", "jpeg")]
    assert s.retention.value is None
    assert s.retention.undefined == NO_PROTECTION
    assert s.paired_drop.value == pytest.approx(0.3)


def test_without_gain_nothing_relative_to_it_is_a_number() -> None:
    bits = table(BASE)
    s = scores(bits, right(0.9))[at("em", "jpeg")]
    assert (s.protection.value, s.protection.undefined) == (None, NO_GAIN)
    assert (s.retention.value, s.retention.undefined) == (None, NO_GAIN)
    assert s.drop.value is not None
    for one in (r for _, levels in Contest(bits, right(0.9), Bootstrap(ITEMS, 500)).results() for r in levels):
        assert one.robust_protection.undefined == one.robust_retention.undefined == NO_GAIN


def test_one_seed_gives_no_interval_and_no_share() -> None:
    s = scores(table(BASE, seeds=1))[at("em")]
    assert s.accuracy.value == pytest.approx(0.3)
    assert (s.accuracy.low, s.accuracy.high, s.drop.low, s.drop_error) == (None, None, None, None)
    assert s.protection.undefined == s.retention.undefined == FEW_SEEDS


def test_a_difference_uses_the_seeds_that_both_sides_have() -> None:
    bits = table(BASE)
    bits[at("em")] = {1: right(0.2), 2: right(0.4), 7: right(0.9)}
    s = scores(bits)[at("em")]
    assert (s.accuracy.seeds, s.drop.seeds) == (3, 2)
    assert s.drop.value == pytest.approx(0.9 - 0.3)
    assert s.protection.seeds == 2


def test_missing_controls_are_named() -> None:
    failed = {**table(BASE), at("em"): {}}
    assert scores(failed)[at("em")].drop.undefined == FAILED
    assert scores(failed)[at("em", "jpeg")].retention.undefined == NO_BASELINE
    without = {place: b for place, b in table(BASE).items() if place.defense != CLEAN}
    assert scores(without)[at("em")].drop.undefined == NO_CONTROL
    contest = Contest(table(BASE), None, Bootstrap(ITEMS, 500))
    found = {place: s for results, _ in contest.results() for place, s in results.items()}
    assert found[at("em")].protection.undefined == NO_ZERO_SHOT
    assert found[at("em")].drop.value == pytest.approx(0.6)


def test_the_attacker_chooses_attack_and_recipe() -> None:
    bits = table(
        {
            **BASE,
            at(CLEAN, recipe="full"): 0.8,
            at("em", recipe="full"): 0.4,
            at("em", "grayscale"): 0.35,
            at("em", "jpeg", "full"): 0.6,
        }
    )
    one = next(r for r in robust(bits) if r.defense == "em")
    assert one.choice == at("em", "jpeg", "full")
    assert one.accuracy.value == pytest.approx(0.6)
    # The gain is that of the better recipe on clean data, 0.9 - 0.1; without attack the attacker takes `full`.
    assert one.robust_protection.value == pytest.approx((0.9 - 0.6) / 0.8)
    assert one.protection.value == pytest.approx((0.9 - 0.4) / 0.8)
    assert one.robust_retention.value == pytest.approx((0.9 - 0.6) / (0.9 - 0.4))
    assert one.candidates == 5


def test_the_choice_is_made_anew_in_every_resample() -> None:
    """Of equally good attacks on different items a chooser gets more than any one of them."""
    half = {attack: right(0.5, shift=i * 50) for i, attack in enumerate(("none", "jpeg", "blur", "crop"))}
    bits = {at(CLEAN): dict.fromkeys(range(3), right(0.9))}
    bits |= {at("em", attack): dict.fromkeys(range(3), b) for attack, b in half.items()}
    one = next(r for r in robust(bits) if r.defense == "em")
    single = scores(bits)[at("em", "jpeg")].accuracy
    assert one.accuracy.low is not None and single.low is not None
    assert one.accuracy.low > single.low + 0.02


def test_more_clean_data_only_helps_the_attacker() -> None:
    bits = table({**BASE, at("em", "mix", auxiliary=0.2): 0.7, at(CLEAN, "mix", auxiliary=0.2): 0.9})
    levels = [r for r in robust(bits) if r.defense == "em"]
    assert [r.auxiliary for r in levels] == [0.0, 0.2]
    assert [r.accuracy.value for r in levels] == [pytest.approx(0.55), pytest.approx(0.7)]
    # Without attack the share of clean data changes nothing, so the mixed cell finds its baseline.
    assert scores(bits)[at("em", "mix", auxiliary=0.2)].retention.value == pytest.approx(0.2 / 0.6)


def test_rank_groups_start_where_the_leader_is_beaten() -> None:
    bits = table({at(CLEAN): 0.9, at("a"): 0.30, at("b"): 0.31, at("c"): 0.6, at("d"): 0.61, at("e"): 0.9})
    contest = Contest(bits, right(0.1), Bootstrap(ITEMS, 2000))
    found = [r for _, levels in contest.results() for r in levels]
    found.sort(key=lambda r: -(r.robust_protection.value or 0.0))
    # Nested right answers: one item more is a paired difference of one item, which is no significant one.
    assert [r.defense for r in found] == ["a", "b", "c", "d", CLEAN, "e"]
    groups = contest.rank_groups(found)
    assert groups == [1, 1, 2, 2, 3, 3]


def test_ranking_pairs_on_common_seeds_and_skips_what_has_no_interval() -> None:
    bits = table({at(CLEAN): 0.9, at("a"): 0.3, at("b"): 0.6})
    bits[at("b")].pop(0)
    bits[at("c")] = {2: right(0.8)}
    contest = Contest(bits, right(0.1), Bootstrap(ITEMS, 2000))
    found = {r.defense: r for _, levels in contest.results() for r in levels}
    assert contest.rank_groups([found["a"], found["b"], found["c"]]) == [1, 2, None]
    assert found["b"].seeds == (1, 2)


def test_batches_change_nothing() -> None:
    """Scores of a defense do not depend on how many others are in the contest."""
    few = scores(table(BASE))[at("em", "jpeg")]
    many = table({**{at(f"d{i}"): 0.5 for i in range(120)}, **BASE})
    assert scores(many)[at("em", "jpeg")] == few


def test_minimum_detectable_difference_is_found_with_the_stated_power() -> None:
    assert minimum_detectable_difference(1.0) == pytest.approx(1.95996 + 0.84162, abs=1e-4)
    difference = minimum_detectable_difference(0.02)
    observed = np.random.default_rng(0).normal(difference, 0.02, 20_000)
    assert np.mean(np.abs(observed) > 1.95996 * 0.02) == pytest.approx(0.8, abs=0.01)
