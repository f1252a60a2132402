"""How fast crafting and fine-tuning are on this device, and what share of its peak they reach: ``make gpu-speed``, or
``python tests/benchmarks/gpu_speed.py --help`` for what can be chosen.

The models are Qwen3-VL-2B and -4B by their published sizes, their weights random: nothing is downloaded, and speed does
not depend on weights. What is measured is the product's own code, the second of two equal parts of each: an epoch of
`lora` with its held-out pass, a round of `em` and of `mmguard-bph` with their training and
measuring passes.

The share is FLOPs done, over seconds, over the card's peak. FLOPs are those of matrix products, convolutions and
attention, forwards and backwards, that torch's `FlopCounterMode` sees in the same work done once more; with frozen
weights these are about 4 a parameter and token, not 6. The peak is that of dense bfloat16 on tensor cores in the
vendors' datasheets, or `--peak`. The goal is 40 % of it on models of 2 to 4 billion parameters. It has not been
measured yet. One device is used: where there are several GPUs, show it one by ``CUDA_VISIBLE_DEVICES``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2VLImageProcessorPil, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from arena.budget import Budget
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.environment import machine, quiet_libraries
from arena.lvlm.base import LVLM
from arena.lvlm.families.qwen_vl.checkpoints import Qwen3VL2B
from arena.lvlm.families.qwen_vl.qwen3 import Qwen3VL
from arena.lvlm.families.qwen_vl.random import placeholder_ids, qwen_tokenizer
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.recipes.training import fine_tune, held_out_split

PEAKS = {
    "H200": 989,
    "H100 80GB HBM3": 989,
    "A100": 312,
    "L40S": 362,
    "L40": 181,
    "A40": 150,
}
"""TFLOP/s of dense bfloat16 as NVIDIA states them, half of those with sparsity, by
what torch's name of a card has in it; the first that fits counts. The H100 is the SXM form. Others need `--peak`."""

_TEXT = {"vocab_size": 151_936, "head_dim": 128, "num_key_value_heads": 8, "max_position_embeddings": 262_144}
_VISION = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "num_position_embeddings": 2304,
}
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tiny": (
        {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2}
        | {"head_dim": 32, "num_key_value_heads": 2, "max_position_embeddings": 4096, "vocab_size": 4096},
        {"depth": 2, "hidden_size": 64, "intermediate_size": 192, "num_heads": 2, "num_position_embeddings": 64}
        | {"deepstack_visual_indexes": [0]},
    ),
    "2b": (
        {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16, **_TEXT},
        {"deepstack_visual_indexes": [5, 11, 17], **_VISION},
    ),
    "4b": (
        {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32, **_TEXT},
        {"deepstack_visual_indexes": [5, 11, 17], **_VISION},
    ),
}
"""Sizes of the language model and of the vision tower; 2b and 4b are those of the hub's checkpoints."""


def configuration(size: str) -> Qwen3VLConfig:
    """Qwen3-VL of one of the `SIZES`, which takes the ids of our small tokenizer."""
    text, vision = SIZES[size]
    third = text["head_dim"] // 6
    sections = [text["head_dim"] // 2 - 2 * third, third, third]
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True, "mrope_section": sections}
    return Qwen3VLConfig(
        text_config={**text, "rope_parameters": rope},
        vision_config={"patch_size": 16, "out_hidden_size": text["hidden_size"], **vision},
        **placeholder_ids(qwen_tokenizer()),
    )


def model(size: str, device: str, dtype: torch.dtype) -> LVLM:
    """Drawn on the device, with the picture processor of the hub's checkpoints, but that no picture is too small."""
    config, tokenizer = configuration(size), qwen_tokenizer()
    with torch.device(device):
        drawn = Qwen3VLForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation="sdpa")
    said = {k: v for k, v in Qwen3VL2B.preprocessing.items() if k != "image_processor_type"}
    processor = Qwen2VLImageProcessorPil(**{**said, "size": {**said["size"], "shortest_edge": 32**2}})
    return Qwen3VL(drawn.eval(), tokenizer, processor)


