"""A sweep: the fine-tuner's choice among recipes, by what they hold out, as one more recipe of the board."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import record

from arena.plugins.identity import identity
from arena.records.schema import Record
from leaderboards.site.render import html, markdown
from leaderboards.site.views import compose
from leaderboards.tables.board import Board, build, write

SEEDS = range(3)
CLEAN = {"slow": (0.90, 0.80), "fast": (0.88, 0.78)}
PROTECTED = {"slow": (0.30, 0.70), "fast": (0.60, 0.90)}
"""Of each recipe the accuracy on test items, and on what is held out."""


def swept(accuracy: float, held_out: float, recipe: str, *where: Any, loss: float = 0.3, **fields: Any) -> Record:
    epoch = {"loss": 0.2, "held_out_accuracy": held_out, "held_out_loss": loss, "test_accuracy": None}
    return record(accuracy, *where, recipe=recipe, sweep="swept", epochs=[epoch], **fields)


def records(clean: dict[str, Any] = CLEAN, protected: dict[str, Any] = PROTECTED) -> list[Record]:
    table = {"none": clean, "random": clean, "em": protected}
    return [
        swept(accuracy, held_out, recipe, defense, attack, seed)
        for defense, recipes in table.items()
        for recipe, (accuracy, held_out) in recipes.items()
        for attack in ("none", "blur")
        for seed in SEEDS
    ]


def row(board: Board, defense: str = "em", recipe: str = "swept", attack: str = "none") -> pd.Series:
    cells = board.cells
    found = cells[(cells["defense"] == defense) & (cells["recipe"] == recipe) & (cells["attack"] == attack)]
    assert len(found) == 1
    return found.iloc[0]


def _bare(made: Record, recipe: str) -> bool:
    """Whether it is of em without an attack, by a recipe."""
    return (made.defense.id, made.attack.label, made.recipe.label) == ("em", "none", recipe)


def test_the_recipe_that_is_best_on_held_out_data_is_chosen() -> None:
    board = build(records())
    assert row(board)["accuracy"] == pytest.approx(0.60, abs=0.01) == row(board, recipe="fast")["accuracy"]
    assert row(board)["chosen_recipes"] == "fast" and pd.isna(row(board, recipe="fast")["chosen_recipes"])
    assert row(board, "none")["chosen_recipes"] == "slow"
    drop = row(board, "none")["accuracy"] - row(board)["accuracy"]
    assert row(board)["drop"] == pytest.approx(drop)  # from clean data under the recipe that is chosen there


def test_test_data_do_not_choose() -> None:
    board = build(records(protected={"slow": (0.30, 0.90), "fast": (0.60, 0.70)}))
    assert row(board)["accuracy"] == pytest.approx(0.30, abs=0.01)
    worst = board.ranking[board.ranking["defense"] == "em"].iloc[0]
    assert worst["best_recipe"] == "fast" and worst["robust_accuracy"] == pytest.approx(0.60, abs=0.01)  # the oracle


def test_each_seed_has_a_choice_of_its_own_and_the_lower_loss_decides_between_equals() -> None:
    made = records(protected={"slow": (0.30, 0.70), "fast": (0.60, 0.70)})
    made = [r for r in made if not (_bare(r, "slow") and r.seed == 2)]
    made.append(swept(0.30, 0.95, "slow", "em", "none", 2))
    made = [r for r in made if not (_bare(r, "fast") and r.seed == 1)]
    made.append(swept(0.60, 0.70, "fast", "em", "none", 1, loss=0.1))
    found = row(build(made, asked=records()))  # in the suite's order, where slow is the first
    assert found["chosen_recipes"] == "slow (2), fast (1)"
    assert found["accuracy"] == pytest.approx(0.40, abs=0.01)


def test_a_recipe_that_costs_too_much_on_held_out_clean_data_is_not_chosen() -> None:
    clean = {"slow": (0.90, 0.80), "fast": (0.88, 0.74)}  # the bound is 0.05
    board = build(records(clean=clean))
    assert row(board)["chosen_recipes"] == "slow"
    text = markdown(compose(board))
    assert "None is chosen that is more than 5 points worse" in text and "that leaves out \\`fast\\`." in text
    within = build(records(clean={"slow": (0.90, 0.80), "fast": (0.88, 0.75)}))
    assert row(within)["chosen_recipes"] == "fast" and "all are within that" in markdown(compose(within))


def test_a_choice_waits_for_all_recipes_that_may_be_chosen() -> None:
    made = [r for r in records() if not (_bare(r, "fast") and r.seed == 1)]
    assert row(build(made))["seeds"] == 2
    left = [r for r in records() if not (r.defense.id == "em" and r.recipe.label == "fast")]
    cells = build(left, asked=records()).cells
    assert cells[(cells["defense"] == "em") & (cells["recipe"] == "swept")].empty
    ranked = build(left, asked=records()).ranking
    assert "no record" in ranked[ranked["defense"] == "em"].iloc[0]["robust_protection_undefined"]


def test_a_recipe_that_fails_is_not_chosen_and_its_failure_counts_once() -> None:
    made = [r for r in records() if not (_bare(r, "fast") and r.seed == 1)]
    made.append(swept(0.6, 0.9, "fast", "em", "none", 1, error="the training diverged"))
    board = build(made)
    assert row(board)["chosen_recipes"] == "fast (2), slow (1)" and row(board)["failed"] == 0
    assert len(board.failures) == 1 and board.tally.cells == len(made)


def test_a_record_without_epochs_says_nothing_of_held_out_data_and_is_not_chosen() -> None:
    made = [r for r in records() if not (_bare(r, "fast") and r.seed == 1)]
    made.append(record(0.6, "em", "none", 1, recipe="fast", sweep="swept", epochs=[], chosen_epoch=None))
    assert row(build(made))["chosen_recipes"] == "fast (2), slow (1)"


def test_a_choice_is_no_recipe_of_its_own_where_choices_are_counted() -> None:
    ranked = build(records()).ranking
    assert set(ranked["recipes"]) == {2} and set(ranked["choices"]) == {4}  # each with and without attack


def test_an_attack_that_chooses_is_ranked_by_the_recipe_that_is_chosen() -> None:
    made = records()
    attack = {"label": "chooser", "parts": [made[0].attack.parts[0].model_dump(mode="json")], "chooses": True}
    attack["parts"][0]["id"] = "chooser"
    table = {"none": CLEAN, "em": {"slow": (0.80, 0.60), "fast": (0.55, 0.90)}}
    made += [
        _under(attack, swept(accuracy, held_out, recipe, defense, "chooser", seed))
        for defense, recipes in table.items()
        for recipe, (accuracy, held_out) in recipes.items()
        for seed in SEEDS
    ]
    ranked = build(made).ranking
    found = ranked[ranked["defense"] == "em"].iloc[0]
    assert found["chooser"] == "chooser"
    assert found["robust_accuracy"] == pytest.approx(0.55, abs=0.01)  # what was chosen, not the best on test data


def _under(attack: dict[str, Any], made: Record) -> Record:
    fields = {**made.model_dump(mode="json"), "attack": attack}
    return Record.model_validate({**fields, "cell": identity(fields)})


def test_the_board_says_what_a_choice_costs_and_what_was_chosen(tmp_path: Path) -> None:
    board = build(records())
    for text in (markdown(compose(board)), html(compose(board))):
        assert "2 fine-tunings a cell" in text and "Which recipes were chosen" in text
    written = {path.suffix: path for path in write(board, tmp_path, "made-up")}
    for table in (pd.read_csv(written[".csv"]), pd.read_parquet(written[".parquet"])):
        chosen = table[table["recipe"] == "swept"]["chosen_recipes"]
        assert set(chosen) == {"slow", "fast"}
    without = build([record(0.9, d, "none", s) for d in ("none", "em") for s in SEEDS])
    assert "Which recipes" not in markdown(compose(without))
