"""Fine-tuning by two processes: the same weights as by one, in the store that a run reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from suites import toy_suite

from arena.launch import shared_stages
from arena.plan import plan
from arena.registry import Registry
from arena.store import Store

ROOT = Path(__file__).parents[2]
CONFIG = {"epochs": 1, "batch_size": 4, "gradient_accumulation": 2}
SUITE = toy_suite(
    models=["tiny-llava"],
    datasets=[{"id": "glyphs", "train": 18, "test": 4}],
    defenses=["none"],
    attacks=["none"],
    recipes=[{"id": "projector", "config": CONFIG}],
    seeds=[0],
)


def test_two_processes_fine_tune_like_one(tmp_path: Path) -> None:
    suite = tmp_path / "shared.yaml"
    suite.write_text(SUITE.model_dump_json(), encoding="utf-8")
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "arena.launch"]
    environment = os.environ | {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{ROOT}"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*two, str(suite), "--store", str(tmp_path / "two")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("fine-tuned: projector") == 1  # both took part in one stage
    one = [sys.executable, "-m", "arena.launch", str(suite), "--store", str(tmp_path / "one")]
    subprocess.run(one, env=environment, check=True, capture_output=True)
    weights = []
    for name in ("one", "two"):
        made = plan(SUITE, Registry(), Store(tmp_path / name))
        assert not shared_stages(made)
        assert {stage.kind for stage in made.missing()} == {"data", "zero-shot", "stealth", "scored"}
        [tuned] = [stage.key for stage in made.stages.values() if stage.kind == "fine-tuned"]
        weights.append(load_file(made.store.require(tuned) / "epoch-0.safetensors"))
    assert all(torch.allclose(v, weights[1][n], atol=1e-5) for n, v in weights[0].items())


def test_only_fine_tuning_and_what_it_reads_is_shared(tmp_path: Path) -> None:
    stages = shared_stages(plan(SUITE, Registry(), Store(tmp_path)))
    assert [stage.kind for stage in stages] == ["data", "release", "fine-tuned"]
