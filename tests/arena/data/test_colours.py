"""Colours come out of a picture of any mode and go back into it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from small_samples import picture

from arena.budget import MODES
from arena.data.colours import amplified, colours, recoloured
from arena.errors import ArenaError
from arena.lvlm.perturbation import planes, to_pixels


@pytest.fixture(params=MODES)
def image(request: pytest.FixtureRequest) -> Image.Image:
    return picture(np.random.default_rng(3), (7, 5), request.param)


def test_what_was_taken_out_goes_back(image: Image.Image) -> None:
    values = colours(image)
    assert values.shape == (7, 5, 1 if image.mode in ("L", "LA") else 3) and values.dtype == np.uint8
    assert np.array_equal(recoloured(image, values), np.asarray(image))
    floats = recoloured(image, (values / 255).astype(np.float32))
    assert floats.dtype == np.float32 and np.array_equal((floats * 255).round(), np.asarray(image))


def test_alpha_stays_when_colours_change(image: Image.Image) -> None:
    changed = Image.fromarray(recoloured(image, 255 - colours(image)))
    assert changed.mode == image.mode and np.array_equal(colours(changed), 255 - colours(image))
    if image.mode.endswith("A"):
        assert changed.getchannel("A").tobytes() == image.getchannel("A").tobytes()


def test_planes_are_the_colours_as_floats(image: Image.Image) -> None:
    x = planes(image)
    assert x.dtype == torch.float32
    assert np.array_equal((x * 255).round().numpy(), colours(image).transpose(2, 0, 1))
    assert np.array_equal((to_pixels(image, x) * 255).round(), np.asarray(image))
    beyond = to_pixels(image, x + 2)
    assert np.array_equal((beyond * 255).round(), recoloured(image, np.full_like(colours(image), 255)))


def test_a_picture_of_another_mode_has_no_planes() -> None:
    with pytest.raises(ArenaError, match=r"a palette image .* convert it first"):
        planes(Image.new("P", (3, 3)))


def test_a_change_is_shown_ten_times_around_grey(image: Image.Image) -> None:
    grey = Image.fromarray(recoloured(image, np.full_like(colours(image), 100)))
    other = Image.fromarray(recoloured(image, np.full_like(colours(image), 104)))
    shown = amplified(grey, other)
    assert shown.mode == ("L" if image.mode in ("L", "LA") else "RGB") and set(np.unique(shown)) == {168}
