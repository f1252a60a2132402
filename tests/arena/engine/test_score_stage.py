"""Scoring of every epoch that was kept: a tower that does not learn sees the test pictures once."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from torch import Tensor

from arena.engine.execute import RunReport, run
from arena.engine.job import Desk
from arena.engine.stages import Score
from arena.lvlm.shortcuts import PatchConv2d
from arena.suites.schema import Suite


@pytest.fixture
def towers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the vision tower ran in each scoring stage."""
    counts: list[int] = []
    score, forward = Score.run, PatchConv2d.forward
    counting = [False]

    def counted(self: Score, desk: Desk) -> None:
        counts.append(0)
        counting[0] = True
        score(self, desk)
        counting[0] = False

    def patches(self: PatchConv2d, input: Tensor) -> Tensor:
        if counting[0]:
            counts[-1] += 1
        return forward(self, input)

    monkeypatch.setattr(Score, "run", counted)
    monkeypatch.setattr(PatchConv2d, "forward", patches)
    return counts


def go(folder: Path, recipe: str, checkpoints: str) -> RunReport:
    suite = Suite.model_validate(
        {
            "id": "epochs",
            "models": ["tiny-llava"],
            "datasets": [{"id": "glyphs", "train": 8, "test": 12}],
            "defenses": ["none"],
            "attacks": ["none"],
            "recipes": [{"id": recipe, "config": {"epochs": 3, "checkpoints": checkpoints}}],
            "seeds": [0],
        }
    )
    console = Console(file=io.StringIO())
    return run(suite, folder / "store", results=folder / "r.jsonl", scheduler="sync", isolated=False, console=console)


@pytest.mark.parametrize(("recipe", "runs"), [("lora", 1), ("full", 3)])
def test_features_are_computed_once_for_all_epochs(recipe: str, runs: int, tmp_path: Path, towers: list[int]) -> None:
    (record,) = go(tmp_path, recipe, "all").records
    assert towers == [runs]
    (best,) = go(tmp_path / "best", recipe, "best").records
    assert record.outcome is not None and best.outcome == record.outcome
    assert [epoch.test_accuracy is None for epoch in best.epochs].count(False) == 1
