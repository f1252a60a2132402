"""What the measuring command of the benchmarks says."""

from __future__ import annotations

import re

import pytest
import torch
from benchmarks import gpu_speed
from transformers import Qwen3VLForConditionalGeneration

from arena.lvlm.families.qwen_vl.checkpoints import Qwen3VL2B, Qwen3VL4B


@pytest.mark.parametrize(("size", "published"), [("2b", Qwen3VL2B.billions), ("4b", Qwen3VL4B.billions)])
def test_sizes_are_those_of_the_checkpoints(size: str, published: float) -> None:
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(gpu_speed.configuration(size))
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(published, abs=0.005)


def test_rates_and_shares(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    if device == "auto":
        pytest.skip("a model that is shared out is not measured")
    gpu_speed.main(["--size=tiny", f"--device={device}", "--samples=4", "--batch=2", "--pixels=64", "--peak=0.02"])
    card, model, *lines = capsys.readouterr().out.splitlines()
    assert "peak 0.02 TFLOP/s" in card and "4 pictures of 64 x 64, 2 a step" in model
    assert [line.partition(":")[0] for line in lines] == ["fine-tuning, lora", "crafting, em", "crafting, mmguard-bph"]
    for line, unit in zip(lines, ("tokens/s", "image-steps/s", "image-steps/s"), strict=True):
        rate, done, share = re.fullmatch(rf".*: ([\d.,]+) {unit}, (.+) TFLOP/s, ([\d.]+)% of the peak", line).groups()
        assert float(rate.replace(",", "")) > 0
        assert float(share) == pytest.approx(100 * float(done) / 0.02, abs=0.06)


def test_flops_of_the_second_half_are_counted() -> None:
    """By the formula of the engine's estimates: 2 a weight and row forwards, 2 backwards where weights are frozen."""
    layer = torch.nn.Linear(32, 16, bias=False).requires_grad_(False)
    model = torch.nn.Module()
    model.device = torch.device("cpu")

    def work(lvlm: torch.nn.Module, report: gpu_speed.Progress) -> None:
        for rows, done in ((5, 0.5), (7, 1.0)):
            layer(torch.ones(rows, 32, requires_grad=True)).sum().backward()
            report(done, "")

    half = gpu_speed.second_half(work, lambda: model)
    assert half.flops == 4 * 7 * 32 * 16 and half.seconds > 0


def test_a_device_without_a_known_peak_gets_no_share() -> None:
    assert gpu_speed.peak_of("cpu") is None
    assert (
        gpu_speed.line("x", "1 tokens/s", gpu_speed.Half(2.0, 4e12), None) == "x: 1 tokens/s, 2 TFLOP/s, unknown peak"
    )
    assert gpu_speed.line("x", "1 tokens/s", gpu_speed.Half(2.0, 4e12), 8e12).endswith("2 TFLOP/s, 25.0% of the peak")
