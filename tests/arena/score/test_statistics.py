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
    Answers,
    Bits,
    Error,
    best,
    holm,
    pooled,
    ratio,
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
    contest = Contest(bits, right(0.1) if zero is None else zero)
    return {place: s for results, _ in contest.results() for place, s in results.items()}


def robust(bits: Table) -> list[Robust]:
    return [r for _, levels in Contest(bits, right(0.1)).results() for r in levels]


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


def test_the_error_of_one_accuracy_is_the_binomial_one() -> None:
    """Where seeds answer alike, all uncertainty is that of the items."""
    answers = Answers(np.stack([right(0.3)] * 4))
    assert answers.error.error == pytest.approx(np.sqrt(0.3 * 0.7 / (ITEMS - 1)))
    assert answers.error.freedom == ITEMS - 1


def test_the_error_over_seeds_is_that_of_their_mean_where_items_are_alike() -> None:
    """Every seed is right on a share of items that no other seed has: all is seeds and rest."""
    levels = np.array([0.2, 0.5, 0.9, 0.4])
    rng = np.random.default_rng(0)
    answers = Answers(np.stack([rng.random(20_000) < level for level in levels]))
    assert answers.error.error == pytest.approx(levels.std(ddof=1) / 2, rel=0.02)
    assert answers.error.freedom == pytest.approx(3, abs=0.05)
    assert answers.error.half == pytest.approx(3.1824 * levels.std(ddof=1) / 2, rel=0.03)  # Student's t, 3 degrees


def test_seeds_that_agree_by_luck_do_not_make_an_interval_of_no_width() -> None:
    """Each seed is right on 100 of 200 items, on others each time: what items do by luck is known from the items."""
    rng = np.random.default_rng(0)
    answers = Answers(np.stack([rng.permutation(right(0.5)) for _ in range(3)]))
    assert answers.by_seed.std() == 0
    assert answers.error.error == pytest.approx(np.sqrt(0.25 / (3 * ITEMS)), rel=0.15)


def test_an_interval_stays_where_accuracies_can_be() -> None:
    bits = {at(CLEAN): {s: right(a) for s, a in enumerate((1.0, 0.9, 0.7))}}
    accuracy = scores(bits, right(0.0))[at(CLEAN)].accuracy
    assert accuracy.high == 1.0 and accuracy.low is not None and accuracy.low < 0.6


def test_a_ratio_has_the_interval_of_fieller() -> None:
    """Of a denominator that is known exactly it is that of the numerator, and otherwise it is wider upwards."""
    rng = np.random.default_rng(3)
    part = Answers((rng.random((5, ITEMS)) < 0.4).astype(float))
    known = Answers(np.full((5, ITEMS), 0.5))
    found, own = ratio(part, known), part.estimate()
    assert found.value == pytest.approx(own.value / 0.5) and found.p == own.p
    assert (found.low, found.high) == pytest.approx((own.low / 0.5, own.high / 0.5))
    loose = Answers(np.array([0.9, 0.6, 0.5, 0.4, 0.6])[:, None] * np.ones(ITEMS))
    wide = ratio(part, loose)
    assert wide.low is not None and wide.high is not None and wide.value is not None
    assert wide.high - wide.value > 1.2 * (wide.value - wide.low) > 0
    same = ratio(part, part)
    assert (same.value, same.low, same.high) == (1, 1, 1)


def test_the_mean_of_statistics_is_one_itself() -> None:
    rng = np.random.default_rng(4)
    one, other = (Answers(rng.random((3, 50)) < share) for share in (0.3, 0.8))
    assert pooled([one, other]).mean == pytest.approx((one.mean + other.mean) / 2)
    assert pooled([one, one]).estimate() == one.estimate()


def test_holm_corrects_for_all_and_skips_what_was_not_tested() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([None]) == [None] and holm([]) == []


def test_p_values_agree_with_intervals() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        levels = rng.normal(0.5, 0.1, (2, 3)).clip(0.05, 0.95)
        more, less = (Answers(np.stack([rng.random(60) < a for a in side])) for side in levels)
        found = (more - less).estimate()
        assert found.low is not None and found.high is not None and found.p is not None
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


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
    for one in (r for _, levels in Contest(bits, right(0.9)).results() for r in levels):
        assert one.robust_protection.undefined == one.ranked.retention.undefined == NO_GAIN


