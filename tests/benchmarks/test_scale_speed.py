"""What commands take on very large suites, each in a process of its own, as on the command line: seconds of the clock
on an idle machine with two cores, and of processor time, which other work on the machine changes less."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from arena.engine.plan import planned_cells
from arena.plugins.registry import BASES, Registry
from arena.plugins.source import engine_digest
from arena.records.schema import Outcome, Record, SuiteRef
from arena.suites.schema import Suite, digest

TEMPLATE = Path(__file__).parents[2] / "leaderboards/records/v1/quick.jsonl"

PROGRAM = "from arena.cli.app import main; main()"


def suite(models: list[str]) -> Suite:
    """5,000 cells a model."""
    qualities = [{"id": "jpeg", "label": f"jpeg {n}", "config": {"quality": n}} for n in range(20, 44)]
    settings = [{"id": "lsp", "label": f"lsp {n}", "config": {"radius": n + 1}} for n in range(18)]
    return Suite.model_validate(
        {
            "id": "large",
            "models": models,
            "datasets": [{"id": "glyphs", "train": 128, "test": 160}],
            "defenses": ["none", "random", *settings],
            "attacks": ["none", *qualities],
            "recipes": ["lora", "projector"],
            "seeds": [0, 1, 2, 3, 4],
        }
    )


def written(made: Suite, folder: Path) -> Path:
    path = folder / "large.yaml"
    path.write_text(made.model_dump_json(exclude_unset=True), encoding="utf-8")  # JSON is YAML
    return path


def arena(benchmark: BenchmarkFixture, folder: Path, *words: str, rounds: int = 1) -> str:
    """Run a command some times; what it prints."""

    def command() -> str:
        program = [sys.executable, "-c", PROGRAM, *words]
        return subprocess.run(program, cwd=folder, check=True, capture_output=True, text=True).stdout

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = benchmark.pedantic(command, rounds=rounds, iterations=1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    benchmark.extra_info["processor seconds"] = round(used / rounds, 2)
    return str(said)


def test_plan_of_twenty_thousand_cells(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    path = written(suite(["tiny-llava", "tiny-qwen3-vl", "tiny-idefics3", "tiny-llava-48"]), tmp_path)
    said = arena(benchmark, tmp_path, "plan", str(path), "--store", str(tmp_path / "store"))
    assert "20000 cells" in said
    benchmark.extra_info["seconds below"] = 10


def test_run_of_ten_thousand_cells_that_are_all_recorded(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    made = suite(["tiny-llava", "tiny-qwen3-vl"])
    path, results = written(made, tmp_path), tmp_path / "large.jsonl"
    kept = [json.loads(line) for line in TEMPLATE.read_text(encoding="utf-8").splitlines()]
    template = next(record for record in kept if record["status"] == "done" and record["cost"]["protect"])
    rng = np.random.default_rng(0)
    own = {"suite": SuiteRef(id=made.id, digest=digest(made)).model_dump(), "engine_digest": engine_digest()}
    with results.open("w", encoding="utf-8") as file:
        for cell in planned_cells(made, Registry()):
            asked = cell.asked.model_dump(mode="json")
            scored = {
                "zero_shot": Outcome.pack(np.arange(160) < 16).model_dump(),
                "outcome": Outcome.pack(rng.random(160) < 0.8).model_dump(),
            }
            record = Record.model_validate({**template, **asked, **own, **scored, "cell": cell.key})
            file.write(record.model_dump_json() + "\n")
    size = results.stat().st_size
    arena(benchmark, tmp_path, "run", str(path), "--store", str(tmp_path / "store"), "--results", str(results))
    assert results.stat().st_size == size  # nothing was computed
    benchmark.extra_info["seconds below"] = 5


@pytest.mark.parametrize("kind", BASES)
def test_showing_a_plugin(kind: Any, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    id = next(entry.id for entry in reversed(Registry().entries(kind)))
    subprocess.run([sys.executable, "-c", PROGRAM, "show", id], check=True, capture_output=True)
    arena(benchmark, tmp_path, "show", id, rounds=2)
    benchmark.extra_info["seconds below, once it was shown before"] = 1


def test_listing_plugins(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    arena(benchmark, tmp_path, "list", rounds=3)
    benchmark.extra_info["seconds below"] = 1
