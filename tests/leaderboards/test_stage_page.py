"""The page of bars says of each whether it is met, from whatever records there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from synthetic import plugin, quick, record

from arena.engine.plan import planned_cells
from arena.lvlm.zoo.card import shipped_scores
from arena.plugins.registry import Registry
from arena.records.schema import Record
from arena.suites.schema import Suite
from arena.suites.shipped import find_suite
from leaderboards.pages import find_page
from leaderboards.pages.stage import StagePage, tasks
from leaderboards.tables.fitness import bars


def attacked(accuracy: float, id: str, label: str = "", **settings: int) -> list[Record]:
    attack = {"label": label or id, "parts": [plugin(id, config=settings)]}
    return [
        record(accuracy, attack=label or id, seed=s).model_copy(update={"attack": changed(attack)}) for s in range(3)
    ]


def changed(attack: object) -> object:
    return type(record().attack).model_validate(attack)


def clean(accuracy: float = 0.9) -> list[Record]:
    return [record(accuracy, seed=s) for s in range(3)]


def page(records: Iterable[Record], **more: list[Record]) -> str:
    return StagePage().make({"stage": list(records), **more}, None)


def row(text: str, what: str) -> list[str]:
    (line,) = [line for line in text.split("\n") if line.startswith(f"| {what} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_bar_has_its_number_and_verdict() -> None:
    records = [*clean(), *attacked(0.85, "crop-pad"), *attacked(0.6, "ueraser")]
    records += attacked(0.7, "adv-train", "adv-train 8/255", epsilon=8, steps=10)
    text = page(records)
    assert row(text, "no attack")[1] == "85 to 97 %" and row(text, "no attack")[2].startswith("90.0")
    assert row(text, "no attack")[-1] == "met"
    assert row(text, "crop-pad")[1] == "at most 10 points" and row(text, "crop-pad")[2].startswith("+5.0")
    assert row(text, "crop-pad")[3].startswith("85.0") and row(text, "crop-pad")[-1].startswith("met")
    assert row(text, "ueraser")[-1] == "missed by 20.0 points"
    assert row(text, "adv-train 8/255")[1] == "at most 25 points"
    assert row(text, "adv-train 8/255")[-1].startswith("met")
    assert row(text, "diffpure")[2] == row(text, "diffpure")[-1] == "not measured yet"
    assert "3 of 10 bars met, 1 missed, 6 not measured yet." in text and "Before fine-tuning: 10.0" in text


@pytest.mark.parametrize(
    ("accuracy", "verdict"), [(0.80, "missed by 5.0 points"), (0.85, "met"), (0.975, "missed by 0.5 points")]
)
def test_a_task_is_held_against_both_ends(accuracy: float, verdict: str) -> None:
    assert row(page(clean(accuracy)), "no attack")[-1].startswith(verdict)


def test_a_bar_within_the_interval_is_said() -> None:
    differing = [record(accuracy, seed=s) for s, accuracy in enumerate((0.95, 0.86, 0.83))]
    assert row(page(differing), "no attack")[-1] == "met, and the interval holds the bar"


def test_other_settings_are_measured_without_a_bar() -> None:
    text = page([*clean(), *attacked(0.6, "jpeg", "jpeg 10", quality=10), *attacked(0.85, "blur")])
    assert row(text, "jpeg 10")[1] == "none" and row(text, "jpeg 10")[2].startswith("+30.0")
    assert row(text, "jpeg 10")[-1] == row(text, "blur")[-1] == "no bar"
    assert row(text, r"jpeg (quality=30)")[-1] == "not measured yet"


def test_whatever_is_there_makes_a_page() -> None:
    failed = [record(attack="crop-pad", seed=s, error="ValueError: x") for s in range(3)]
    assert row(page([*clean(), *failed]), "crop-pad")[-1] == "failed"
    alone = page(attacked(0.8, "crop-pad"))
    assert row(alone, "no attack")[-1] == "not measured yet" and row(alone, "crop-pad")[-1] == "no clean control"
    one_seed = page([record(0.9), record(0.85, attack="crop-pad")])
    assert row(one_seed, "crop-pad")[2] == "+5.0 (1 seed, no interval)" and row(one_seed, "crop-pad")[-1] == "met"


def test_recipes_and_models_are_tasks_of_their_own() -> None:
    records = [*clean(), *(record(0.7, seed=s, recipe="full") for s in range(3))]
    records += [record(0.9, seed=s, model="a-large-one") for s in range(3)]
    found = {task.title: task for task in tasks(records)}
    assert list(found) == ["a-large-one on glyphs, lora", "tiny-llava on glyphs, full", "tiny-llava on glyphs, lora"]
    assert found["tiny-llava on glyphs, full"].held[0].verdict.startswith("missed by 15.0 points")
    assert found["a-large-one on glyphs, lora"].tally == "0 of 0 bars met, 0 missed"


def test_the_models_before_fine_tuning_have_their_bars_there(monkeypatch: pytest.MonkeyPatch) -> None:
    own = shipped_scores()
    text = page(clean())
    assert row(text, "questions: place")[1:3] == ["at least 90 %", f"{100 * own['tiny-llava'].kinds['place']:.1f}"]
    assert [cell.endswith("missed") for cell in row(text, "lost: grey")[2:]] == [True] * 4
    scores = {name: replace(one, kinds=one.kinds | {"place": 0.8995}) for name, one in own.items()}
    monkeypatch.setattr("leaderboards.pages.stage.shipped_scores", lambda: scores)
    assert row(page(clean()), "questions: place")[2:] == ["90.0, missed"] * 4


@pytest.mark.parametrize(("recipe", "said"), [("lora", ": the tower is frozen"), ("full", "")])
def test_a_reason_stands_behind_what_is_missed_with_its_recipe(
    recipe: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = bars()
    costs = [bar.model_copy(update={"why": {"lora": "the tower is frozen"}}) for bar in own.costs]
    monkeypatch.setattr("leaderboards.pages.stage.bars", lambda: own.model_copy(update={"costs": costs}))
    done = [*clean(), *attacked(0.7, "ueraser"), *attacked(0.89, "grayscale")]
    text = page([one.model_copy(update={"recipe": record(recipe=recipe).recipe}) for one in done])
    assert row(text, "ueraser")[-1] == f"missed by 10.0 points{said}"
    assert row(text, "grayscale")[-1] == "met"


def test_published_contrasts_are_shown_where_protections_met_the_attacks() -> None:
    assert "What was published" not in page(clean())
    text = page(clean(), attacks=quick())
    assert "| jpeg | em | CIFAR-10, accuracy 20.8 to 80.7 | +30.0" in text and "| agrees |" in text


def test_the_suite_measures_all_that_has_a_bar_but_what_others_add() -> None:
    """Its cells are the controls alone, under two recipes, with five seeds."""
    suite: Suite = find_suite("stage")
    assert {use.id for use in suite.defenses} == {"none", "random"} and len(suite.seeds) == 5
    assert all(data.test >= 500 for data in suite.datasets)
    cells = [cell.asked for cell in planned_cells(suite, Registry())]
    assert {cell.recipe.label for cell in cells} == {"lora", "full"}
    assert {cell.attack.id for cell in cells if cell.defense.id == "random"} == {"none"}
    installed = {entry.id for entry in Registry().entries("attack")}
    for bar in bars().costs:
        assert bar.attack not in installed or any(bar.is_of(cell) for cell in cells), bar.name
    assert find_page("stage.md").suites == ("stage",)
