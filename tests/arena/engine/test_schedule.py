"""A run on many workers, simulated."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from suites import toy_suite

from arena.engine.execute import Execution
from arena.engine.graph import Plan
from arena.engine.order import place
from arena.engine.plan import plan
from arena.engine.schedule import Schedule, expected, simulate, stated
from arena.engine.stages import Stage
from arena.errors import UsageError
from arena.plugins.registry import Registry
from arena.records.schema import StageCost
from arena.store.local import Store
from arena.suites.schema import Suite


def variants(id: str, setting: str, values: list[object]) -> list[dict[str, object]]:
    return [{"id": id, "label": f"{id} {value}", "config": {setting: value}} for value in values]


def board() -> Suite:
    """30 protections, 25 attacks, 3 recipes, 3 models and 5 seeds: 33,750 cells."""
    return Suite.model_validate(
        {
            "id": "board",
            "models": ["tiny-llava", "tiny-llava-48", "tiny-qwen3-vl"],
            "datasets": [{"id": "glyphs", "train": 160, "auxiliary": 40, "test": 240}],
            "defenses": [
                *("none", "random", "mem", "mmguard-image", "mmguard-text", "mmguard-multimodal"),
                *("mmguard-bph", "mmguard-crs", "mmguard-bph-max", "mmguard-crs-max"),
                *variants("em", "rounds", [3, 6, 9, 12, 15]),
                *variants("em-class", "rounds", [3, 6, 9, 12, 15]),
                *variants("lsp", "patch", [4, 6, 8, 12, 16]),
                *(
                    {**variant, "surrogates": ["tiny-idefics3"]}
                    for variant in variants("mem", "rounds", [1, 2, 3, 4, 5])
                ),
            ],
            "attacks": [
                *("none", "grayscale", "punct", "case", "whitespace", "diffpure", "vae", "paraphrase", "ueraser"),
                *("loss-filter", "adv-train", {"id": "mix", "auxiliary": 0.2, "label": "mix"}),
                *variants("jpeg", "quality", [10, 30, 50, 70]),
                *variants("blur", "sigma", [0.5, 1.0, 2.0]),
                *variants("bit-depth", "bits", [2, 3, 4]),
                *variants("crop-pad", "side", [0.7, 0.8, 0.9]),
            ],
            "recipes": ["lora", "projector", "full"],
            "seeds": [0, 1, 2, 3, 4],
        }
    )


HOURS = """
release mmguard-multimodal: 14400
release mem: 10800
release em: 5400
release: 3600
purified diffpure: 2400
purified vae: 1800
purified: 60
fine-tuned adv-train: 7200
fine-tuned ueraser: 3600
fine-tuned full: 1800
fine-tuned: 900
scored: 120
stealth: 60
zero-shot: 120
meaning: 120
data: 30
"""
"""As on models of some billion parameters, in seconds."""


def times(folder: Path, text: str, stages: list[Stage]) -> dict[str, float]:
    (folder / "times.yaml").write_text(text, encoding="utf-8")
    return stated(folder / "times.yaml", stages)


def test_a_board_keeps_sixty_four_workers_at_work(tmp_path: Path) -> None:
    suite = board()
    whole = plan(suite, Registry(), Store(tmp_path / "store"))
    stages = list(whole.stages.values())
    assert len(whole.cells) == 33_750 and len({use.label for use in suite.defenses}) == 30
    found = simulate(whole, whole.cells, stages, times(tmp_path, HOURS, stages), 64)
    assert 0.9 < found.efficiency <= 1
    assert found.total == pytest.approx(sum(found.work.values()))
    assert max(found.work, key=found.work.__getitem__) == "fine-tuned"
    kinds = [stage.kind for stage, _ in found.chain]
    assert kinds[:2] == ["data", "release"] and kinds[-2:] == ["fine-tuned", "scored"]
    assert found.useful > 64


def toy_plan(folder: Path, **changes: Any) -> Plan:
    return plan(toy_suite(**changes), Registry(), Store(folder / "store"))


def simulated(whole: Plan, folder: Path, text: str, workers: int) -> Schedule:
    stages = whole.missing()
    return simulate(whole, whole.cells, stages, dict.fromkeys(whole.stages, 0.0) | times(folder, text, stages), workers)


def test_controls_are_released_first_and_then_what_takes_longest() -> None:
    """Else a run that is stopped has protections, and nothing to compare them with."""
    releases = [("em", 90.0, 4), ("none", 0.1, 0), ("mem", 300.0, 5), ("random", 2.0, 1), ("em, seed 1", 90.0, 9)]
    placed = sorted(releases, key=lambda one: place("release", *one[1:]))
    assert [name for name, *_ in placed] == ["none", "random", "mem", "em", "em, seed 1"]
    assert place("scored", 900.0, 2) < place("scored", 1.0, 3)


def test_no_number_of_workers_is_faster_than_the_longest_chain(toys: Path, tmp_path: Path) -> None:
    whole = toy_plan(tmp_path)
    text = "release toy-noise: 50\nfine-tuned: 10\nscored: 1\n"
    one, two, many = (simulated(whole, tmp_path, text, n) for n in (1, 2, 1000))
    # two noisy releases, one a seed; eight cells
    assert one.seconds == one.total == 2 * 50 + 8 * 10 + 8 * 1 and one.efficiency == 1
    assert one.total / 2 <= two.seconds < one.seconds
    assert many.seconds == many.chain_seconds == 61 and many.efficiency == pytest.approx(188 / 61 / 1000)
    assert [(stage.kind, seconds) for stage, seconds in many.chain if seconds] == [
        ("release", 50),
        ("fine-tuned", 10),
        ("scored", 1),
    ]
    assert many.useful == pytest.approx(188 / 61)


class Clock:
    """A pool whose tasks take what is stated, and end in that order; notes when each started."""

    def __init__(self, whole: Plan, seconds: dict[str, float], slots: int) -> None:
        self.whole, self.seconds, self.slots = whole, seconds, slots
        self.now, self.order, self.running = 0.0, list[tuple[float, str]](), list[tuple[float, int, Any]]()

    def has_room(self, stage: Stage) -> bool:
        return True

    def submit(self, task: Any) -> None:
        self.order.append((self.now, task.stage.name))
        self.running.append((self.now + self.seconds[task.stage.name], len(self.order), task))

    def finished(self) -> list[tuple[str, Any]]:
        ended = min(self.running, key=lambda one: one[:2])
        self.running.remove(ended)
        self.now = ended[0]
        from arena.engine.worker import run_task

        return [(ended[2].key, run_task(ended[2], self.whole.store.url, isolated=False))]


def test_the_simulation_takes_as_long_as_the_run(toys: Path, tmp_path: Path) -> None:
    from rich.console import Console

    whole = toy_plan(tmp_path, defenses=["none", "toy-noise", "toy-shift"], seeds=[0, 1, 2])
    stages = whole.missing()
    text = "release: 7\nrelease none: 1\npurified: 3\nfine-tuned: 11\nscored: 2\nstealth: 4\nzero-shot: 5\ndata: 1\n"
    seconds = times(tmp_path, text, stages)
    planned = simulate(whole, whole.cells, stages, seconds, 3)
    clock = Clock(whole, seconds, 3)
    with (tmp_path / "log").open("w") as file:
        run = Execution(whole, list(whole.cells), tmp_path / "r.jsonl", Console(file=file), 0)
        run.drive(clock)  # type: ignore[arg-type]
    assert len(run.records) == len(whole.cells) and len(clock.order) == len(stages)
    assert clock.now == planned.seconds


def test_the_first_line_that_fits_a_stage_counts(toys: Path, tmp_path: Path) -> None:
    stages = list(toy_plan(tmp_path).stages.values())
    found = times(tmp_path, "release toy-noise: 9\nrelease: 2\nrelease none: 5\n", stages)
    said = {stage.label: found[stage.name] for stage in stages if stage.kind == "release"}
    assert set(said.values()) == {2, 9} and all((seconds == 9) == ("noise" in label) for label, seconds in said.items())
    assert not any(stage.name in found for stage in stages if stage.kind != "release")


def test_an_empty_store_has_the_times_of_records(toys: Path, tmp_path: Path) -> None:
    from arena.engine.execute import run

    records = run(toy_suite(), tmp_path / "store", scheduler="sync", results=tmp_path / "r.jsonl").records
    slow = [r.model_copy(update={"cost": r.cost.model_copy(update={"finetune": SLOW})}) for r in records]
    here = toy_plan(tmp_path)
    there = plan(toy_suite(seeds=[2, 3]), Registry(), Store(tmp_path / "empty"))
    for whole, hours in ((here, False), (there, True)):
        stages = list(whole.stages.values())
        found = expected(whole, stages, slow, None)
        tuned = {found[stage.name] for stage in stages if stage.kind == "fine-tuned"}
        assert len(found) == len(stages) and (tuned == {7200.0}) is hours


SLOW = StageCost(seconds=7200, seconds_per_sample=900, peak_memory_mb=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- release\n", r"times.yaml: state seconds by kind of stage"),
        ("relase: 3\n", r"times.yaml, line 1, relase: no stage is of kind 'relase'; there are data, "),
        ("data: 1\nrelease em: -1\n", r"times.yaml, line 2, release em: -1 is no number of seconds"),
        ("data: soon\n", r"'soon' is no number of seconds"),
        ("data: true\n", r"True is no number of seconds"),
    ],
)
def test_times_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        times(tmp_path, text, [])


def test_plan_says_what_limits_a_run(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml
    from typer.testing import CliRunner

    from arena.cli.app import app

    monkeypatch.chdir(tmp_path)
    suite = toy_suite().model_dump(mode="json", exclude_defaults=True)
    Path("toy.yaml").write_text(yaml.safe_dump(suite), encoding="utf-8")
    Path("times.yaml").write_text("release toy-noise: 36000\nfine-tuned: 3600\n", encoding="utf-8")

    def said(*words: str) -> SimpleNamespace:
        done = CliRunner().invoke(app, ["plan", "toy.yaml", "--store", "store", *words])
        return SimpleNamespace(code=done.exit_code, text=" ".join(done.output.split()), error=done.exception)

    few, many = (said("--workers", n, "--times", "times.yaml").text for n in ("2", "64"))
    assert "2 workers, simulated: " in few and "limit: the work; beyond about 3 workers the critical path" in few
    assert "of which most is release toy-noise" in few
    assert "64 workers, simulated: 11.0 h, which is 704 worker-hours, 4% of them at work and 96% idle" in many
    assert "work: 28.0 worker-hours, 71% of them for stages of kind release" in many
    assert "limit: the critical path" in many and "more than about 3 workers hardly help" in many
    assert "simulated" not in said().text
    assert "--workers" in str(said("--times", "times.yaml").error)