def drawn_samples(count: int, side: int) -> list[Sample]:
    """Questions and answers about pictures of noise, so many pixels wide and high."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    texts = Glyphs().load(count, 0, 0, seed=5).train
    return [s.with_content(Image.fromarray(p), s.question) for s, p in zip(texts, pictures, strict=True)]


Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Half:
    """The second half of some work: its seconds, and the FLOPs of the same half when it was counted."""

    seconds: float
    flops: float


def second_half(work: Callable[[LVLM, Progress], None], fresh: Callable[[], LVLM]) -> Half:
    """Do the work twice, which reports its progress: once by the clock, once counted, each with a model of its own,
    since adapters stay. What is slow only at first, such as kernels that are chosen or loaded, is in the first half."""
    marks: list[list[float]] = []
    for counter in (None, FlopCounterMode(display=False)):
        lvlm, seen = fresh(), list[float]()

        def report(done: float, note: str, lvlm: LVLM = lvlm, seen: list[float] = seen, counter: Any = counter) -> None:
            if len(seen) < 2 and done >= (0.5, 1.0)[len(seen)]:
                if lvlm.device.type == "cuda":
                    torch.cuda.synchronize(lvlm.device)
                seen.append(time.perf_counter() if counter is None else counter.get_total_flops())

        with counter or nullcontext():
            work(lvlm, report)
        marks.append(seen)
    (start, end), (before, after) = marks
    return Half(end - start, after - before)


def fine_tuning(fresh: Callable[[], LVLM], samples: Sequence[Sample], batch: int, precision: str) -> tuple[str, Half]:
    """Two epochs of `lora` under autocast to `precision`; tokens are those of the training samples, once each."""
    recipe = Registry().create("recipe", "lora", {"epochs": 2, "batch_size": batch, "precision": precision})
    lengths: list[int] = []

    def work(lvlm: LVLM, report: Progress) -> None:
        trained, _ = held_out_split(samples, 0)
        encoded = [lvlm.encode_text((s.image.height, s.image.width), s.question, s.answer) for s in trained]
        lengths[:] = [len(one.ids) for one in encoded]
        with TemporaryDirectory() as folder:
            fine_tune(lvlm, recipe, samples, 0, Path(folder), progress=report)

    half = second_half(work, fresh)
    return f"{sum(lengths) / half.seconds:,.0f} tokens/s", half


def crafting(
    defense: str, fresh: Callable[[], LVLM], samples: Sequence[Sample], batch: int, steps: int = 8
) -> tuple[str, Half]:
    """Two rounds; an image-step is a step on one picture."""
    settings: dict[str, dict[str, Any]] = {
        "em": {"theta_steps": 2, "stop_error": 0},
        "mmguard-bph": {"trigger_tokens": 0},
    }
    chosen = {"rounds": 2, "pgd_steps": steps, "batch_size": batch, **settings[defense]}
    method = Registry().create("defense", defense, chosen)

    def work(lvlm: LVLM, report: Progress) -> None:
        for _ in method.protect(samples, DefenderWorld(Budget(), 0, lambda: (lvlm,), progress=report)):
            pass

    half = second_half(work, fresh)
    return f"{steps * len(samples) / half.seconds:,.1f} image-steps/s", half


def peak_of(device: str) -> float | None:
    """FLOP/s of a card that is in the table."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    if name.endswith("NVL"):  # slower than its namesake
        return None
    return next((peak * 1e12 for part, peak in PEAKS.items() if part in name), None)


def line(what: str, rate: str, half: Half, peak: float | None) -> str:
    achieved = half.flops / half.seconds
    share = "unknown peak" if peak is None else f"{achieved / peak:.1%} of the peak"
    return f"{what}: {rate}, {achieved / 1e12:.3g} TFLOP/s, {share}"


def measured(given: argparse.Namespace) -> Iterator[str]:
    """The lines that are printed."""
    device, dtype = given.device, getattr(torch, given.dtype)
    peak = peak_of(device) if given.peak is None else given.peak * 1e12
    samples = drawn_samples(given.samples, given.pixels)
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else machine()
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Qwen3VLForConditionalGeneration(configuration(given.size)).parameters())
    known = "peak unknown, name it with --peak" if peak is None else f"peak {peak / 1e12:,.3g} TFLOP/s"
    yield f"{where}, torch {torch.__version__}: {known}"
    yield (
        f"Qwen3-VL of {parameters / 1e9:.3g} billion random {given.dtype} parameters; {given.samples} pictures of "
        f"{given.pixels} x {given.pixels}, {given.batch} a step"
    )

    def fresh() -> LVLM:
        return model(given.size, device, dtype)

    yield line("fine-tuning, lora", *fine_tuning(fresh, samples, given.batch, given.dtype), peak)
    for defense in ("em", "mmguard-bph"):
        yield line(f"crafting, {defense}", *crafting(defense, fresh, samples, given.batch), peak)


def main(arguments: Sequence[str] | None = None) -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--size", choices=SIZES, default="4b" if gpu else "tiny", help="of the model")
    parser.add_argument("--device", default="cuda" if gpu else "cpu", help="torch device, such as cpu or cuda:0")
    parser.add_argument(
        "--dtype",
        choices=["bfloat16", "float32"],
        default="bfloat16" if gpu else "float32",
        help="of weights, and of autocast in training",
    )
    parser.add_argument("--samples", type=int, default=64 if gpu else 8, help="how many; an eighth is held out")
    parser.add_argument("--pixels", type=int, default=512 if gpu else 64, help="sides of pictures; a token is 32 x 32")
    parser.add_argument("--batch", type=int, default=8, help="samples a step")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device; by default as its datasheet says")
    quiet_libraries()
    for text in measured(parser.parse_args(arguments)):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
