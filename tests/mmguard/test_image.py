"""The image step: whole 8-bit levels, in the ball, in the picture's own size and mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from small_samples import mixed_samples

from arena.budget import Budget
from arena.errors import ArenaError, UsageError
from mmguard.image import descend, levels, pgd, pixels, project, radius, released


def test_projection_onto_ball_and_pixel_range() -> None:
    clean = torch.tensor([0, 3, 128, 250, 255], dtype=torch.int16)
    assert project(torch.full((5,), 9, dtype=torch.int16), clean, 8).tolist() == [8, 8, 8, 5, 0]
    assert project(torch.full((5,), -9, dtype=torch.int16), clean, 8).tolist() == [0, -3, -8, -8, -8]


def test_a_step_goes_against_the_sign_of_the_gradient() -> None:
    clean = torch.full((4,), 100, dtype=torch.int16)
    delta = torch.tensor([0, 0, 0, -2], dtype=torch.int16)
    moved = descend(delta, torch.tensor([0.3, -7.0, 0.0, 1e-9]), clean, 2, 3)
    assert moved.tolist() == [-2, 2, 0, -3]


def test_pgd_finds_the_nearest_point_of_the_ball() -> None:
    clean = [torch.full((3, 4, 5), 100, dtype=torch.int16), torch.full((1, 6, 2), 100, dtype=torch.int16)]
    goals = [torch.full((3, 4, 5), 103 / 255), torch.full((3, 6, 2), 90 / 255)]

    def loss(number: int, images: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        assert all(torch.equal(x, (x * 255).round() / 255) for x in images)
        for x, goal in zip(images, goals, strict=True):  # in parts, whose gradients are added up
            yield (x - goal).square().sum()[None]

    delta = pgd(clean, [torch.zeros_like(x) for x in clean], loss, 9, 1, 4)
    assert (delta[0] == 3).all()
    assert (delta[1] == -4).all() and delta[1].shape == (1, 6, 2)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda x: x.mean() * torch.nan, "loss after their inner steps is NaN or infinite"),
        (lambda x: (x - x.detach()).sqrt().sum(), "gradient in the pixels is NaN or infinite"),  # a loss of 0
    ],
)
def test_what_is_no_number_moves_no_picture(loss: Callable[[torch.Tensor], torch.Tensor], said: str) -> None:
    clean = [torch.full((3, 4, 5), 100, dtype=torch.int16)]
    with pytest.raises(ArenaError, match=said):
        pgd(clean, [torch.zeros_like(x) for x in clean], lambda number, images: [loss(images[0])[None]], 1, 1, 4)


def test_released_pictures_differ_by_delta_exactly() -> None:
    for sample in mixed_samples(5):
        clean = levels(sample.image)
        delta = project(torch.randint(-8, 9, clean.shape, dtype=torch.int16), clean, 8)
        picture = released(sample.image, delta)
        assert (picture.mode, picture.size) == (sample.image.mode, sample.image.size)
        assert torch.equal(levels(picture) - clean, delta)
        assert torch.equal((pixels(clean, delta) * 255).round().to(torch.int16), levels(picture))
        if picture.mode.endswith("A"):
            assert np.array_equal(np.array(picture.getchannel("A")), np.array(sample.image.getchannel("A")))


def test_levels_are_the_stored_bytes() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(levels(Image.fromarray(values))[0].numpy(), values)


def test_the_budget_in_whole_levels() -> None:
    assert radius(Budget(image=8)) == 8
    assert radius(Budget(image=4.7)) == 4
    with pytest.raises(UsageError, match="l2"):
        radius(Budget(norm="l2"))
    with pytest.raises(UsageError, match="127"):
        radius(Budget(image=200))
