"""What several processes compute together of a suite."""

from __future__ import annotations

from pathlib import Path

from suites import toy_suite

from arena.launch import shared_stages
from arena.plan import plan
from arena.registry import Registry
from arena.store import Store

SUITE = toy_suite(
    models=["tiny-llava"],
    datasets=[{"id": "glyphs", "train": 18, "test": 4}],
    defenses=["none"],
    attacks=["none"],
    recipes=["projector"],
    seeds=[0],
)


def test_only_fine_tuning_and_what_it_reads_is_shared(tmp_path: Path) -> None:
    stages = shared_stages(plan(SUITE, Registry(), Store(tmp_path)))
    assert [stage.kind for stage in stages] == ["data", "release", "fine-tuned"]
