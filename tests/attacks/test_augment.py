"""Augmentation: what each operation does to pictures, and what weighs how much where they are mixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hooked import hooks
from tiny_models import tiny_random_llava

from arena.data.sample import Sample
from arena.errors import UsageError
from arena.lvlm.batch import IGNORE
from attacks.training.augment import AugmentHooks, Operation


def augmented(operations: Sequence[str], images: Sequence[torch.Tensor], draws: int = 1, **config: object) -> Any:
    """Draws of some operations, pictures ``(draws, B, 3, H, W)`` and weights ``(draws, B)``."""
    attack: AugmentHooks = hooks("augment", operations=operations, **config)
    made = [attack.augment(tuple(images)) for _ in range(draws)]
    return torch.stack([torch.stack(pictures) for pictures, _ in made]), torch.stack([weights for _, weights in made])


OPERATIONS: tuple[str, ...] = get_args(Operation)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_keeps_size_and_range_follows_the_seed_and_leaves_the_global_generator_alone(
    operation: str, unequal: list[Sample]
) -> None:
    images = tiny_random_llava().encode(unequal).images
    state = torch.get_rng_state()
    attack, again, other = (hooks("augment", seed, operations=[operation]) for seed in (0, 0, 1))
    found, weights = attack.augment(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert [x.shape for x in found] == [x.shape for x in images] and weights.shape == (len(images),)
    assert all(x.min() >= 0 and x.max() <= 1 for x in found)
    assert all(torch.equal(x, y) for x, y in zip(found, again.augment(images)[0], strict=True))
    draws = [[*hook.augment(images)[0]] for hook in (attack, other) for _ in range(4)]
    assert any(not torch.equal(x, y) for x, y in zip(draws[0], draws[-1], strict=True))
    if operation in ("mixup", "cutmix"):  # pictures that have no partner of their size stay
        assert all(torch.equal(found[i], images[i]) and weights[i] == 1 for i in (1, 2, 4))


def test_a_shift_moves_the_picture_and_repeats_its_edge() -> None:
    picture = torch.rand(3, 40, 24, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(picture[None], (3, 3, 5, 5), mode="replicate")[0]
    seen = set()
    for (moved,) in augmented(["shift"], [picture], 60)[0]:
        places = [(y, x) for y in range(11) for x in range(7) if torch.equal(padded[:, y : y + 40, x : x + 24], moved)]
        seen |= {places[0]}
    assert len(seen) > 25 and {y for y, _ in seen} >= {0, 10} and {x for _, x in seen} == set(range(7))


def test_colours_change_by_up_to_two_fifths_and_hues_do_not() -> None:
    grey, red = torch.full((3, 4, 4), 0.5), torch.tensor([0.6, 0.2, 0.2])[:, None, None].expand(3, 4, 4)
    pictures, _ = augmented(["colour"], [grey, red], 80)
    levels = pictures[:, 0].mean((1, 2, 3))
    assert 0.29 < levels.min() < 0.34 and 0.66 < levels.max() < 0.71
    first, second, third = pictures[:, 1].mean((2, 3)).unbind(1)
    assert (first > second + 0.1).all() and torch.allclose(second, third, atol=1e-5)


@pytest.mark.parametrize("hole", [0.25, 0.5])
def test_cutout_is_a_grey_square(hole: float) -> None:
    picture, side = torch.zeros(3, 40, 40), round(40 * hole)
    pictures, _ = augmented(["cutout"], [picture], 40, hole=hole)
    tops = set()
    for (cut,) in pictures:
        rows, columns = (cut[0] > 0).nonzero().unbind(1)
        assert len(rows) == side * side and np.ptp(rows) == np.ptp(columns) == side - 1
        assert torch.equal(cut[:, rows, columns], torch.full((3, side * side), 0.5))
        tops.add(int(rows.min()))
    assert len(tops) > 10


def test_a_mixture_is_of_two_pictures_and_weighs_what_is_the_samples_own() -> None:
    flat = [torch.full((3, 8, 8), level) for level in (0.1, 0.3, 0.9)]
    pictures, weights = augmented(["mixup"], flat, 300)
    for made, weight in zip(pictures, weights, strict=True):
        for own, x, share in zip(flat, made, weight / 2, strict=True):
            others = [share * own + (1 - share) * other for other in flat]
            assert any(torch.allclose(x, y, atol=1e-5) for y in others) or torch.equal(x, own)
    assert float(weights.mean()) == pytest.approx(1, abs=0.05) and weights.max() > 1.9 and weights.min() < 0.1


def test_cutmix_takes_each_pixel_of_one_of_two_pictures() -> None:
    flat = [torch.full((3, 16, 16), level) for level in (0.1, 0.3, 0.9)]
    pictures, weights = augmented(["cutmix"], flat, 300)
    boxes = 0
    for made, weight in zip(pictures, weights, strict=True):
        for own, x, share in zip(flat, made, weight / 2, strict=True):
            mine = (x == own)[0]
            assert len(x[0][~mine].unique()) <= 1 and (x[0] == x[1]).all()
            if share == 0.5 and mine.all():
                continue  # its own partner
            assert float(mine.float().mean()) == pytest.approx(float(share), abs=1e-6)
            for part in (mine, ~mine):
                rows, columns = part.nonzero().unbind(1)
                boxes += len(rows) > 0 and len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert boxes > 500 and float(weights.mean()) == pytest.approx(1, abs=0.05)


def test_the_loss_of_a_mixture_is_weighted_by_sample(glyphs: tuple[Sample, ...]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(glyphs[:6])
    images, weights = hooks("augment", operations=["mixup"]).augment(batch.images)
    losses, tokens = lvlm.losses(lvlm.with_images(batch, images)), (batch.labels != IGNORE).sum(1)
    expected = (weights * losses * tokens).sum() / tokens.sum()
    found = hooks("augment", operations=["mixup"]).loss(lvlm, batch, 0.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5) and len(weights.unique()) > 1


@pytest.mark.parametrize(
    ("operations", "said"),
    [(["shift", "shift"], "named twice"), (["mixup", "cutmix"], "name one of them"), ([], "at least 1 item")],
)
def test_operations_that_make_no_sense_are_refused(operations: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        hooks("augment", operations=operations)
