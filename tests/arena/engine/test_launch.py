"""What several processes compute together of a suite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from suites import toy_suite

import arena.recipes
from arena.engine.launch import keep_apart, shared_stages
from arena.engine.plan import plan
from arena.errors import UsageError
from arena.plugins.registry import Registry
from arena.store.local import Store

ROOT = Path(__file__).parents[3]
SUITE = {
    "id": "shared",
    "models": ["tiny-llava"],
    "datasets": [{"id": "glyphs", "train": 18, "test": 4}],
    "defenses": ["none"],
    "attacks": ["none"],
    "recipes": [
        {"id": "full", "config": {"epochs": 1, "batch_size": 4, "gradient_accumulation": 2, "learning_rate": 5e-4}}
    ],
    "seeds": [0],
}
SHARDS = (
    f"--config_file={Path(arena.recipes.__path__[0]) / 'fsdp.yaml'}",
    str(Path(__file__).parents[2] / "sharded_launch.py"),
)


def test_only_fine_tuning_and_what_it_reads_is_shared(tmp_path: Path) -> None:
    stages = shared_stages(plan(toy_suite(**SUITE), Registry(), Store(tmp_path)))
    assert [stage.kind for stage in stages] == ["data", "release", "fine-tuned"]


def test_processes_on_several_machines_need_a_network_of_their_own() -> None:
    one = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "NCCL_SOCKET_IFNAME": "eth7"}
    keep_apart(one, private=False)
    assert (one["GLOO_SOCKET_IFNAME"], one["NCCL_SOCKET_IFNAME"]) == ("lo", "eth7")
    two = {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    with pytest.raises(UsageError, match=r"4 of 8 processes .* --private-network"):
        keep_apart(two, private=False)
    keep_apart(two, private=True)
    assert "GLOO_SOCKET_IFNAME" not in two


def launched(folder: Path, processes: int, *how: str) -> dict[str, torch.Tensor]:
    """The weights that processes on this machine's processors come to together."""
    suite, store = folder / "suite.yaml", folder / "-".join(["store", str(processes), *map(str, map(len, how))])
    suite.write_text(yaml.safe_dump(SUITE), encoding="utf-8")
    command = [sys.executable, "-m", "accelerate.commands.launch", f"--num_processes={processes}", *how]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # beside tests is tests/arena
    subprocess.run([*command, str(suite), "--store", str(store)], env=environment, check=True, timeout=300)
    (weights,) = store.rglob("epoch-*.safetensors")
    return load_file(weights)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights that one process comes to."""
    return launched(tmp_path_factory.mktemp("one"), 1, "--cpu", "-m", "arena.engine.launch")


@pytest.mark.parametrize("how", [("--cpu", "-m", "arena.engine.launch"), SHARDS], ids=["whole", "shards"])
def test_two_processes_train_the_weights_of_one(
    how: tuple[str, ...], one: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """In shards by the configuration that is shipped, with gloo instead of NCCL."""
    two = launched(tmp_path, 2, *how)
    assert one.keys() == two.keys()
    start = Registry().create("model", "tiny-llava", {}).load().model.state_dict()
    assert max((one[k] - start[k]).abs().max() for k in one) > 3e-4
    assert max((one[k] - two[k]).abs().max() for k in one) < 5e-5
