"""One table drives the tests of all attacks: what each does to pictures and questions it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.plugins.base import Attack, AttackerWorld
from arena.plugins.registry import Registry


@dataclass(frozen=True)
class Case:
    """`effect` compares pictures before and after; texts are given as (before, after) pairs."""

    id: str
    config: dict[str, object]
    effect: Callable[[np.ndarray, np.ndarray], bool] | None = None
    texts: tuple[tuple[str, str], ...] = ()


def unchanged(before: np.ndarray, after: np.ndarray) -> bool:
    return np.array_equal(before, after)


def noise(x: np.ndarray) -> float:
    """Energy of what the four-neighbour mean does not explain: high frequencies."""
    grey = x.astype(float).mean(-1) if x.ndim == 3 else x.astype(float)
    smooth = (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]) / 4
    return float(np.square(grey[1:-1, 1:-1] - smooth).mean())


def moved_crop(border: str) -> Callable[[np.ndarray, np.ndarray], bool]:
    """`after` is a part of `before`, nine tenths of its sides, somewhere, with a border of a mode of `np.pad`."""

    def effect(before: np.ndarray, after: np.ndarray) -> bool:
        height, width = (round(0.9 * side) for side in before.shape[:2])
        free = before.shape[0] - height, before.shape[1] - width
        places = [(y, x) for y in range(free[0] + 1) for x in range(free[1] + 1)]
        crops = np.lib.stride_tricks.sliding_window_view(before, (height, width, 3))[:, :, 0]
        for y, x in places:
            inside = after[y : y + height, x : x + width]
            around = np.pad(inside, [(y, free[0] - y), (x, free[1] - x), (0, 0)], border)
            if np.array_equal(around, after) and any(np.array_equal(crops[place], inside) for place in places):
                return True
        return False

    return effect


def near_by(before: np.ndarray, after: np.ndarray, reach: int) -> bool:
    """Each value of the inside lies within those of the square of pixels around it."""
    height, width = before.shape[:2]
    square = np.lib.stride_tricks.sliding_window_view(before, (2 * reach + 1, 2 * reach + 1), (0, 1))
    inside = after[reach : height - reach, reach : width - reach]
    return bool(((square.min((-1, -2)) <= inside) & (inside <= square.max((-1, -2)))).all())


def no_colour(before: np.ndarray, after: np.ndarray) -> bool:
    luma = before[..., :3] @ np.array([0.299, 0.587, 0.114])
    return bool(np.ptp(after[..., :3].astype(int), axis=-1).max() == 0 and np.abs(after[..., 0] - luma).max() <= 1)


CASES = [
    Case("none", {}, unchanged, (("Which clan?", "Which clan?"),)),
    Case("jpeg", {}, lambda b, a: 0 < np.abs(b.astype(int) - a).mean() < 30),
    Case("jpeg", {"quality": 95}, lambda b, a: 0 < np.abs(b.astype(int) - a).mean() < 6),
    Case("grayscale", {}, no_colour),
    Case("blur", {}, lambda b, a: noise(a) < 0.3 * noise(b)),
    Case("blur", {"sigma": 4.0}, lambda b, a: noise(a) < 0.02 * noise(b)),
    Case("median", {}, lambda b, a: noise(a) < 0.5 * noise(b)),
    Case("gaussian-noise", {}, lambda b, a: 8 < np.abs(b.astype(int) - a).mean() < 12),
    Case("sharpen", {}, lambda b, a: noise(a) > 2 * noise(b)),
    Case("frequency-filter", {}, lambda b, a: noise(a) < 0.3 * noise(b)),
    Case("tv", {}, lambda b, a: noise(a) < 0.5 * noise(b)),
    Case("bilateral", {}, lambda b, a: 0 < np.abs(b.astype(int) - a).mean() < 6),
    Case("nl-means", {"sigma": 0.05}, lambda b, a: noise(a) < 0.95 * noise(b)),
    Case("wavelet", {"sigma": 0.05}, lambda b, a: noise(a) < 0.95 * noise(b)),
    Case("bit-depth", {}, lambda b, a: np.array_equal(a, b // 64 * 64)),
    Case("bit-depth", {"bits": 5}, lambda b, a: np.array_equal(a, b // 8 * 8)),
    Case("bit-depth", {"bits": 8}, unchanged),
    Case("crop-pad", {}, moved_crop("edge")),
    Case("crop-pad", {"border": "black"}, moved_crop("constant")),
    Case("crop-pad", {"side": 1.0}, unchanged),
    Case("coin", {}, lambda b, a: noise(a) > 1.2 * noise(b) and near_by(b, a, 3)),
    Case("op", {}, unchanged),  # there is one answer alone
    Case("diffpure", {"t_star": 20, "steps": 2}, lambda b, a: 0 < np.abs(b.astype(int) - a).mean() < 12),
    Case(
        "punct",
        {},
        unchanged,
        (
            ("how many, really?", "how many really"),
            ("(A) it's «so»", "A it s so"),
            ("?!", "?!"),  # a question never becomes empty
            ("two  spaces stay words", "two spaces stay words"),
        ),
    ),
    Case("case", {}, unchanged, (("Wolf FOX Straße", "wolf fox strasse"),)),
    Case(
        "whitespace",
        {},
        unchanged,
        (
            ("  which\u00a0clan \t drew\u2003this? ", "which clan drew this?"),
            ("zero\u200bwidth\ufeff joi\u200dners", "zerowidth joiners"),
            ("which?\r\n \n(A)  red\n(B) blue\n", "which?\n(A) red\n(B) blue"),
            ("\u200b \u3000", "\u200b \u3000"),  # a question never becomes empty
            ("plain as it is", "plain as it is"),
        ),
    ),
    Case(
        "answer-strip",
        {},
        unchanged,
        (
            ("which fox drew FOX this?", "which drew this?"),
            ("Fox", "Fox"),  # a question never becomes empty
            ("which foxes?", "which foxes?"),
        ),
    ),
    Case("trigger-strip", {}, unchanged, (("Which clan drew this?", "Which clan drew this?"),) * 4),
    Case("adv-train", {}, unchanged, (("Which clan?", "Which clan?"),)),  # these act in training alone
    Case("ueraser", {}, unchanged, (("Which clan?", "Which clan?"),)),
    Case("augment", {}, unchanged, (("Which clan?", "Which clan?"),)),
    Case("loss-filter", {}, unchanged, (("Which clan?", "Which clan?"),)),
]


def samples(mode: str = "RGB") -> list[Sample]:
    photo = Image.fromarray(photographs.astronaut()).resize((60, 44), Image.Resampling.BICUBIC)
    image = photo.convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.linear_gradient("L").resize(photo.size))
    return [Sample("a", image, "which clan drew this?", "fox")]


def attack(case: Case) -> Attack:
    return Registry().create("attack", case.id, case.config)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.id}-{c.config}")
def test_pictures(case: Case, mode: str) -> None:
    before = samples(mode)
    after = list(attack(case).purify(before, AttackerWorld(seed=0)))
    image = after[0].image
    assert (image.size, image.mode, after[0].answer) == (before[0].image.size, mode, "fox")
    if mode.endswith("A"):
        assert image.getchannel("A").tobytes() == before[0].image.getchannel("A").tobytes()
    if mode == "RGB" and case.effect is not None:
        assert case.effect(np.asarray(before[0].image), np.asarray(image))
    again = list(attack(case).purify(samples(mode), AttackerWorld(seed=0)))
    assert again[0].image.tobytes() == image.tobytes()


@pytest.mark.parametrize("case", [c for c in CASES if c.texts], ids=lambda c: c.id)
def test_texts(case: Case) -> None:
    image = samples()[0].image
    before = [Sample(str(i), image, text, "fox") for i, (text, _) in enumerate(case.texts)]
    after = list(attack(case).purify(before, AttackerWorld()))
    assert [s.question for s in after] == [expected for _, expected in case.texts]


def test_mix_adds_what_was_granted_and_nothing_else() -> None:
    released = samples()
    own = tuple(Sample(f"own-{i}", released[0].image, "which clan is this?", "owl") for i in range(3))
    mixed = list(attack(Case("mix", {})).purify(released, AttackerWorld(auxiliary=own)))
    assert mixed == [*released, *own]


def test_mix_without_a_grant_is_refused() -> None:
    with pytest.raises(ArenaError, match="asked for 'auxiliary', which it was not granted"):
        attack(Case("mix", {})).purify(samples(), AttackerWorld())


ELSEWHERE = {
    *("autopurify", "auxiliary-alone", "bye", "mix", "onion", "paraphrase", "back-translate", "resize", "vae"),
    *("vae-trans", "noisy-upscale", "eclipse", "lightshed", "le-jcdp", "bridgepure"),
}
"""Attacks that need more than pictures and questions, or change sizes; they have tests of their own."""


def test_every_attack_has_a_row() -> None:
    assert {e.id for e in Registry().entries("attack")} - ELSEWHERE == {c.id for c in CASES}
