"""`arena check` finds a defense that inserts words whatever the answer is."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena.kit.check import check_plugin
from arena.kit.outcome import Outcome

SOURCE = '''
from arena.plugins.base import Defense, Draft

WORDS = ("please", "kindly", "now", "so")

class Polite(Defense):
    """A word at the end of every question."""

    def protect(self, samples, world):
        for sample in samples:
            words = WORDS[:world.budget.text]
            ALLOWED
            yield Draft(sample.image, " ".join([sample.question, *words[:1]]))

    def distinguished(self, samples, released, world):
        """Questions end politely."""
        return None
'''


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Outcome:
    module = f"polite_{request.param[0]}"
    (tmp_path / f"{module}.py").write_text(SOURCE.replace("ALLOWED", request.param[1]), encoding="utf-8")
    info = tmp_path / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[mmguard_arena.defenses]\npolite = {module}:Polite\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    (outcome,) = check_plugin("defense/polite", only=["answer-words"], folder=tmp_path / "kit").outcomes
    return outcome


@pytest.mark.parametrize("checked", [("rude", "pass")], indirect=True)
def test_a_word_that_is_the_answer_is_found(checked: Outcome) -> None:
    assert checked.status == "failed"
    assert "the word 'please' was inserted" in checked.said and "budget.forbidden(sample)" in checked.said
    assert "polite_rude.py" in checked.where


LEFT_OUT = "words = [w for w in words if w not in world.budget.forbidden(sample)]"


@pytest.mark.parametrize("checked", [("kind", LEFT_OUT)], indirect=True)
def test_a_defense_that_leaves_it_out_passes(checked: Outcome) -> None:
    assert checked.status == "passed", checked


@pytest.mark.parametrize("checked", [("mute", "words = ()")], indirect=True)
def test_a_defense_without_words_is_not_judged(checked: Outcome) -> None:
    assert checked.status == "skipped" and "no words" in checked.said


def test_the_control_that_appends_the_answer_is_exempt(tmp_path: Path) -> None:
    only = ["budget", "answer-words", "property"]
    found = check_plugin("defense/answer-word", only=only, folder=tmp_path).outcomes
    assert [(o.check, o.status) for o in found] == [
        ("budget", "passed"),
        ("answer-words", "skipped"),
        ("property", "passed"),
    ]
