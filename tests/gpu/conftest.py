"""The devices that the tests of this folder run on: a GPU by CUDA and several of them, each skipped where it is not
there, and the CPU, on which the same tests run everywhere."""

from __future__ import annotations

import pytest
import torch

GPUS = torch.cuda.device_count()
FOUND = f"torch {torch.__version__} finds {GPUS} CUDA devices"


@pytest.fixture(params=["cpu", "cuda", "auto"])
def device(request: pytest.FixtureRequest) -> str:
    """What a model's setting `device` is given; ``auto`` shares a model out over all GPUs."""
    needed = {"cpu": 0, "cuda": 1, "auto": 2}[request.param]
    if needed > GPUS:
        pytest.skip(f"{FOUND}, and this takes {needed}")
    return str(request.param)


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest, device: str) -> str:
    """The type of a model's weights."""
    if request.param == "bfloat16" and device != "cpu" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip(f"{torch.cuda.get_device_name()} does not compute in bfloat16")
    return str(request.param)
