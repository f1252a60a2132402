"""Cells that are trained in one process: the same records in any company, and failures that stay alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from arena.engine import worker
from arena.engine.apart import StageFailed
from arena.engine.execute import Execution, RunReport, run
from arena.engine.stages import FineTune, Input, Stage
from arena.engine.worker import Result, Task
from arena.plugins.spec import PluginSpec
from arena.suites.schema import Suite


def go(folder: Path, pack: int, **changes: Any) -> RunReport:
    fields: dict[str, Any] = {
        "id": "packs",
        "models": ["tiny-llava-48"],
        "datasets": [{"id": "glyphs", "train": 10, "auxiliary": 0, "test": 4}],
        "defenses": ["none", "random", "lsp"],
        "attacks": ["none"],
        "recipes": [{"id": "lora", "config": {"epochs": 1, "pack": pack}}],
        "seeds": [0],
    }
    return run(
        Suite.model_validate(fields | changes),
        store=folder / "store",
        results=folder / "records.jsonl",
        console=Console(file=io.StringIO()),
        workers=1,
    )


def outcomes(report: RunReport) -> list[Any]:
    return [(r.cell, r.status, r.outcome, r.lineage) for r in report.records]


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many stages were computed in one process, each time."""
    seen: list[int] = []
    compute = worker._together

    def counted(computations: list[Any], apart: Any) -> dict[str, Result]:
        seen.append(len(computations))
        return compute(computations, apart)

    monkeypatch.setattr(worker, "_together", counted)
    return seen


def test_records_are_the_same_alone_and_together(tmp_path: Path, packs: list[int]) -> None:
    alone = go(tmp_path / "alone", 1)
    assert packs == []
    together = go(tmp_path / "together", 8)
    assert packs == [3]
    assert [r.status for r in together.records] == ["done"] * 3
    assert outcomes(alone) == outcomes(together)


def test_what_fails_together_is_computed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(computations: list[Any], apart: Any) -> dict[str, Result]:
        raise StageFailed("its process was ended by signal SIGKILL")

    monkeypatch.setattr(worker, "_together", broken)
    report = go(tmp_path, 8)
    assert [r.status for r in report.records] == ["done"] * 3


def test_a_training_that_diverges_fails_by_itself(tmp_path: Path, packs: list[int]) -> None:
    recipes = [{"id": "lora", "config": {"epochs": 2, "learning_rate": 1e30}}]
    report = go(tmp_path, 8, recipes=recipes, defenses=["none", "random"])
    assert packs == [2]  # and none was computed twice
    assert [r.status for r in report.records] == ["failed"] * 2
    assert all("diverged" in r.failure.error for r in report.records if r.failure)


def test_an_attack_in_training_is_not_packed(tmp_path: Path, packs: list[int]) -> None:
    report = go(tmp_path, 8, attacks=["none", "loss-filter"], defenses=["none", "random"])
    assert packs == [2] and [r.status for r in report.records] == ["done"] * 4


class _Room:
    """A pool that has room for everything."""

    def has_room(self, stage: Stage) -> bool:
        return True


def _task(key: str, pack: tuple[str, int] | None, seed: int = 0) -> Task:
    class Toy:
        kind = "fine-tuned"

        def global_seed(self) -> int:
            return seed

    Toy.pack = pack  # type: ignore[attr-defined]
    return Task(Toy(), key, {})  # type: ignore[arg-type]


def _chosen(waiting: Sequence[Task], free: int, lost: Sequence[str] = (), full: bool = False) -> list[str]:
    execution = Execution.__new__(Execution)
    execution.lost = dict.fromkeys(lost, 1) | {t.key: 0 for t in waiting if t.key not in lost}  # type: ignore[assignment]
    chosen = execution._chosen(list(waiting), _Room(), free, full)  # type: ignore[arg-type]
    return [] if chosen is None else [task.key for task in chosen.all]


def test_which_stages_are_packed() -> None:
    alike = [_task(f"a{i}", ("a", 4), seed=i % 2) for i in range(6)]
    other = _task("x", None)
    assert _chosen([], 2) == []
    assert _chosen([*alike[:3], other], 2, full=True) == ["x"]  # a pack that is not full waits for what could fill it
    assert _chosen(alike[:3], 2, full=True) == []
    assert _chosen([*alike[:4], other], 1, full=True) == ["a0", "a2", "a1", "a3"]  # of one seed first
    assert _chosen(alike, 1) == ["a0", "a2", "a4", "a1"]
    assert _chosen(alike, 2) == ["a0", "a2", "a4"]  # shared out
    assert _chosen(alike[:2], 2) == ["a0"]
    assert _chosen(alike[:3], 1, lost=["a0"]) == ["a0"]  # alone, since nobody knows whose fault it was
    assert _chosen([_task("b", ("b", 4)), *alike[:4]], 1, full=True) == ["a0", "a2", "a1", "a3"]


def test_only_plain_trainings_are_packed() -> None:
    config = {"precision": "float32", "gradient_accumulation": 1, "gradient_checkpointing": False}
    recipe = PluginSpec("recipe", "lora", "1", config, {"pack": 8}, None, "", {}, packs=True)
    model = PluginSpec("model", "tiny-llava", "1", {}, {}, None, "", {})
    stage = FineTune(label="", size=1, model=model, recipe=recipe, training=(), seed=0, samples=Input("s", "samples"))
    assert stage.pack is not None and stage.pack[1] == 8
    for changed in (
        replace(recipe, packs=False),
        replace(recipe, runtime={"pack": 1}),
        replace(recipe, config={**config, "precision": "bfloat16"}),
        replace(recipe, config={**config, "gradient_accumulation": 2}),
        replace(recipe, config={**config, "gradient_checkpointing": True}),
    ):
        assert replace(stage, recipe=changed).pack is None
    other = replace(stage, model=replace(model, runtime={"device": "cuda"}))
    assert other.pack is not None and other.pack[0] != stage.pack[0]
