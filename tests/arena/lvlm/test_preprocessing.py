"""The pixel pipelines at the preprocessing values of the hub's checkpoints, against transformers' own processors."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, Family, photograph
from torch import Tensor

from arena.errors import ArenaError
from arena.lvlm import pixels
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Role

SIZES = [
    (48, 48),
    (47, 49),
    (336, 336),
    (31, 200),
    (500, 333),
    (97, 96),
    (640, 480),
    (33, 34),
    (20, 20),
    (61, 700),
    (255, 401),
    (7, 90),
]
HUB = [(name, checkpoint) for name, family in FAMILIES.items() for checkpoint in family.hub]
SMALL = [(name, checkpoint) for name, checkpoint in HUB if checkpoint not in FAMILIES[name].large]


def hub_lvlm(name: str, checkpoint: str, random_checkpoint: Callable[[str], Path], tmp_path: Path) -> LVLM:
    """The family's random model with the processor of a hub checkpoint, read from a file as the hub has it."""
    text = json.dumps(FAMILIES[name].hub[checkpoint])
    (tmp_path / "preprocessor_config.json").write_text(text, encoding="utf-8")
    lvlm = copy.copy(FAMILIES[name].lvlm.from_pretrained(random_checkpoint(name)))
    lvlm.processor = FAMILIES[name].processor.from_pretrained(tmp_path)
    return lvlm


def torchvision_processor(family: Family, tmp_path: Path) -> Any:
    """The family's processor on torchvision, from the file of `hub_lvlm`."""
    pytest.importorskip("torchvision", reason="torchvision's backend needs torchvision")
    return getattr(transformers, family.processor.__name__.removesuffix("Pil")).from_pretrained(tmp_path)


@pytest.mark.parametrize("backend", ["pil", "torchvision"])
@pytest.mark.parametrize(("which", "checkpoint"), HUB, ids=[checkpoint for _, checkpoint in HUB])
def test_pictures_are_the_processors(
    which: str, checkpoint: str, backend: str, random_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """8-bit values within 2 of the real processor's, at the same layout, with the same number of tokens. torchvision
    rounds less often between two passes than Pillow, and has a Lanczos filter of its own."""
    lvlm, family = hub_lvlm(which, checkpoint, random_checkpoint, tmp_path), FAMILIES[which]
    reference, most, mean = lvlm, 2.01, 0.01
    if backend == "torchvision":
        reference = copy.copy(lvlm)
        reference.processor = torchvision_processor(family, tmp_path)
        most, mean = family.from_torchvision.get(checkpoint, most), 0.2
    std = torch.tensor(lvlm.processor.image_std)
    for size in SIZES[:: 3 if checkpoint in family.large else 1]:
        image = photograph(*size, seed=sum(size))
        theirs = family.processed(reference, [image])
        mine = lvlm.pixel_inputs([pixels.to_tensor(image)])
        mine = family.native_pixels(lvlm, mine)
        flat = mine["pixel_values"].flatten(0, mine["pixel_values"].ndim - theirs["pixel_values"].ndim)
        assert flat.shape == theirs["pixel_values"].shape, size
        per_value = std.repeat_interleave(flat.shape[1] // 3) if flat.ndim == 2 else std.view(3, 1, 1)
        difference = ((flat - theirs["pixel_values"]) * per_value * 255).abs()
        assert difference.max() <= most, size
        assert difference.mean() < mean, size
        for key in mine.keys() - {"pixel_values"}:
            assert torch.equal(mine[key].long(), theirs[key].long()), (key, size)
        tokens = lvlm.encode_text(size, "what?", None).roles.count(Role.IMAGE)
        assert [tokens] == family.tokens(theirs), size


@pytest.mark.parametrize(("which", "checkpoint"), SMALL, ids=[checkpoint for _, checkpoint in SMALL])
def test_gradient_of_the_pixel_pipeline_is_its_geometrys(
    which: str,
    checkpoint: str,
    random_checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without rounding the pipeline is affine, so a finite difference of it is exact; the straight-through gradient
    with rounding must equal it."""
    lvlm = hub_lvlm(which, checkpoint, random_checkpoint, tmp_path)
    lvlm.model.double()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 61, 90, generator=generator, dtype=torch.float64)
    weight = torch.rand(lvlm.pixel_inputs([x])["pixel_values"].shape, generator=generator, dtype=torch.float64)

    def functional(values: Tensor) -> Tensor:
        return (lvlm.pixel_inputs([values])["pixel_values"] * weight).sum()

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(functional(leaf), leaf)
    monkeypatch.setattr(pixels, "to_bytes", lambda values: values)
    direction = torch.rand(x.shape, generator=generator, dtype=torch.float64) - 0.5
    with torch.no_grad():
        numeric = (functional(x + direction) - functional(x - direction)).item() / 2
    assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=1e-6)
    assert abs(numeric) > 1e-3


@pytest.mark.parametrize("which", ["qwen2.5-vl", "qwen3-vl", "glm4v"])
def test_a_picture_too_long_says_so(which: str, random_checkpoint: Callable[[str], Path]) -> None:
    lvlm = FAMILIES[which].lvlm.from_pretrained(random_checkpoint(which))
    with pytest.raises(ArenaError, match=r"picture of 603 x 3 pixels.*: crop it"):
        lvlm.pixel_inputs([torch.rand(3, 3, 603)])
