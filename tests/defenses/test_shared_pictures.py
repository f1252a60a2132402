"""One picture, one perturbation, for all its questions; and no part of it left out, whatever the surrogate crops."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_random_llava

from arena.budget import Budget, colours
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.lvlm.perturbation import PIXELS, pieces
from arena.lvlm.pixels import to_tensor
from arena.lvlm.views import View, whole
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from mmguard.adapt import adapted, train

BUDGET = Budget(image=4, text=2)
QUICK = {"rounds": 2, "batch_size": 3, "rank": 2}
CASES: dict[str, dict[str, object]] = {
    "em": {**QUICK, "theta_steps": 1, "pgd_steps": 3},
    "em-class": {**QUICK, "theta_steps": 1, "pgd_steps": 2, "stop_error": 0},
    "hypo": {"clean_steps": 2, "batch_size": 3, "rank": 2, "pgd_steps": 3},
    "tap": {"clean_steps": 2, "batch_size": 3, "rank": 2, "pgd_steps": 3},
    "feature-target": {"batch_size": 3, "pgd_steps": 3},
    "t2ue": {"batch_size": 3, "epochs": 2, "blocks": 3, "width": 4},
    "bait": {"rounds": 3, "side": 16, "blocks": 1, "rank": 2, "batch_size": 3, "learning_rate": 1e-2},
    "vtg": {**QUICK, "theta_steps": 1, "side": 16, "style_width": 2, "learning_rate": 1e-2},
    "anti-finetune": {**QUICK, "theta_steps": 1, "pgd_steps": 3},
    "style-eot": {**QUICK, "theta_steps": 1, "pgd_steps": 3},
    "mi-ue": {**QUICK, "theta_steps": 1, "pgd_steps": 3},
    "tue": {**QUICK, "theta_steps": 1, "pgd_steps": 3},
    "dune": {
        **{"clean_steps": 2, "batch_size": 3, "rank": 2, "pgd_steps": 3, "models": 2, "particles": 2},
        **{"iterations": 1, "pictures": 2},
    },
    "rem": {**QUICK, "theta_steps": 1, "pgd_steps": 3, "draws": 2, "inner_steps": 1},
    "mem": {**QUICK, "theta_steps": 1, "pgd_steps": 3, "candidates": 2, "text_rounds": 1},
    "mmguard-bph": {**QUICK, "pgd_steps": 3, "candidates": 2},
    "mmguard-crs": {**QUICK, "pgd_steps": 3, "candidates": 2},
    "mmguard-image": {**QUICK, "pgd_steps": 3},
}


def release(name: str, samples: Sequence[Sample], **config: object) -> list[Sample]:
    defense = Registry().create("defense", name, {**CASES[name], **config})
    world = DefenderWorld(BUDGET, 3, lambda: (tiny_random_llava(),))
    return build_release(samples, defense.protect(samples, world), BUDGET)


def change(before: Sample, after: Sample) -> np.ndarray:
    return colours(after.image).astype(int) - colours(before.image)


def picture(seed: int, size: tuple[int, int] = (48, 48)) -> Image.Image:
    """Without black and white, at which a perturbation would be cut off."""
    small = np.random.default_rng(seed).integers(60, 190, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def saved(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    with Image.open(buffer) as decoded:
        return decoded.copy()


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Six questions about two pictures and a copy of the first that was saved again, in no order."""
    first, second = picture(1), picture(2)
    pictures = (first, second, saved(first), first.copy(), second.copy(), first.copy())
    answers = ("red", "two", "no", "top left", "blue", "three")
    return [Sample(str(i), x, f"what is {i} here?", a) for i, (x, a) in enumerate(zip(pictures, answers, strict=True))]


@pytest.mark.parametrize("copies", ["exact", "near"])
@pytest.mark.parametrize("name", CASES)
def test_copies_have_one_perturbation(name: str, copies: str, samples: list[Sample]) -> None:
    changes = [change(*pair) for pair in zip(samples, release(name, samples, copies=copies), strict=True)]
    assert all(delta.any() for delta in changes)
    for same in ((0, 3, 5), (1, 4)):
        assert all(np.array_equal(changes[same[0]], changes[i]) for i in same)
    assert not np.array_equal(changes[0], changes[1]) or name == "em-class"  # signs of two classes may agree
    alike = name in ("em-class", "bait", "vtg")  # the latter make noise of pictures, nearly one of nearly one
    assert np.array_equal(changes[0], changes[2]) == (copies == "near") or alike