def test_one_seed_gives_no_interval_and_no_share() -> None:
    s = scores(table(BASE, seeds=1))[at("em")]
    assert s.accuracy.value == pytest.approx(0.3)
    assert (s.accuracy.low, s.accuracy.high, s.drop.low, s.detectable) == (None, None, None, None)
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
    contest = Contest(table(BASE), None)
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
    assert one.ranked.choice == at("em", "jpeg", "full")
    assert one.ranked.accuracy.value == pytest.approx(0.6)
    # The gain is that of the better recipe on clean data, 0.9 - 0.1; without attack the attacker takes `full`.
    assert one.robust_protection.value == pytest.approx((0.9 - 0.6) / 0.8)
    assert one.protection.value == pytest.approx((0.9 - 0.4) / 0.8)
    assert one.ranked.retention.value == pytest.approx((0.9 - 0.6) / (0.9 - 0.4))
    assert one.candidates == 5


def test_the_interval_of_the_worst_case_reaches_as_far_as_the_choice_flatters() -> None:
    """Of attacks that are equally good but for their seeds' luck, the one that is best on all is not as good."""
    rng = np.random.default_rng(6)
    bits = {at(CLEAN): {s: rng.random(ITEMS) < 0.9 for s in range(5)}}
    for number in range(12):
        luck = rng.normal(0.5, 0.08, 5)
        bits[at("em", "none" if number == 0 else f"a{number}")] = {s: rng.random(ITEMS) < a for s, a in enumerate(luck)}
    one = next(r for r in robust(bits) if r.defense == "em")
    alone = scores(bits)[one.ranked.choice].accuracy if one.ranked.choice else None
    assert alone is not None and alone.low is not None and one.ranked.accuracy.low is not None
    assert one.ranked.accuracy.value == alone.value and one.ranked.accuracy.high == alone.high
    assert alone.low - one.ranked.accuracy.low > 0.03
    assert one.ranked.accuracy.low < 0.5 < alone.value


def test_a_choice_between_attacks_that_differ_flatters_nobody() -> None:
    answers = [Answers(np.stack([right(a, shift=s) for s in range(3)])) for a in (0.3, 0.8, 0.4)]
    assert best(answers) == (1, 0.0)
    assert best(answers[:1]) == (0, 0.0)


def test_what_a_choice_flatters_by_is_found_by_the_seeds_that_had_no_say() -> None:
    """Two attacks, each good on another seed: chosen by the rest, each counts where it is bad."""
    good, bad = np.ones(10, bool), np.zeros(10, bool)
    answers = [Answers(np.stack([good, bad])), Answers(np.stack([bad, good]))]
    assert best(answers) == (0, 0.5)


def test_more_clean_data_only_helps_the_attacker() -> None:
    bits = table({**BASE, at("em", "mix", auxiliary=0.2): 0.7, at(CLEAN, "mix", auxiliary=0.2): 0.9})
    levels = [r for r in robust(bits) if r.defense == "em"]
    assert [r.auxiliary for r in levels] == [0.0, 0.2]
    assert [r.worst.accuracy.value for r in levels] == [pytest.approx(0.55), pytest.approx(0.7)]
    # Without attack the share of clean data changes nothing, so the mixed cell finds its baseline.
    assert scores(bits)[at("em", "mix", auxiliary=0.2)].retention.value == pytest.approx(0.2 / 0.6)


def test_rank_groups_start_where_the_leader_is_beaten() -> None:
    bits = table({at(CLEAN): 0.9, at("a"): 0.30, at("b"): 0.31, at("c"): 0.6, at("d"): 0.61, at("e"): 0.9})
    contest = Contest(bits, right(0.1))
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
    contest = Contest(bits, right(0.1))
    found = {r.defense: r for _, levels in contest.results() for r in levels}
    assert contest.rank_groups([found["a"], found["b"], found["c"]]) == [1, 2, None]
    assert found["b"].seeds == (1, 2)


def test_scores_of_a_defense_do_not_depend_on_others() -> None:
    few = scores(table(BASE))[at("em", "jpeg")]
    many = table({**{at(f"d{i}"): 0.5 for i in range(120)}, **BASE})
    assert scores(many)[at("em", "jpeg")] == few


def test_the_smallest_detectable_difference_is_found_with_the_stated_power() -> None:
    assert Error(1.0, 1e9).detectable == pytest.approx(1.95996 + 0.84162, abs=1e-4)
    rng = np.random.default_rng(0)
    for seeds in (3, 5, 10):
        error = Error(0.1 / np.sqrt(seeds), seeds - 1)
        values = rng.normal(error.detectable, 0.1, (20_000, seeds))
        spread = values.std(axis=1, ddof=1) / np.sqrt(seeds)
        found = np.abs(values.mean(axis=1)) > error.half / error.error * spread
        assert np.mean(found) == pytest.approx(0.8, abs=0.04)
