"""Stages in processes of their own, behind the firewall, reach the device that their model names, several at once."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from arena.engine.execute import run
from arena.isolation.call import isolation
from arena.lvlm.checkpoints import ZOO
from arena.plugins.registry import Registry
from arena.store.local import Store
from arena.suites.schema import Suite


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_cells_at_once(device: str, precision: str, tmp_path: Path) -> None:
    """Two workers on one device: each crafts, fine-tunes and scores with it, while the other does too."""
    settings = {"checkpoint": str(ZOO / "tiny_llava"), "device": device, "dtype": "float32"}
    suite = Suite.model_validate(
        {
            "id": "two-cells",
            "models": [{"id": "llava", "config": settings}],
            "surrogates": [{"id": "llava", "config": settings}],
            "datasets": [{"id": "glyphs", "train": 10, "test": 4}],
            "defenses": ["none", {"id": "em", "config": {"rounds": 1, "theta_steps": 1, "pgd_steps": 2}}],
            "attacks": ["none"],
            "recipes": [{"id": "lora", "config": {"epochs": 1, "precision": precision}}],
            "seeds": [0],
        }
    )
    store = Store(tmp_path / "store")
    report = run(
        suite, store, Registry(), workers=2, results=tmp_path / "records.jsonl", console=Console(file=io.StringIO())
    )
    assert len(report.records) == 2 and not report.failed, [r.failure for r in report.failed]
    named = "cpu" if device == "cpu" else torch.cuda.get_device_name(0)
    computed = {(m.kind, m.environment["device"], m.environment["isolation"]) for m in store.manifests()}
    for kind in ("zero-shot", "fine-tuned", "scored"):
        assert {(where, how) for what, where, how in computed if what == kind} == {(named, isolation())}
    releases = [m.environment["device"] for m in store.manifests() if m.kind == "release"]
    assert sorted(releases) == sorted(["cpu", named]), "the defense none computes nothing"
    assert all(record.environment.device == named for record in report.records)
