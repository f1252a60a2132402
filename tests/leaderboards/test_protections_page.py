"""The page of protections: what it says of records whose truth is known, and of parts of a suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from synthetic import record

from arena.controls import CONTROLS
from arena.engine.plan import planned_cells
from arena.errors import ArenaError
from arena.plugins.registry import Registry
from arena.records.schema import Record
from arena.suites.shipped import find_suite
from leaderboards.pages import find_page
from leaderboards.pages.attacks import PUBLISHED
from leaderboards.pages.protections import CIFAR, CLAIMS, Line, ProtectionsPage, Task, tasks
from leaderboards.site.numbers import DASH

ACCURACY = {
    **{"none": 0.9, "random": 0.875, "random-words": 0.8, "answer-word": 0.3},
    **{"em": 0.3, "mem": 0.4, "mmguard-bph": 0.35, "ops": 0.85, "feature-target": 0.9},
}
LEAKS = {"random-words": 0.0, "answer-word": 1.0, "mem": 0.25, "mmguard-bph": 0.0}
COLUMNS = (
    *("protection", "budget", "knowledge", "seeds", "accuracy left", "drop", "control", "the control takes"),
    *("answer spelled out", "left for the method", "PSNR, dB", "words", "answer leak", "s / sample", "published"),
)


def cells(defense: str, accuracy: float | None = None, seeds: Iterable[int] = range(3), **more: Any) -> list[Record]:
    value = ACCURACY[defense] if accuracy is None else accuracy
    words = 4.5 if defense in LEAKS else 0.0
    shown = {"inserted_words": words, "edit_distance": 4 * words, "answer_leak": LEAKS.get(defense, 0.0)}
    more = {"stealth": {"psnr": 31.52 if defense in ("em", "mem") else None, "max_delta": 8.0, **shown}, **more}
    return [record(value, defense, seed=seed, **more) for seed in seeds]


def budget(norm: str, image: float, text: int = 5) -> dict[str, object]:
    return {"norm": norm, "image": image, "text": text, "forbid_answer_words": True}


def every(*leave_out: str, **accuracy: float) -> list[Record]:
    return [r for d in ACCURACY if d not in leave_out for r in cells(d, accuracy.get(d))]


def page(records: list[Record]) -> str:
    return ProtectionsPage().make({"protections": records}, None)


def row(text: str, defense: str) -> Mapping[str, str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {defense} |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert len(cells) == len(COLUMNS)
    return dict(zip(COLUMNS, cells, strict=True))


def only(records: list[Record]) -> Task:
    (task,) = tasks(records, find_suite("protections"))
    return task


def line(task: Task, label: str) -> Line:
    (found,) = [one for one in task.lines if one.label == label]
    return found


def verdict(task: Task, label: str) -> str:
    return task.verdicts()[[one.label for one in task.lines].index(label)]


def first(cell: str) -> str:
    return cell.split(" (")[0]


def test_columns_are_those_of_the_data() -> None:
    text = page(every())
    assert "| " + " | ".join(COLUMNS) + " |" in text
    assert "## glyphs · tiny-llava, lora\n\n120 test items. Before fine-tuning 10.0" in text
    em = row(text, "em")
    assert em["budget"] == "L∞ 8/255, 5 words" and em["knowledge"] == "white-box" and em["seeds"] == "3"
    numbers = ("accuracy left", "drop", "the control takes", "left for the method")
    assert [first(em[name]) for name in numbers] == ["30.0", "60.0", "2.5", "57.5"]
    assert " to " in em["drop"] and " to " in em["left for the method"]
    assert em["control"] == "random" and em["answer spelled out"] == DASH
    assert [em[n] for n in ("PSNR, dB", "words", "answer leak", "s / sample")] == ["31.5", "0.0", "0 %", "0.050"]
    assert row(text, "ops")["PSNR, dB"] == DASH


def test_words_are_credited_to_insertion_to_the_answer_and_to_the_method() -> None:
    text = page(every())
    mem = row(text, "mem")
    assert first(mem["drop"]) == "50.0" and first(mem["the control takes"]) == "10.0"
    assert first(mem["answer spelled out"]) == "12.5"  # a quarter of what the answer takes beyond random words, 50
    assert first(mem["left for the method"]) == "27.5"
    assert mem["control"] == "random-words, answer-word for 25 %"
    assert mem["answer leak"] == "25 %" and mem["words"] == "4.5"
    none_leaks = row(text, "mmguard-bph")
    assert none_leaks["control"] == "random-words" and none_leaks["answer spelled out"] == "0.0"
    assert first(none_leaks["left for the method"]) == "45.0"


def test_the_parts_sum_up_to_the_drop() -> None:
    for one in only(every()).lines:
        if one.share is not None:
            parts = [part.value for part in (one.share.control, one.share.spelled, one.share.left)]
            assert sum(part or 0.0 for part in parts) == pytest.approx(one.drop.value), one.label


def test_parts_are_over_the_seeds_that_all_have() -> None:
    records = [*every("em", "random"), *cells("em", 0.3, [0, 1]), *cells("em", 0.6, [2])]
    records += cells("random", 0.85, [0, 1])
    em = line(only(records), "em")
    assert em.drop.value == pytest.approx(0.5) and em.drop.seeds == 3
    assert em.share is not None and em.share.left.seeds == em.share.control.seeds == 2
    assert em.share.left.value == pytest.approx(0.55) and em.share.control.value == pytest.approx(0.05)


def test_controls_are_credited_with_nothing() -> None:
    text = page(every())
    for control in CONTROLS:
        found = row(text, control)
        empty = ("control", "the control takes", "answer spelled out", "left for the method")
        assert {found[name] for name in empty} == {DASH}
    assert first(row(text, "answer-word")["drop"]) == "60.0" and row(text, "none")["budget"] == DASH
    assert row(text, "none")["published"] == DASH and row(text, "answer-word")["answer leak"] == "100 %"


def test_noise_is_held_against_noise_of_its_own_budget_where_there_is_any() -> None:
    own = [*every("ops"), *cells("ops", budget=budget("l0", 1))]
    assert row(page(own), "ops")["control"] == "random of L∞ 8/255"
    assert row(page(own), "ops")["budget"] == "1 pixel, 5 words"
    (pixel,) = [one for one in only([*own, *cells("random", 0.9, budget=budget("l0", 1))]).lines if one.label == "ops"]
    assert pixel.share is not None and pixel.share.name == "random"
    assert pixel.share.control.value == 0 and pixel.share.left.value == pytest.approx(0.05)


def test_the_control_that_takes_most_is_credited() -> None:
    more = [r for image in (2.0, 4.0) for r in cells("random-words", 0.5 + image / 20, budget=budget("linf", image))]
    mem = line(only([*every(), *more]), "mem")  # what pictures may be changed by is nothing to random words
    assert mem.share is not None and mem.share.control.value == pytest.approx(0.3)


def test_signs_meet_what_was_published() -> None:
    task = only(every())
    assert verdict(task, "em") == "agrees: takes 67 % of the accuracy, 78 % there (CIFAR-10, accuracy 94.7 to 20.8)"
    assert verdict(task, "mem") == "agrees: takes 56 % of the accuracy (Liu 2024b)"
    assert verdict(task, "random").startswith("agrees: takes 3 % of the accuracy (noise of the same size")
    assert verdict(task, "random-words").startswith("disagrees: takes 11 % of the accuracy (")
    assert verdict(task, "answer-word").startswith("agrees: takes 67 % ")
    assert verdict(task, "feature-target") == verdict(task, "none") == DASH


def test_what_the_control_takes_as_well_agrees_with_no_claim() -> None:
    task = only(every(mem=0.7, ops=0.875, em=0.95))
    assert verdict(task, "mem").startswith("cannot be told: takes 22 % of the accuracy")  # a drop of 20, all credited
    assert verdict(task, "ops").startswith("cannot be told")
    assert verdict(task, "em").startswith("disagrees: takes \N{MINUS SIGN}6 % of the accuracy")
    strong = only(every(random=0.5))
    assert verdict(strong, "random").startswith("disagrees: takes 44 %")


def test_p_values_are_corrected_for_the_task() -> None:
    em = [r for seed, accuracy in enumerate((0.75, 0.7, 0.62)) for r in cells("em", accuracy, [seed])]
    task = only([*cells("none"), *cells("random"), *em])
    p = line(task, "em").judged.p
    assert p is not None and 0.025 < p < 0.05 and verdict(task, "em").startswith("cannot be told")


def test_parts_of_the_suite_make_a_page_that_says_so() -> None:
    text = page([*every("em", "mmguard-bph"), *cells("em", seeds=[0]), *cells("rem", 0.5, error="ValueError: x")])
    asked = [use.label for use in find_suite("protections").defenses]
    (missing,) = [x for x in text.splitlines() if x.startswith("- without a result: ")]
    listed = missing.removeprefix("- without a result: ").removesuffix(".").split(", ")
    assert listed == [label for label in asked if label not in set(ACCURACY) - {"mmguard-bph"}]
    assert "- of fewer than 5 seeds: none (3), random (3), random-words (3), answer-word (3), em (1), " in text
    assert "- failed: rem (3 seeds)." in text and "| rem |" not in text
    em = row(text, "em")
    assert em["seeds"] == "1" and em["left for the method"] == "57.5 (1 seed, no interval)"
    assert em["published"].startswith("no interval: takes 67 % of the accuracy, 78 % there")


def test_a_task_with_all_results_lacks_nothing() -> None:
    suite = find_suite("protections")
    records = [r for use in suite.defenses for r in cells(use.label, 0.5, suite.seeds)]
    assert only(records).lacking == [] and "Not all of the suite" not in page(records)
    assert "Not all of the suite" in page(records[1:])


@pytest.mark.parametrize(
    ("lacks", "defense", "said"),
    [
        ("random", "em", "no control random"),
        ("random-words", "mem", "no control random-words, answer-word for 25 %"),
        ("answer-word", "mem", "no control random-words, answer-word for 25 %"),
        ("random-words", "mmguard-bph", "no control random-words"),
        ("none", "em", "no clean control"),
        ("none", "mem", "no clean control"),
    ],
)
def test_a_control_that_is_not_there_is_said(lacks: str, defense: str, said: str) -> None:
    found = row(page(every(lacks)), defense)
    assert found["left for the method"] == said and found["published"].startswith(f"{said} (")
    assert first(found["accuracy left"]) in ("30.0", "40.0", "35.0")
    assert row(page(every("answer-word")), "mmguard-bph")["left for the method"].startswith("45.0")


def test_controls_without_a_seed_in_common_are_said() -> None:
    records = [*every("em"), *cells("em", seeds=[7, 8])]
    assert row(page(records), "em")["drop"] == row(page(records), "em")["left for the method"] == "no seed in common"


def test_models_and_datasets_are_tasks_of_their_own() -> None:
    far = [r for d in ("none", "em") for r in cells(d, model="tiny-qwen3-vl", surrogates=["tiny-llava"] * (d == "em"))]
    other = [record(ACCURACY[d] - 0.1, d, seed=s, dataset="emoji") for d in ("none", "em") for s in range(3)]
    attacked = [record(0.1, "em", "jpeg", seed=s) for s in range(3)]
    found = {task.title: task for task in tasks([*every(), *far, *other, *attacked], find_suite("protections"))}
    assert list(found) == ["emoji · tiny-llava, lora", "glyphs · tiny-llava, lora", "glyphs · tiny-qwen3-vl, lora"]
    assert line(found["glyphs · tiny-qwen3-vl, lora"], "em").knowledge == "black-box"
    assert line(found["emoji · tiny-llava, lora"], "em").accuracy.value == pytest.approx(0.2)
    assert found["emoji · tiny-llava, lora"].clean.value == pytest.approx(0.8)
    assert line(found["glyphs · tiny-llava, lora"], "em").accuracy.value == pytest.approx(0.3)


def test_an_unfit_task_comes_last_and_judges_no_claim() -> None:
    emoji = [record(p, d, seed=s, dataset="emoji") for d, p in {**ACCURACY, "none": 0.8}.items() for s in range(3)]
    text = page([*every(), *emoji])
    assert text.index("## glyphs") < (at := text.index("## emoji"))
    assert "on clean data 80.0" in text[at:] and text.count("Unfit to tell protections apart") == 1
    said = "Unfit to tell protections apart: fine-tuning on clean data reaches 80.0 %, of at least 85 %,"
    assert said in text[at:].replace("\n", " ")
    unfit, fit = tasks([*every(), *emoji], find_suite("protections"))
    assert verdict(fit, "em").startswith("agrees: takes 67 %") and verdict(fit, "random").startswith("agrees")
    assert {one.split(":")[0] for one in unfit.verdicts() if one != DASH} == {"cannot be told"}


def test_tasks_without_a_result_are_said() -> None:
    some = [*cells("none"), *cells("none", model="tiny-qwen3-vl", dataset="emoji")]
    assert "Tasks without any result yet: glyphs · tiny-qwen3-vl, emoji · tiny-llava.\n" in page(some)
    rest = [*cells("none", dataset="emoji"), *cells("none", model="tiny-qwen3-vl")]
    assert "Tasks without" not in page([*some, *rest])


def digits() -> list[Record]:
    under = {("none", "jpeg"): 0.85, ("ops", "none"): 0.3, ("ops", "adv-train"): 0.3, ("tap", "none"): 0.1}
    found = {("none", "none"): 0.9, **under, ("tap", "adv-train"): 0.8, ("em", "none"): 0.9, ("em", "jpeg"): 0.9}
    return [record(p, d, a, s, dataset="digits", recipe="full") for (d, a), p in found.items() for s in range(3)]


def test_digits_add_their_tasks_and_the_contrasts_under_attacks() -> None:
    both = ProtectionsPage().make({"protections": every(), "protections-digits": digits()}, None)
    assert "records/protections.jsonl` and `records/protections-digits.jsonl" in both
    assert "## glyphs · tiny-llava, lora" in both and "## digits · tiny-llava, full" in both
    own = both[both.index("## digits") : both.index("## Under attacks")]
    assert first(row(own, "tap")["drop"]) == "80.0" and "regtext" not in own
    assert "- without a result: random, em-class, rem, hypo, lsp, ar, uc, pil, ntga." in own
    contrasts = both[both.index("## Under attacks") :]
    assert "| adv-train | ops | CIFAR-10, accuracy 14.7 to 15.0 | 0.0" in contrasts
    assert "| adv-train | tap | CIFAR-10, accuracy 6.3 to 79.9 | +70.0" in contrasts
    (jpeg,) = [line for line in contrasts.splitlines() if line.startswith("| jpeg | em |")]
    assert jpeg.endswith("| cannot be tried: it is not shown that the release protects here |")
    assert contrasts.count("| agrees |") == 2
    assert "Under attacks" not in page(every()) and "protections-digits" not in page(every())


def test_the_suite_of_digits_trains_every_tower() -> None:
    suite = find_suite("protections-digits")
    cells = [cell.asked for cell in planned_cells(suite, Registry())]
    assert {cell.recipe.id for cell in cells} == {"full"} and len(suite.seeds) == 3
    assert {cell.model.id for cell in cells} == {"tiny-llava", "tiny-llava-untrained-tower"}
    assert {cell.knowledge for cell in cells if cell.model.id.endswith("tower")} == {"none", "gray-box"}
    met = {(cell.defense.id, part.id) for cell in cells for part in cell.attack.parts}
    for defense, (_, under) in PUBLISHED.items():
        assert {(defense, attack) for attack in under.keys() & {"jpeg", "ueraser", "adv-train"}} <= met


def test_claims_are_about_the_defenses_of_the_suite() -> None:
    suite = find_suite("protections")
    ids = {use.id for use in suite.defenses}
    assert ids - CLAIMS.keys() == {"none", "feature-target", "anti-finetune", "style-eot"}
    assert CLAIMS.keys() <= {entry.id for entry in Registry().entries("defense")} and CLAIMS.keys() <= ids
    assert {id for id, claim in CLAIMS.items() if not claim.protects} == {"random", "random-words"}
    published = {"em": 20.8, "rem": 17.5, "tap": 6.3, "lsp": 13.1, "ar": 11.7, "ops": 14.7}
    assert {id: left for id, (left, _) in PUBLISHED.items()} == published
    assert {id: claim.taken for id, claim in CLAIMS.items() if claim.taken} == {
        id: pytest.approx(1 - left / CIFAR) for id, left in published.items()
    }
    assert find_page("protections.md").suites == ("protections",)


def test_findings_quote_numbers_of_the_tables(tmp_path: Path) -> None:
    prose = tmp_path / "findings.md"
    prose.write_text('em leaves {{ accuracy("em") }}, takes {{ drop("em", model="tiny-llava") }}.', encoding="utf-8")
    assert "em leaves 30, takes 60." in ProtectionsPage().make({"protections": every()}, prose)
    prose.write_text('{{ accuracy("em-clas") }}', encoding="utf-8")
    with pytest.raises(ArenaError, match="none has protection 'em-clas'"):
        ProtectionsPage().make({"protections": every()}, prose)
