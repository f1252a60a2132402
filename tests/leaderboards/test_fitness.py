"""A task whose controls miss its bars is not ranked, and an attack that misses its own is nobody's choice there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError
from synthetic import quick, record

from arena.records.schema import Record
from leaderboards.site.render import html, markdown
from leaderboards.site.views import compose
from leaderboards.tables.board import Board, build
from leaderboards.tables.fitness import Bars, CostBar, bars

TABLE: Mapping[tuple[str, str], float] = {
    **{("none", "none"): 0.90, ("none", "grayscale"): 0.85, ("none", "crop-pad"): 0.85},
    **{("random", "none"): 0.90, ("random", "grayscale"): 0.85, ("random", "crop-pad"): 0.85},
    **{("em", "none"): 0.25, ("em", "grayscale"): 0.35, ("em", "crop-pad"): 0.55},
    **{("lsp", "none"): 0.35, ("lsp", "grayscale"): 0.45, ("lsp", "crop-pad"): 0.50},
}


def best(board: Board, defense: str) -> pd.Series:
    return board.ranking[board.ranking["defense"] == defense].iloc[0]


def page(board: Board) -> str:
    return markdown(compose(board))


def with_clean(accuracy: float) -> list[Record]:
    attacked = {("none", "grayscale"): accuracy - 0.05, ("none", "crop-pad"): accuracy - 0.05}
    return quick({**TABLE, **attacked, ("none", "none"): accuracy})


@pytest.mark.parametrize(
    ("accuracy", "reason"),
    [
        (0.80, "fine-tuning on clean data reaches 80.0 %, of at least 85 %, so that little is learned"),
        (1.00, "fine-tuning on clean data reaches 100.0 %, of at most 97 %, so that there is no room above"),
    ],
)
def test_an_unfit_task_is_not_ranked_and_says_why(accuracy: float, reason: str) -> None:
    board = build(with_clean(accuracy))
    assert board.ranking["group"].isna().all()
    assert all(said.startswith(reason) for said in board.ranking["unfit"])
    assert board.power["unfit"].iloc[0].startswith(reason)
    text = page(board)
    assert f"Not ranked, since the task is unfit: {reason}" in text and "denies" not in text
    assert "The task is unfit, so nothing is ranked." in text and "The task is unfit" in html(compose(board))
    assert f"| unfit: {reason}" in text
    assert best(board, "em")["robust_protection"] is not None  # what was measured stays


@pytest.mark.parametrize("accuracy", [0.85, 0.90, 0.97])
def test_a_fit_task_is_ranked(accuracy: float) -> None:
    """The bars themselves are met."""
    items = 300  # of which 97 % is a whole number
    table = {**TABLE, ("none", "none"): accuracy}
    board = build(quick(table, items=items))
    entries = board.ranking[~board.ranking["control"]]
    assert board.ranking["unfit"].isna().all() and entries["group"].notna().all()
    assert "| ranked |" in page(board)


def test_bars_are_those_of_the_arenas_own_models() -> None:
    board = build(quick({**TABLE, ("none", "none"): 0.6}, model="a-large-one"))
    assert board.ranking["unfit"].isna().all() and board.ranking["group"].notna().any()
    assert board.cells["left_out"].isna().all()


def test_the_best_recipe_on_clean_data_is_judged() -> None:
    weak = [record(0.5, d, a, s, recipe="projector") for d, a in TABLE for s in range(3)]
    board = build(quick(TABLE) + weak)
    assert board.power["recipe"].iloc[0] == "lora" and board.ranking["unfit"].isna().all()


def test_an_attack_that_costs_too_much_is_left_out_of_the_worst_case_and_said() -> None:
    dear = {**TABLE, ("none", "crop-pad"): 0.70}
    fine, left_out = build(quick(TABLE)), build(quick(dear))
    assert best(fine, "em")["best_attack"] == "crop-pad" and best(left_out, "em")["best_attack"] == "grayscale"
    assert best(left_out, "em")["worst_case_protection"] == pytest.approx((0.9 - 0.35) / 0.8)
    assert best(left_out, "em")["choices"] == best(fine, "em")["choices"] - 1
    own = left_out.cells[left_out.cells["attack"] == "crop-pad"]
    assert set(own["left_out"]) == {"it costs 20.0 points on clean data, of at most 10"}
    assert left_out.cells[left_out.cells["attack"] != "crop-pad"]["left_out"].isna().all()
    assert "| lora | crop-pad | it costs 20.0 points on clean data, of at most 10 |" in page(left_out)
    assert "Left out of what attackers choose" not in page(fine)


def test_the_bar_itself_is_met() -> None:
    board = build(quick({**TABLE, ("none", "crop-pad"): 0.80}))
    assert board.cells["left_out"].isna().all()


def test_an_attack_that_is_left_out_may_fail_on_an_entry() -> None:
    records = [
        r for r in quick({**TABLE, ("none", "crop-pad"): 0.70}) if (r.defense.id, r.attack.id) != ("em", "crop-pad")
    ]
    records += [record(0, "em", "crop-pad", s, error="MemoryError: x") for s in range(3)]
    assert best(build(records), "em")["robust_protection_undefined"] is None


def test_an_attack_is_left_out_under_the_recipe_where_it_costs_too_much() -> None:
    under_full = {**TABLE, ("none", "crop-pad"): 0.60}
    board = build(
        quick(TABLE) + [record(p, d, a, s, recipe="full") for (d, a), p in under_full.items() for s in range(3)]
    )
    cells = board.cells[board.cells["attack"] == "crop-pad"]
    assert set(cells[cells["left_out"].notna()]["recipe"]) == {"full"}


def test_a_bar_is_of_the_settings_that_it_names() -> None:
    made = record(attack="jpeg")
    part = made.attack.parts[0]
    bar = CostBar(attack="jpeg", settings={"quality": 30}, most=0.1)
    for settings, own in (({"quality": 30}, True), ({"quality": 10}, False), ({}, False)):
        changed = part.model_copy(update={"config": settings})
        assert bar.is_of(made.model_copy(update={"attack": made.attack.model_copy(update={"parts": [changed]})})) is own
    both = made.attack.model_copy(update={"parts": [part, part]})
    assert not CostBar(attack="jpeg", most=0.1).is_of(made.model_copy(update={"attack": both}))
    assert CostBar(attack="jpeg", most=0.1).is_of(made) and bar.name == "jpeg (quality=30)"


def test_the_shipped_bars_are_read_and_wrong_ones_refused() -> None:
    own = bars()
    assert (own.accuracy.least, own.accuracy.most) == (0.85, 0.97)
    adversarial = {bar.settings["epsilon"]: bar.most for bar in own.costs if bar.attack == "adv-train"}
    assert adversarial == {4: 0.15, 8: 0.25}
    with pytest.raises(ValidationError):
        Bars.model_validate({"models": [], "accuracy": {"least": 85, "most": 97}, "costs": []})


def test_every_board_says_how_hard_its_task_is() -> None:
    board = build(quick(TABLE))
    (row,) = board.power.to_dict("records")
    assert (row["clean"], row["recipe"]) == (0.9, "lora")
    assert (row["gain"], row["headroom"]) == (pytest.approx(0.8), pytest.approx(0.1))
    assert row["noise_floor"] == pytest.approx(0, abs=1e-9) and row["minimum_detectable_difference"] > 0
    assert "| best recipe | clean | gain | drop by random noise | room above clean | smallest difference |" in page(
        board
    )
    assert "| lora | 90.0 | 80.0 | 0.0 | 10.0 |" in page(board)
    without = build([r for r in quick(TABLE) if r.defense.id != "random"])
    assert pd.isna(without.power["noise_floor"].iloc[0])


def test_the_file_of_bars_comes_with_the_package() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'leaderboards = ["bars.yaml"' in project
