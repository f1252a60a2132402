"""Diffusion purification against a bare loop of diffusers' UNet and scheduler, at the same batch and steps.

Medians of interleaved runs on one thread; absolute times of a shared machine say little. `extra_info` holds the ratio
of speeds and what it should stay above.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DModel
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from attacks.image.denoiser import SHIPPED
from attacks.image.zoo import measure

PICTURES, BATCH, STEPS, T_STAR = 32, 16, 10, 100


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def test_against_a_bare_loop(benchmark: BenchmarkFixture) -> None:
    torch.set_num_threads(1)
    pixels = measure.held_out(PICTURES)
    images = [Image.fromarray(x) for x in pixels]
    config = {"t_star": T_STAR, "steps": STEPS, "batch_size": BATCH}
    attack = Registry().create("attack", "diffpure", config)

    def purified() -> list[Image.Image]:
        return list(attack.purify_images(images, AttackerWorld(seed=0)))

    @torch.inference_mode()
    def bare() -> list[torch.Tensor]:
        unet = UNet2DModel.from_pretrained(SHIPPED / "unet").eval()
        scheduler = DDIMScheduler.from_pretrained(SHIPPED / "scheduler")
        scheduler.set_timesteps(1000 * STEPS // T_STAR)
        results = []
        for part in torch.from_numpy(np.moveaxis(pixels, -1, 1)).split(BATCH):
            x = part.float() / 127.5 - 1
            x = scheduler.add_noise(x, torch.randn_like(x), torch.tensor([T_STAR - 1]))
            for level in range(T_STAR - 1, 0, -T_STAR // STEPS):
                x = scheduler.step(unet(x, level).sample, level, x).prev_sample
            results.append(((x + 1) * 127.5).round().clamp(0, 255).byte())
        return results

    bare()  # warm-up: imports, and the first touch of the weights
    ratio = median(seconds(bare) / seconds(purified) for _ in range(5))
    benchmark.extra_info |= {"speed / bare diffusers loop": round(ratio, 3), "above": 0.9}
    benchmark.pedantic(purified, rounds=1)