def test_averaging_copies_undoes_nothing(samples: list[Sample]) -> None:
    """Of one perturbation each, a half would be left of two, and less of more."""
    apart = [s.with_content(picture(10 + i), s.question) for i, s in enumerate(samples)]
    kept = []
    for given, same in ((samples, (0, 3, 5)), (apart, (0, 3, 5))):
        released = release("em", given)
        changes = [change(given[i], released[i]) for i in same]
        kept.append(np.abs(np.mean(changes, 0)).mean() / np.mean([np.abs(c).mean() for c in changes]))
    assert kept[0] == pytest.approx(1) and kept[1] < 0.8


def test_a_shared_perturbation_serves_all_questions(samples: list[Sample]) -> None:
    """It lowers the loss of each, not of the last alone."""
    lvlm = tiny_random_llava()
    same = [samples[i] for i in (0, 3, 5)]
    before = lvlm.losses(lvlm.encode(same))
    after = lvlm.losses(lvlm.encode(release("mmguard-image", same, rounds=3, inner_steps=0, pgd_steps=6)))
    assert (after < before).all()


def losses(samples: Sequence[Sample], view: View) -> float:
    lvlm = tiny_random_llava()
    with torch.no_grad():
        return float(lvlm.losses(lvlm.encode(samples, [view(to_tensor(s.image)) for s in samples])).mean())


@pytest.mark.parametrize(
    "name", ["em", "em-class", "hypo", "feature-target", "mem", "mmguard-bph", "mmguard-crs", "mmguard-image"]
)
def test_no_part_of_a_wide_picture_is_left_out(name: str) -> None:
    wide = [Sample(str(i), picture(i, (100, 48)), f"what is {i}?", a) for i, a in enumerate(("red", "two", "no"))]
    shares, left = [], []
    for views in (False, True):
        released = release(name, wide, views=views)
        changes = np.stack([change(*pair).any(-1) for pair in zip(wide, released, strict=True)])
        shares.append(changes.mean())
        left.append(changes[:, :, :18].mean())
    assert shares[0] < 0.7 and left[0] == 0
    assert shares[1] > 0.95 and left[1] > 0.9


def test_views_protect_what_others_see() -> None:
    wide = [Sample(str(i), picture(i, (100, 48)), f"what is {i}?", a) for i, a in enumerate(("red", "two", "no"))]
    config = {"rounds": 2, "inner_steps": 0, "pgd_steps": 8}
    without, crafted = (release("mmguard-image", wide, views=views, **config) for views in (False, True))

    def left(x: torch.Tensor) -> torch.Tensor:
        return x[..., :48]

    for view in (whole, left):
        clean = losses(wide, view)
        assert clean - losses(crafted, view) > 3 * abs(clean - losses(without, view))


def test_square_pictures_are_crafted_on_as_before() -> None:
    square = [Sample(str(i), picture(i), f"what is {i}?", a) for i, a in enumerate(("red", "two", "no"))]
    for name in ("em", "mmguard-crs"):
        plain, viewed = (release(name, square, views=views) for views in (False, True))
        assert [s.image.tobytes() for s in plain] == [s.image.tobytes() for s in viewed]


def test_pieces_of_a_batch_are_bounded_by_pixels() -> None:
    side = int(PIXELS**0.5) // 2
    large = Sample("l", Image.new("L", (side, side)), "?", "a")  # a quarter of what may be
    huge = Sample("h", Image.new("L", (2 * side + 9, 2 * side)), "?", "a")
    assert pieces([3, 1, 2, 0, 4], [large] * 4 + [huge]) == [[3, 1, 2, 0], [4]]
    assert pieces([0, 4, 1], [large] * 4 + [huge]) == [[0], [4], [1]]
    assert pieces([], [large]) == []


def test_training_in_pieces_is_training() -> None:
    """Gradients of pieces add up to those of the batch, where answers are of one length."""
    samples = [Sample(str(i), picture(i), f"what is {i}?", "red") for i in range(4)]

    def encode(lvlm: LVLM, indices: Sequence[int]) -> Batch:
        return lvlm.encode([samples[i] for i in indices])

    found = []
    for parts in (lambda part: [part], lambda part: [part[:1], part[1:]]):
        with adapted(tiny_random_llava(), 2, 0.0, [0]) as tuned:
            found.append(train(tuned, encode, 4, 3, 4, 0.01, [1], parts))
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    assert found[0][0] - found[0][-1] > 10 * abs(found[0][-1] - found[1][-1])
