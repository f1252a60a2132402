"""Baselines: a loss that is real is found, luck is not, and nothing is compared that asks something else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from synthetic import QUICK, quick, record

from arena.errors import UsageError
from arena.records.schema import Record
from arena.stress.compare import Comparison, compare, refuse_other

SEEDS = 4


def held(before: Sequence[Record], after: Sequence[Record], entry: str = "em") -> Comparison:
    was = refuse_other(before, after, entry, "old")
    return compare(before, after, after, was, entry, "old")


def statuses(found: Comparison) -> dict[str, str]:
    return {cell.where.split(" · ")[3]: cell.status for cell in found.cells}


def test_the_same_records_are_the_same() -> None:
    found = held(quick(seeds=SEEDS), quick(seeds=SEEDS))
    assert statuses(found) == dict.fromkeys(("none", "grayscale", "jpeg"), "same")
    assert {(cell.lost, cell.low, cell.high, cell.p) for cell in found.cells} == {(0.0, 0.0, 0.0, 1.0)}


def test_a_loss_is_found_where_it_is() -> None:
    weaker = {**QUICK, ("em", "jpeg"): 0.75, ("em", "grayscale"): 0.10}
    found = held(quick(seeds=SEEDS), quick(weaker, seeds=SEEDS))
    assert statuses(found) == {"none": "same", "grayscale": "gained", "jpeg": "lost"}
    jpeg = next(cell for cell in found.cells if "jpeg" in cell.where)
    assert jpeg.before == pytest.approx(0.25, abs=0.01) and jpeg.after == pytest.approx(0.05, abs=0.01)
    assert jpeg.lost == pytest.approx(0.2, abs=0.01) and jpeg.low is not None and jpeg.low > 0.05
    assert statuses(held(quick(weaker, seeds=SEEDS), quick(seeds=SEEDS)))["jpeg"] == "gained"


def test_what_moves_the_control_as_well_is_no_loss() -> None:
    """A model that learns more from clean data and from the release alike is as protected as before."""
    raised = {key: p + 0.05 if key[1] == "jpeg" else p for key, p in QUICK.items()}
    found = held(quick(seeds=SEEDS), quick(raised, seeds=SEEDS))
    jpeg = next(cell for cell in found.cells if "jpeg" in cell.where)
    assert jpeg.lost == pytest.approx(0.0, abs=0.011) and jpeg.status == "same"


def test_luck_is_seldom_taken_for_a_loss() -> None:
    """Of 60 comparisons of releases that are alike, at most the one in twenty that the level allows, and some luck."""
    wrong = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        sides = []
        for _ in range(2):
            luck = [rng.random(120) < np.clip(0.3 + rng.normal(0, 0.03), 0, 1) for _ in range(3)]
            sides.append(
                [*(record(0.9, seed=s) for s in range(3)), *(record(0, "em", seed=s, bits=luck[s]) for s in range(3))]
            )
        wrong += held(*sides).cells[0].status == "lost"
    assert wrong <= 6


def test_many_cells_are_corrected_for() -> None:
    """One weak loss among cells that did not move is not found where it would be alone."""
    weaker = {**QUICK, ("em", "jpeg"): 0.60}
    alone = {key: p for key, p in QUICK.items() if key[1] in ("none", "jpeg")}
    one = held(quick(alone, seeds=SEEDS), quick({**alone, ("em", "jpeg"): 0.60}, seeds=SEEDS))
    more = held(quick(seeds=SEEDS), quick(weaker, seeds=SEEDS))
    p = {len(found.cells): next(c.p for c in found.cells if "jpeg" in c.where) for found in (one, more)}
    assert p[3] == pytest.approx(1.5 * (p[2] or 0)) and 0 < (p[2] or 0) < 1


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_decide_nothing(seeds: int) -> None:
    found = held(quick(seeds=seeds), quick(seeds=SEEDS))
    assert set(statuses(found).values()) == {"undecided"}
    assert f"{seeds} seeds are done on both sides, of at least 3" in str(found.cells[0].missing)


def test_cells_that_failed_decide_nothing() -> None:
    failed = [record(0, "em", "jpeg", s, error="it broke") for s in range(SEEDS)]
    kept = [r for r in quick(seeds=SEEDS) if (r.defense.id, r.attack.id) != ("em", "jpeg")]
    assert statuses(held(quick(seeds=SEEDS), [*kept, *failed])) == {
        "none": "same",
        "grayscale": "same",
        "jpeg": "undecided",
    }


def test_the_only_protection_of_a_baseline_is_taken_whatever_it_is_called() -> None:
    old = [r for r in quick(seeds=SEEDS) if r.defense.id != "em"]
    found = held(old, quick(seeds=SEEDS))
    assert found.entry == "lsp" and statuses(found)["none"] == "gained"


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (quick(protocol_version=1), "made under protocol version 1, and this arena has 2"),
        (quick(dataset="digits"), "one whose dataset is another: only the same suite on the same data can be compared"),
        (quick(model="tiny-qwen3-vl"), "one whose model is another"),
        (quick(recipe="full"), "one whose recipe is another"),
        (quick(image=4.0), "one whose budget is another"),
        (quick(items=60), "one whose dataset is another"),
        ([r for r in quick() if r.attack.id != "jpeg"], "has no record of tiny-llava · glyphs · lora · jpeg · 8/255"),
        ([r for r in quick() if r.defense.id in ("none", "random")], "has no record of a protection"),
        (
            quick({("none", "none"): 0.9, ("emm", "none"): 0.2, ("lsp", "none"): 0.2}),
            "has no record of 'em'; did you mean 'emm'?, and several of other protections (emm, lsp)",
        ),
    ],
)
def test_another_question_is_refused(before: list[Record], says: str) -> None:
    with pytest.raises(UsageError) as refused:
        held(before, quick())
    assert says in str(refused.value) and "baseline old" in str(refused.value)
