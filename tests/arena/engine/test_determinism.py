"""What is not deterministic is found, and what is, is not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from suites import toy_suite
from typer.testing import CliRunner

from arena.cli.app import app
from arena.engine.determinism import Determinism, check_determinism, choose
from arena.engine.plan import plan
from arena.isolation import surroundings
from arena.plugins.registry import Registry
from arena.store.local import Store
from arena.suites.schema import Suite

QUIET = Console(file=io.StringIO())


DOUBTFUL = Path(__file__).parents[2] / "doubtful"


@pytest.fixture(autouse=True)
def doubtful(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second package of plugins is installed."""
    monkeypatch.syspath_prepend(str(DOUBTFUL))


def suite(**changes: Any) -> Suite:
    data = {"id": "shaded", "train": 12, "auxiliary": 6, "test": 4}
    return toy_suite(**{"id": "doubtful", "datasets": [data], "seeds": [0], **changes})


def checked(count: int = 5, **changes: Any) -> Determinism:
    return check_determinism(suite(**changes), Registry(), count, QUIET, workers=2)


def test_what_depends_on_more_than_its_seed_is_found_and_nothing_else(tmp_path: Path) -> None:
    before = dict(surroundings._FIXED)
    report = checked(
        defenses=["none", "toy-noise", "flatten", "unseeded", "unsorted", "clock"],
        attacks=["none", "toy-invert", "unseeded", {"id": "unseeded-fit", "auxiliary": 0.5}],
        datasets=[
            {"id": "shaded", "train": 12, "auxiliary": 6, "test": 4},
            {"id": "stubborn", "train": 12, "auxiliary": 6, "test": 4},
        ],
    )
    found = {(finding.plugin, finding.stage.partition(" ")[0]): finding for finding in report.findings}
    wrong = {
        ("defense 'unseeded'", "release"),
        ("defense 'unsorted'", "release"),
        ("defense 'clock'", "release"),
        ("attack 'unseeded'", "purified"),
        ("attack 'unseeded-fit'", "fit"),
        ("dataset 'stubborn'", "data"),
    }
    assert found.keys() == wrong, report.findings
    unseeded = found["defense 'unseeded'", "release"].problem
    assert "of 12 pictures (" in unseeded and "of 768 values, by up to" in unseeded and "world.rng()" in unseeded
    assert "PYTHONHASHSEED" in found["defense 'unsorted'", "release"].problem
    assert "the file diagnostics.json differs" in found["defense 'clock'", "release"].problem
    assert "1 of 12 pictures (" in found["attack 'unseeded'", "purified"].problem
    assert "found.bin" in found["attack 'unseeded-fit'", "fit"].problem
    assert "seeds 0 and 1 give the same training samples" in found["dataset 'stubborn'", "data"].problem
    assert any("toy-noise" in stage for stage in report.stages) and not report.deterministic
    assert before == surroundings._FIXED and not list(tmp_path.glob("**/*.jsonl"))


@pytest.mark.parametrize(
    ("dataset", "problem"),
    [("overlapping", "its train and test samples share one"), ("twofold", "1 ids stand more than once in its splits")],
)
def test_splits_that_cannot_be_used_are_named_with_their_dataset(dataset: str, problem: str) -> None:
    report = checked(datasets=[{"id": dataset, "train": 6, "test": 4}], defenses=["none", "flatten"])
    (finding,) = report.findings
    assert (finding.kind, finding.plugin) == ("failed", f"dataset {dataset!r}") and problem in finding.problem
    assert report.stages == []


def test_splits_that_were_drawn_apart_are_held_against_each_other() -> None:
    report = checked(datasets=[{"id": "two-faced", "train": 6, "test": 4}], defenses=["none"], attacks=["none"])
    (finding,) = report.findings
    assert finding.plugin == "dataset 'two-faced'" and "4 of its 4 test samples are training samples" in finding.problem


def test_a_plugin_that_fails_is_a_finding() -> None:
    report = checked(defenses=["none", "toy-raising"], attacks=["none"])
    (finding,) = report.findings
    assert finding.plugin == "defense 'toy-raising'" and "the toy is broken" in finding.problem


def test_stages_are_few_and_of_every_plugin_first(tmp_path: Path) -> None:
    asked = suite(defenses=["none", "toy-noise", "flatten"], attacks=["none", "toy-invert", "crispen"], seeds=[0, 1, 2])
    whole = plan(asked, Registry(), Store(tmp_path / "store"))
    for seed in range(4):
        chosen = choose(whole, 2, seed)
        assert [stage.kind for stage in chosen] == ["release"] * 2 + ["purified"] * 2
        assert len({stage.plugin for stage in chosen}) == 4
    assert len({tuple(stage.name for stage in choose(whole, 2, seed)) for seed in range(8)}) > 1
    assert choose(whole, 2, 3) == choose(whole, 2, 3)
    (release,) = {s.name for s in choose(whole, 1, 0) if s.kind == "release"}
    purified = next(s for s in choose(whole, 1, 0) if s.kind == "purified")
    other = {n for n in whole.closure([purified.name]) if whole.stages[n].kind == "release"} - {release}
    assert not any("none" not in whole.stages[n].label for n in other), "no further release is crafted for it"


def test_the_command_says_what_it_found_and_exits_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, defense in (("good", "toy-noise"), ("bad", "unseeded")):
        asked = suite(id=name, defenses=["none", defense], attacks=["none"])
        Path(f"{name}.yaml").write_text(asked.model_dump_json(), encoding="utf-8")

    def run(name: str) -> Any:
        words = ["run", f"{name}.yaml", "--store", "store", "--check-determinism", "1", "--workers", "2"]
        return CliRunner().invoke(app, words, env={"COLUMNS": "300"})

    good, bad = run("good"), run("bad")
    assert good.exit_code == 0, good.output
    assert "0 findings; nothing is recorded" in good.stdout and "computed twice: release toy-noise" in good.stdout
    assert bad.exit_code == 1 and "differs: defense 'unseeded', release unseeded" in bad.stdout
    assert not Path("results").exists()
