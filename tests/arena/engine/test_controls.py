"""Answer words in a run: refused, measured, allowed to the control that is about them; and own clean data alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from suites import toy_suite

from arena.budget import Budget
from arena.controls import ANSWER_WORD, CONTROLS, bounds
from arena.engine.execute import run
from arena.engine.plan import plan
from arena.engine.stages import Release
from arena.plugins.registry import Registry
from arena.records.schema import Record
from arena.store.local import Store

pytestmark = pytest.mark.usefixtures("toys")


def records(folder: Path, **changes: Any) -> dict[tuple[str, str], Record]:
    """The records of a suite of toys with one seed, by defense and attack."""
    report = run(
        toy_suite(**{"seeds": [0], "attacks": ["none"], **changes}),
        store=folder / "store",
        results=folder / "r.jsonl",
        scheduler="sync",
        isolated=False,
        console=Console(file=io.StringIO()),
    )
    return {(r.defense.label, r.attack.id): r for r in report.records}


WORDS = ["none", "answer-word", "toy-fixed", {"id": "toy-fixed", "label": "one", "config": {"word": "one"}}]


def test_a_release_with_an_answer_word_is_out_of_budget(tmp_path: Path) -> None:
    found = records(tmp_path, defenses=WORDS)
    failure = found["one", "none"].failure
    assert failure is not None and failure.stage.startswith("release")
    assert "budget: sample 1 ('toy-00001'): the word 'one' was inserted" in failure.error
    leaks = {label: r.stealth["answer_leak"] for (label, _), r in found.items() if r.stealth is not None}
    assert leaks == {"none": 0.0, "answer-word": 1.0, "toy-fixed": 0.0}
    assert all(r.budget.forbid_answer_words for r in found.values()), "a control stands under its suite's budget"


def test_answer_words_may_be_allowed_and_are_measured(tmp_path: Path) -> None:
    found = records(tmp_path, defenses=WORDS, budgets=[{"forbid_answer_words": False}])
    assert found["one", "none"].failure is None
    stealth = found["one", "none"].stealth
    assert stealth is not None and stealth["answer_leak"] == 0.5
    assert not found["one", "none"].budget.forbid_answer_words


def test_one_control_alone_is_exempt(tmp_path: Path) -> None:
    defenses = ["none", "random", "random-words", "answer-word", "toy-fixed"]
    found = plan(toy_suite(defenses=defenses), Registry(), Store(tmp_path))
    releases = [stage for stage in found.stages.values() if isinstance(stage, Release)]
    rules = {one.defense.id: one.budget and one.budget.forbid_answer_words for one in releases}
    assert rules == {"none": None, "random": True, "random-words": True, "answer-word": False, "toy-fixed": True}
    assert [id for id in CONTROLS if bounds(id, Budget()) != Budget()] == [ANSWER_WORD]


def test_own_data_alone_are_the_same_whatever_is_released(tmp_path: Path) -> None:
    attacks = ["none", {"id": "mix", "auxiliary": 0.5}, {"id": "auxiliary-alone", "auxiliary": 0.5}]
    found = records(tmp_path, defenses=["none", "toy-noise"], attacks=attacks)
    alone = [found[defense, "auxiliary-alone"] for defense in ("none", "toy-noise")]
    assert alone[0].lineage.purified == alone[1].lineage.purified
    assert alone[0].lineage.checkpoint == alone[1].lineage.checkpoint
    assert found["none", "mix"].lineage.purified != found["toy-noise", "mix"].lineage.purified
    assert alone[0].cell != alone[1].cell
