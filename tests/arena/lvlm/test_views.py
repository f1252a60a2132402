"""Other views of a picture cover what a surrogate leaves out, and gradient flows through them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_random_llava

from arena.lvlm.base import LVLM
from arena.lvlm.families.idefics3.model import Idefics3
from arena.lvlm.families.idefics3.random import CHECKPOINTS
from arena.lvlm.pixels import to_tensor
from arena.lvlm.views import WHOLE, cuts, leaves_out, part, share_seen, squares, whole
from arena.plugins.registry import Registry


@pytest.fixture(scope="module")
def lvlm() -> LVLM:
    return tiny_random_llava()


@pytest.mark.parametrize(
    ("size", "seen"), [((48, 48), 1.0), ((96, 48), 0.5), ((48, 96), 0.5), ((3000, 4000), 0.75), ((300, 100), 1 / 3)]
)
def test_what_a_cropping_processor_sees(lvlm: LVLM, size: tuple[int, int], seen: float) -> None:
    assert share_seen(lvlm, *size) == pytest.approx(seen, abs=0.08)  # filters reach a little beyond the crop
    assert leaves_out(lvlm, *size) == (seen < 1)


def test_a_processor_that_cuts_tiles_sees_everything() -> None:
    (draw,) = list(CHECKPOINTS.values())[:1]
    lvlm = Idefics3(*draw(0))
    for size in ((48, 96), (200, 70)):
        assert share_seen(lvlm, *size) > 0.95 and not leaves_out(lvlm, *size)


def test_a_narrow_picture_that_a_model_takes_can_be_asked_about() -> None:
    """Qwen takes sides of up to 200 times the other; a reduced copy must not go beyond."""
    lvlm = Registry().create("model", "tiny-qwen3-vl", {}).load()
    assert lvlm.image_text(16, 3000) and share_seen(lvlm, 16, 3000) > 0.9


def test_asking_leaves_random_numbers_alone(lvlm: LVLM) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    share_seen(lvlm, 77, 40)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("size", [(48, 48), (40, 97), (97, 40), (1, 5), (63, 64)])
def test_squares_cover_a_picture(size: tuple[int, int]) -> None:
    height, width = size
    found = squares(height, width)
    for side in {side for _, _, side in found}:
        covered = np.zeros(size, bool)
        for top, left, one in found:
            if one == side:
                assert 0 <= top <= height - side and 0 <= left <= width - side
                covered[top : top + side, left : left + side] = True
        assert covered.all()
    assert {side for _, _, side in found} == {min(size), max(1, min(size) // 2)}


def test_views_of_a_turn() -> None:
    x = torch.rand(3, 40, 97, requires_grad=True)
    reached = torch.zeros(40, 97)
    for turn in range(len(squares(40, 97))):
        for view in cuts(turn):
            shown = view(x)
            assert shown.shape[-1] == shown.shape[-2] <= 40
            (gradient,) = torch.autograd.grad(shown.sum(), x)
            reached += gradient.abs().sum(0)
    assert (reached > 0).all()
    assert torch.equal(part(x, 0), part(x, len(squares(40, 97))))


def test_the_whole_picture_is_what_pillow_makes_of_it() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 71, 3), dtype=np.uint8))
    wanted = np.asarray(image.resize((30, 30), Image.Resampling.BICUBIC)).astype(int)
    found = (whole(to_tensor(image)) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).max() <= 1
    assert whole(torch.zeros(3, WHOLE + 9, WHOLE + 9)).shape == (3, WHOLE, WHOLE)
