"""Noise on disk is the noise that was put there."""

from __future__ import annotations

import torch
from small_samples import mixed_samples

from arena.lvlm.perturbation import planes
from defenses.surrogate import Perturbations


def test_perturbations_come_back_as_they_were() -> None:
    samples = mixed_samples(5)  # sizes and modes that differ
    for dtype in (torch.float32, torch.int16):
        kept = Perturbations(samples, dtype)
        values = [(torch.rand_like(planes(s.image)) * 99).to(dtype) for s in samples]
        for i, value in enumerate(values):
            assert kept[i].dtype == dtype and not kept[i].any()
            kept[i] = value
        for i, (sample, value) in enumerate(zip(samples, values, strict=True)):
            assert torch.equal(kept[i], value)
            if len(value) == 3:  # in memory as the picture's planes: rounding depends on it
                assert kept[i].stride() == planes(sample.image).stride()
