"""The differentiable pixel pipeline against transformers' own processor, on photographs at awkward sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import photograph
from PIL import Image
from tiny_models import tiny_random_llava
from transformers import CLIPImageProcessorPil

from arena.lvlm import pixels
from arena.lvlm.families.llava.model import Llava

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
    (61, 300),
    (255, 401),
    (7, 90),
]


PROCESSORS = {
    "llava-1.5": {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
    "tiny": {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}},
    "padding": {"size": {"shortest_edge": 40}, "crop_size": {"height": 57, "width": 64}},
}


@pytest.fixture(scope="module")
def llava() -> Llava:
    return tiny_random_llava()


@pytest.mark.parametrize("settings", PROCESSORS.values(), ids=PROCESSORS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_forward_value_is_the_processors(llava: Llava, settings: dict, size: tuple[int, int]) -> None:
    processor = CLIPImageProcessorPil(**settings)
    ours = Llava(llava.model, llava.tokenizer, processor)
    image = photograph(*size, seed=sum(size))
    theirs = processor(image, return_tensors="pt")["pixel_values"]
    mine = ours.pixel_inputs([pixels.to_tensor(image)])["pixel_values"]
    std = torch.tensor(processor.image_std).view(3, 1, 1)
    difference = ((mine - theirs) * std * 255).abs()
    assert mine.shape == theirs.shape
    assert difference.max() <= 2.01  # a rounding step of the first pass grows in the second: bicubic weights go below 0
    assert difference.mean() < 0.01


def test_pictures_of_different_sizes_keep_their_order(llava: Llava) -> None:
    images = [pixels.to_tensor(photograph(*size)) for size in [(48, 60), (90, 50), (48, 60)]]
    together = llava.pixel_inputs(images)["pixel_values"]
    alone = torch.cat([llava.pixel_inputs([x])["pixel_values"] for x in images])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
def test_resampling_matches_pillow(resample: Image.Resampling) -> None:
    image = photograph(123, 77)
    for height, width in [(31, 200), (123, 40), (250, 77), (12, 11)]:
        theirs = np.asarray(image.resize((width, height), resample), np.float32)
        mine = pixels.resize(pixels.to_tensor(image), height, width, resample).permute(1, 2, 0).numpy() * 255
        assert np.abs(mine - theirs).max() <= 2.01
        assert np.abs(mine - theirs).mean() < 0.01


def test_gradient_reaches_raw_pixels_and_is_the_geometrys() -> None:
    """Without rounding the pipeline is linear, so a finite difference of it is exact; the gradient must equal it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 19, 26, generator=generator, dtype=torch.float64)
    weight = torch.rand(3, 12, 12, generator=generator, dtype=torch.float64)

    def smooth(values: torch.Tensor) -> torch.Tensor:
        columns = pixels.resample_matrix(26, 16, Image.Resampling.BICUBIC).double()
        rows = pixels.resample_matrix(19, 12, Image.Resampling.BICUBIC).double()
        cropped = pixels.center_crop(rows @ (values @ columns.T), 12, 12)
        return (pixels.normalize(cropped, [0.5] * 3, [0.2] * 3) * weight).sum()

    leaf = x.clone().requires_grad_()
    resized = pixels.resize(pixels.to_bytes(leaf), 12, 16, Image.Resampling.BICUBIC)
    loss = (pixels.normalize(pixels.center_crop(resized, 12, 12), [0.5] * 3, [0.2] * 3) * weight).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    for place in [(0, 0, 4), (1, 9, 13), (2, 18, 20), (0, 7, 0)]:
        step = torch.zeros_like(x)
        step[place] = 1e-3
        numeric = (smooth(x + step) - smooth(x - step)) / 2e-3
        assert gradient[place] == pytest.approx(numeric.item(), abs=1e-6)
    assert gradient.abs().sum() > 0


def test_rounding_is_what_will_be_released() -> None:
    x = torch.tensor([0.0, 0.3 / 255, 0.6 / 255, 1.2, -0.3])
    assert torch.equal((pixels.to_bytes(x) * 255).round(), torch.tensor([0.0, 0.0, 1.0, 255.0, 0.0]))
