"""The arena on its real tiny model: the contrasts that it exists to show, and the guide's plugin, installed by pip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import arena
from arena.engine.execute import RunReport
from arena.suites.schema import Suite
from leaderboards.tables.board import build

GUIDE = Path(__file__).parents[3] / "arena" / "PLUGINS.md"
CONTRASTS = {
    "id": "contrasts",
    "models": ["tiny-llava"],
    "datasets": [{"id": "glyphs", "train": 192, "test": 150, "seed": 11}],
    "defenses": ["none", "random", "em"],
    "attacks": ["none", {"id": "jpeg", "config": {"quality": 30}}],
    "recipes": [{"id": "lora", "config": {"epochs": 5}}],
    "seeds": [0],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contrasts")


def go(folder: Path) -> RunReport:
    return arena.run(Suite.model_validate(CONTRASTS), store=folder / "store", results=folder / "records.jsonl")


@pytest.fixture(scope="module")
def report(folder: Path) -> RunReport:
    return go(folder)


def accuracy(report: RunReport, defense: str, attack: str) -> float:
    (outcome,) = [r.outcome for r in report.records if (r.defense.id, r.attack.id) == (defense, attack)]
    assert outcome is not None
    return outcome.accuracy


def test_fine_tuning_gains_random_noise_protects_nothing_and_em_does(report: RunReport) -> None:
    assert not report.failed
    (zero_shot,) = {r.zero_shot.accuracy for r in report.records if r.zero_shot is not None}
    clean = accuracy(report, "none", "none")
    assert clean - zero_shot > 0.5
    assert abs(clean - accuracy(report, "random", "none")) < 0.15
    assert clean - accuracy(report, "em", "none") > 0.3


def test_jpeg_gives_part_of_it_back(report: RunReport) -> None:
    drop = accuracy(report, "none", "none") - accuracy(report, "em", "none")
    paired = accuracy(report, "none", "jpeg") - accuracy(report, "em", "jpeg")
    assert paired < drop - 0.1


def test_a_record_says_where_it_comes_from(report: RunReport) -> None:
    record = next(r for r in report.records if (r.defense.id, r.attack.id) == ("em", "jpeg"))
    assert record.knowledge == "white-box"
    assert record.stealth is not None and 0 < (record.stealth["max_delta"] or 0) <= 8
    assert record.diagnostics["surrogate_error"] is not None
    assert all(record.lineage.model_dump().values())
    assert record.peak_accuracy is not None and record.outcome is not None
    assert record.peak_accuracy >= record.outcome.accuracy
    assert len(record.epochs) == 5


def test_a_second_run_computes_nothing_and_the_board_needs_records_alone(report: RunReport, folder: Path) -> None:
    again = go(folder)
    assert again.computed == ()
    assert [r.model_dump() for r in again.records] == [r.model_dump() for r in report.records]
    board = build(list(again.records))
    assert set(board.cells["defense"]) >= {"none", "random", "em"}


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_plugin_of_the_guide_installs_and_enters_a_suite(tmp_path: Path) -> None:
    project, target = tmp_path / "my-defense", tmp_path / "site"
    project.mkdir()
    (project / "pyproject.toml").write_text(code_blocks("toml")[0], encoding="utf-8")
    (project / "my_defense.py").write_text(code_blocks("python")[0], encoding="utf-8")
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(target), str(project)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "id: mine\nmodels: [tiny-llava]\ndatasets: [{id: glyphs, train: 8, test: 4}]\n"
        f"{code_blocks('yaml')[0]}attacks: [none]\nrecipes: [{{id: projector, config: {{epochs: 1}}}}]\nseeds: [0]\n",
        encoding="utf-8",
    )
    environment = os.environ | {"PYTHONPATH": str(target), "COLUMNS": "200"}

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        code = "from arena.cli.app import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, encoding="utf-8"
        )

    listed = command("list", "defenses")
    assert "checkerboard" in listed.stdout and "my-defense 0.1" in listed.stdout
    assert "side of a tile in pixels" in command("show", "checkerboard").stdout
    results = tmp_path / "mine.jsonl"
    ran = command(
        "run", str(suite), "--store", str(tmp_path / "store"), "--results", str(results), "--scheduler", "sync"
    )
    assert ran.returncode == 0, ran.stderr
    (record,) = [r for r in arena.board(results).cells.to_dict("records") if "checkerboard" in r["defense"]]
    assert record["defense"] == "checkerboard(period=4)"
