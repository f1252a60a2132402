"""What boards say of inserted words and of attackers' own clean data, beside the controls of both."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import base_model, plugin, record

from arena.records.schema import Record
from leaderboards.tables.board import Board, build, write

ACCURACY = {"none": 0.9, "random": 0.9, "random-words": 0.7, "answer-word": 0.3, "mem": 0.4, "em": 0.5}
LEAKS = {"random-words": 0.0, "answer-word": 1.0, "mem": 0.25}


def stealth(defense: str, inserted: float = 5.0) -> dict[str, float]:
    """What is measured on a release; words are inserted by those that are in `LEAKS`."""
    some = inserted if defense in LEAKS else 0.0
    shown = {"psnr": 31.5, "max_delta": 8.0, "inserted_words": some, "edit_distance": 4 * some}
    return {**shown, "answer_leak": LEAKS.get(defense, 0.0)}


def cells(
    defense: str, attack: str = "none", accuracy: float | None = None, text: int = 5, rule: bool = True, **more: Any
) -> list[Record]:
    budget = {"norm": "linf", "image": 8.0, "text": text, "forbid_answer_words": rule}
    value = ACCURACY[defense] if accuracy is None else accuracy
    more = {"stealth": stealth(defense), "budget": budget, **more}
    return [record(value, defense, attack, seed, **more) for seed in range(3)]


def every(*defenses: str) -> list[Record]:
    return [r for defense in defenses or ACCURACY for r in cells(defense)]


def row(board: Board, defense: str, attack: str = "none", frame: str = "cells", **more: object) -> pd.Series:
    table = getattr(board, frame)
    wanted = {"defense": defense, **({"attack": attack} if frame == "cells" else {}), **more}
    for name, value in wanted.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def said(board: Board, folder: Path) -> dict[str, str]:
    return {p.suffix: p.read_text("utf-8") for p in write(board, folder, "b") if p.suffix in (".md", ".html")}


# Words


def test_a_protection_with_text_is_credited_against_random_words() -> None:
    board = build(every())
    mem, ranked = row(board, "mem"), row(board, "mem", frame="ranking")
    for found in (mem, ranked):
        assert found["over_random_words"] == pytest.approx(0.3)
        assert 0.1 < found["over_random_words_low"] < 0.3 < found["over_random_words_high"] < 0.5
        assert found["over_random_words_seeds"] == 3 and found["stealth_answer_leak"] == 0.25
    assert row(board, "answer-word")["over_random_words"] == pytest.approx(0.4)
    assert row(board, "random-words")["over_random_words"] == 0
    for defense in ("em", "random", "none"):
        for frame in ("cells", "ranking"):
            assert row(board, defense, frame=frame)["over_random_words_undefined"] == "changes no question"


def test_it_is_the_same_attack_that_is_compared() -> None:
    under = cells("mem", "jpeg", 0.6) + cells("none", "jpeg", 0.8)
    board = build(every() + under)
    assert row(board, "mem", "jpeg")["over_random_words_undefined"] == "no control of random words"
    assert row(board, "mem", frame="ranking")["over_random_words_undefined"].startswith(
        "withheld: "
    )  # it was not run on it
    board = build(every() + under + [r for d in ACCURACY if d not in ("mem", "none") for r in cells(d, "jpeg", 0.65)])
    assert row(board, "mem", "jpeg")["over_random_words"] == pytest.approx(0.05)
    assert row(board, "mem", frame="ranking")["over_random_words"] == pytest.approx(0.7 - 0.6)


def test_words_are_compared_under_one_text_budget() -> None:
    short = cells("random-words", accuracy=0.8, text=2) + cells("mem", accuracy=0.5, text=2)
    board = build(every() + short)
    assert row(board, "mem", text_budget=2)["over_random_words"] == pytest.approx(0.3)
    board = build(every() + cells("mem", accuracy=0.5, text=2))
    assert row(board, "mem", text_budget=2)["over_random_words_undefined"] == "no control of random words"
    assert any("`random-words` under the budget of 2 words" in note for note in board.notes)
    free = build(every() + cells("mem", accuracy=0.2, rule=False))
    assert row(free, "mem", forbid_answer_words=False)["over_random_words_undefined"] == "no control of random words"
    assert row(free, "mem", forbid_answer_words=True)["over_random_words"] == pytest.approx(0.3)
    assert any("the budget of 5 words, also of the answer" in note for note in free.notes)


def test_what_pictures_may_be_changed_by_makes_no_difference_to_words() -> None:
    fine = {"norm": "linf", "image": 2.0, "text": 5, "forbid_answer_words": True}
    board = build(every() + cells("mem", accuracy=0.6, budget=fine))
    for frame in ("cells", "ranking"):
        assert row(board, "mem", frame=frame, image_budget=2.0)["over_random_words"] == pytest.approx(0.1)


def crafted(defense: str, accuracy: float, *surrogates: str) -> list[Record]:
    label = f"{defense} ({'+'.join(surrogates)})"
    own = plugin(defense, label=label, surrogates=[base_model(name) for name in surrogates])
    return [r.model_copy(update={"defense": r.defense.model_validate(own)}) for r in cells(defense, accuracy=accuracy)]


def test_words_of_the_same_surrogate_are_taken_else_those_that_take_most() -> None:
    controls = crafted("random-words", 0.8, "a") + crafted("random-words", 0.6, "b")
    made = crafted("mem", 0.4, "a") + crafted("mem", 0.3, "b") + crafted("mem", 0.2, "c")
    board = build(every("none", "random", "answer-word") + controls + made)
    found = {name: row(board, f"mem ({name})")["over_random_words"] for name in "abc"}
    assert found == {"a": pytest.approx(0.4), "b": pytest.approx(0.3), "c": pytest.approx(0.4)}


def test_controls_are_not_ranked() -> None:
    board = build(every())
    groups = board.ranking.set_index("defense")["group"]
    controls = board.ranking.set_index("defense")["control"]
    assert groups["mem"] == 1 and groups["em"] == 2
    assert groups[["none", "random", "random-words", "answer-word"]].isna().all()
    assert set(controls[controls].index) == {"none", "random", "random-words", "answer-word"}


@pytest.mark.parametrize(
    ("left_out", "missing"),
    [
        ((), ()),
        (("random-words",), ("`random-words`",)),
        (("answer-word",), ("`answer-word`",)),
        (("random", "random-words", "answer-word"), ("`random`", "`random-words`", "`answer-word`")),
        (("random-words", "answer-word", "mem"), ()),  # of no use where no question changes
    ],
)
def test_missing_controls_of_words_are_said(left_out: Iterable[str], missing: Iterable[str]) -> None:
    notes = build([r for r in every() if r.defense.id not in left_out]).notes
    assert len(notes) == len(list(missing))
    assert all(any(f"no control defense {name}" in note for note in notes) for name in missing)


def test_the_page_has_what_words_do(tmp_path: Path) -> None:
    pages = said(build(every()), tmp_path)
    for text in pages.values():
        assert "What inserted words do" in text and "over random words" in text and "answer leak" in text
    lines = [line for line in pages[".md"].splitlines() if "L∞ 8/255, 5 words |" in line and " % |" in line]
    assert [line.split(" | ")[4] for line in lines] == ["answer-word", "random-words", "mem"]
    assert "| 25 % | +50.0 (" in lines[2] and "| +30.0 (" in lines[2]
    assert "drop by random noise" in pages[".md"]
    assert sum("protects nothing, as it should" in line for line in pages[".md"].splitlines()) == 1
    without = said(build(every("none", "random", "em")), tmp_path / "without")
    assert "What inserted words do" not in without[".md"] + without[".html"]


# Own clean data

OWN = {"auxiliary": 0.2}


def attacked(alone: float = 0.5) -> list[Record]:
    mixed = [r for d, p in (("none", 0.95), ("em", 0.8), ("mem", 0.55)) for r in cells(d, "mix", p, **OWN)]
    control = [r for d in ("none", "em", "mem") for r in cells(d, "auxiliary-alone", alone, **OWN)]
    return every("none", "em", "mem", "random-words", "answer-word", "random") + mixed + control


def test_what_the_release_adds_to_own_data() -> None:
    board = build(attacked())
    em = row(board, "em", "mix")
    assert em["release_adds"] == pytest.approx(0.3)
    assert em["release_adds_low"] < 0.3 < em["release_adds_high"]
    assert row(board, "mem", "mix")["release_adds"] == pytest.approx(0.05)
    assert row(board, "none", "mix")["release_adds"] == pytest.approx(0.45)
    assert em["retention"] == pytest.approx((0.95 - 0.8) / (0.9 - 0.5)), "stated beside it as before"
    for attack in ("none", "auxiliary-alone"):
        assert row(board, "em", attack)["release_adds_undefined"] == "no clean data of the attacker's own"
    assert not [note for note in board.notes if "auxiliary-alone" in note]


def test_the_control_on_clean_data_is_enough() -> None:
    """What is trained on is the same whatever was released."""
    records = [r for r in attacked() if r.attack.id != "auxiliary-alone" or r.defense.id == "none"]
    assert row(build(records), "em", "mix")["release_adds"] == pytest.approx(0.3)


def test_each_share_has_its_own_control() -> None:
    more = [r for d in ("none", "em") for r in cells(d, "mix", 0.85, auxiliary=1.0)]
    board = build(attacked() + more)
    assert row(board, "em", "mix", auxiliary=1.0)["release_adds_undefined"] == "no control of own data alone"
    assert row(board, "em", "mix", auxiliary=0.2)["release_adds"] == pytest.approx(0.3)
    (note,) = [note for note in board.notes if "auxiliary-alone" in note]
    assert "for 100 % of the training size" in note


def test_own_data_alone_are_no_choice_of_an_attacker() -> None:
    """Else a protection would be as strong as the attacker's own data are poor."""
    without_control = [r for r in attacked() if r.attack.id != "auxiliary-alone"]
    with_, without = build(attacked(0.99)), build(without_control)
    for defense in ("em", "mem"):
        one, other = (row(board, defense, frame="ranking", auxiliary=0.2) for board in (with_, without))
        assert one["best_attack"] == "mix" and one["choices"] == other["choices"] == 2
        assert one["robust_protection"] == other["robust_protection"]
    lacking = [r for r in attacked() if r.attack.id != "auxiliary-alone" or r.defense.id == "none"]
    assert pd.notna(row(build(lacking), "em", frame="ranking", auxiliary=0.2)["robust_protection"])


def test_a_label_of_its_own_changes_nothing() -> None:
    named = [
        r.model_copy(update={"attack": r.attack.model_copy(update={"label": "without us"})})
        if r.attack.id == "auxiliary-alone"
        else r
        for r in attacked()
    ]
    assert row(build(named), "em", "mix")["release_adds"] == pytest.approx(0.3)


def test_the_page_has_what_the_release_adds(tmp_path: Path) -> None:
    pages = said(build(attacked()), tmp_path)
    for text in pages.values():
        assert "What the release adds to clean data" in text
    (line,) = [line for line in pages[".md"].splitlines() if "| mix (+20 % clean) | em |" in line]
    values = [value.split(" (")[0].strip() for value in line.strip("| ").split(" | ")]
    assert values[6:] == ["50.0", "80.0", "+30.0", "38 %"]
    retention, accuracy = pages[".md"].split("**Retention**")[1].split("**Accuracy**")[:2]
    assert "auxiliary-alone" not in retention and "mix (+20 % clean)" in retention
    assert "auxiliary-alone (+20 % clean)" in accuracy
    costs = pages[".md"].split("## What the attacks cost on clean data")[1].split("##")[0]
    assert "auxiliary-alone" not in costs and "mix" in costs
