"""A sweep in a suite: one recipe for each combination of a grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from suites import toy_suite

from arena.engine.plan import planned_cells
from arena.errors import UsageError
from arena.plugins.registry import Registry
from arena.suites.dry_run import tiny
from arena.suites.schema import Suite, digest, load_suite
from arena.suites.validation import validate

GRID = {"learning_rate": [0.001, 0.004], "rank": [4, 16]}


def suite(*recipes: dict[str, Any] | str, **changes: Any) -> Suite:
    return toy_suite(models=["tiny-llava"], recipes=list(recipes), **changes)


def lora(**changes: Any) -> dict[str, Any]:
    return {"id": "lora", "sweep": "swept", "config": {"epochs": 2}, "grid": GRID, **changes}


def file(folder: Path, recipes: str) -> Path:
    path = folder / "grid.yaml"
    lines = ["id: grid", "models: [tiny-llava]", "datasets: [{id: glyphs, train: 16, test: 8}]", "defenses: [none]"]
    path.write_text("\n".join([*lines, "attacks: [none]", "recipes:", recipes]) + "\n", encoding="utf-8")
    return path


def test_every_combination_is_a_recipe_with_its_settings_and_a_label() -> None:
    found = suite(lora(), {"id": "full", "sweep": "swept"}).recipes
    assert [use.config for use in found] == [
        {"epochs": 2, "learning_rate": 0.001, "rank": 4},
        {"epochs": 2, "learning_rate": 0.001, "rank": 16},
        {"epochs": 2, "learning_rate": 0.004, "rank": 4},
        {"epochs": 2, "learning_rate": 0.004, "rank": 16},
        {},
    ]
    assert found[0].label == "lora(epochs=2, learning_rate=0.001, rank=4)" and found[-1].label == "full"
    assert {use.sweep for use in found} == {"swept"}
    assert suite(lora(label="mine")).recipes[3].label == "mine(learning_rate=0.004, rank=16)"


def test_trials_are_drawn_from_the_grid_and_always_the_same() -> None:
    wide = {"learning_rate": [0.001, 0.002, 0.004, 0.008], "rank": [1, 2, 4, 8]}
    drawn = [use.config for use in suite(lora(grid=wide, trials=5)).recipes]
    assert drawn == [use.config for use in suite(lora(grid=wide, trials=5)).recipes]
    every = [use.config for use in suite(lora(grid=wide)).recipes]
    assert len({json.dumps(config) for config in drawn}) == 5 and drawn == [c for c in every if c in drawn]
    assert drawn != every[:5]


def test_cells_and_records_know_of_the_sweep_and_are_those_of_the_plain_recipe() -> None:
    registry = Registry()
    real = {"datasets": [{"id": "glyphs", "train": 16, "test": 8}], "defenses": ["none"], "attacks": ["none"]}
    one = {"id": "lora", "config": {"epochs": 2, "learning_rate": 0.001, "rank": 4}}
    own, plain = (planned_cells(suite(recipe, **real), registry) for recipe in (lora(clean_cost=0.02), one))
    assert {cell.key for cell in plain} < {cell.key for cell in own}
    assert all((c.asked.recipe.sweep, c.asked.recipe.clean_cost) == ("swept", 0.02) for c in own)
    assert all((c.asked.recipe.sweep, c.asked.recipe.clean_cost) == (None, None) for c in plain)


def test_the_sweep_is_part_of_what_a_suite_is_and_only_where_there_is_one() -> None:
    config = {"epochs": 2, "learning_rate": 0.001, "rank": 4}
    plain, swept = (suite({"id": "lora", "config": config, **own}) for own in ({}, {"sweep": "swept"}))
    assert digest(plain) != digest(swept)
    assert digest(swept) != digest(suite({"id": "lora", "config": config, "sweep": "swept", "clean_cost": 0.1}))
    assert digest(plain) == digest(suite({"id": "lora", "config": config, "clean_cost": 0.1}))
    again = Suite.model_validate(suite(lora()).model_dump(mode="json"))
    assert digest(again) == digest(suite(lora())) and again.recipes == suite(lora()).recipes


def test_a_sweep_is_left_out_by_its_name() -> None:
    whole = suite(lora(), "full")
    left = suite(lora(), "full", skip=[{"recipes": ["swept"], "attacks": ["toy-invert"]}])
    lost = [c for c in whole.combinations() if c not in list(left.combinations())]
    assert {c.recipe.sweep for c in lost} == {"swept"} and {c.attack.id for c in lost} == {"toy-invert"}
    assert len(lost) == 4 * 2


@pytest.mark.parametrize(
    ("recipes", "problem"),
    [
        ("- {id: lora, grid: {rank: [2, 4]}}", "needs a `sweep`"),
        ("- {id: lora, sweep: s, trials: 2}", "add the grid"),
        ("- {id: lora, sweep: s, grid: {rank: [2, 4]}, trials: 3}", "has 2 combinations, not 3"),
        ("- {id: lora, sweep: s, grid: {rank: []}}", "at least 1"),
        ("- {id: lora, sweep: s, grid: {}}", "at least 1"),
        ("- {id: lora, sweep: s, grid: {rank: [2, 2]}}", "'rank' is in the grid twice"),
        ("- {id: lora, sweep: s, grid: {rank: [.nan]}}", "not JSON compliant"),
        ("- {id: lora, sweep: s, config: {rank: 2}, grid: {rank: [2, 4]}}", "in `config` and in `grid`"),
        ("- {id: lora, sweep: s, grid: {rank: [2, -4]}}", "rank"),
        ("- {id: lora, sweep: s, grid: {ranks: [2, 4]}}", "ranks"),
        ("- {id: lora, sweep: '', grid: {rank: [2, 4]}}", "at least 1 character"),
        ("- {id: lora, sweep: s, clean_cost: 2, grid: {rank: [2, 4]}}", "less than or equal to 1"),
        ("- full\n- {id: lora, sweep: full, grid: {rank: [2, 4]}}", "has a recipe's label"),
        ("- {id: lora, sweep: s, clean_cost: 0.1}\n- {id: full, sweep: s}", "give all the same"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(tmp_path: Path, recipes: str, problem: str) -> None:
    with pytest.raises(UsageError, match=r"line \d+, recipes") as caught:
        validate(load_suite(file(tmp_path, recipes)), Registry())
    assert problem in str(caught.value)


def test_an_error_of_a_later_recipe_names_its_own_line(tmp_path: Path) -> None:
    recipes = "- {id: lora, sweep: s, grid: {rank: [2, 4, 8]}}\n- full\n- {id: lora, label: bad, config: {rank: -1}}"
    with pytest.raises(UsageError, match=r"line 9, recipes\[2\]"):
        validate(load_suite(file(tmp_path, recipes)), Registry())


def test_a_grid_is_bounded(tmp_path: Path) -> None:
    values = ", ".join(map(str, range(1, 41)))
    with pytest.raises(UsageError, match="at most 1000 recipes, not 1600"):
        load_suite(file(tmp_path, f"- {{id: lora, sweep: s, grid: {{rank: [{values}], alpha: [{values}]}}}}"))
    recipes = f"- {{id: lora, sweep: s, trials: 7, grid: {{rank: [{values}], alpha: [{values}]}}}}"
    assert len(load_suite(file(tmp_path, recipes)).recipes) == 7


def test_a_dry_run_makes_every_recipe_of_a_sweep_small(tmp_path: Path) -> None:
    path = file(tmp_path, "- {id: lora, sweep: s, grid: {rank: [4, 8], alpha: [8, 16]}}")
    small = tiny(load_suite(path), Registry(), tmp_path).suite
    assert {(use.sweep, use.config["rank"], use.config["epochs"]) for use in small.recipes} == {("s", 2, 1)}
    assert len(small.recipes) == 4
    validate(small, Registry())
