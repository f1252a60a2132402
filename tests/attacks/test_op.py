"""Orthogonal projection: what a linear probe tells answers by is gone, and little else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from arena.budget import Budget, colours
from arena.data.sample import Sample
from arena.plugins.base import AttackerWorld, DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from attacks.image import op
from attacks.image.op import OrthogonalProjection, Projection, averaged, averages, grid_of

ANSWERS = ("fox", "owl", "bear", "wolf")


def pictures(count: int, sizes: Sequence[tuple[int, ...]] = ((16, 16, 3),), answers: int = 4) -> list[Sample]:
    """Pictures that say nothing of their answers: slopes and blobs at random, with noise."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        shape = sizes[i % len(sizes)]
        height, width = shape[:2]
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        a, b, c, d = rng.uniform(-1, 1, 4)
        scene = 128 + 50 * (a * x + b * y) + 40 * np.exp(-((x - c) ** 2 + (y - d) ** 2) * 8)
        values = (scene[..., None] if len(shape) == 3 else scene) + rng.normal(0, 8, shape)
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
        answer = ANSWERS[i % 4] if answers == 4 else f"name {i % answers}"
        found.append(Sample(str(i), image, "which clan?", answer))
    return found


def lsp(samples: Sequence[Sample]) -> list[Sample]:
    budget = Budget(norm="linf", image=8)
    drafts = Registry().create("defense", "lsp").protect(samples, DefenderWorld(budget, 0))
    return build_release(samples, drafts, budget, None)


def projected(samples: Sequence[Sample], **config: float) -> list[Sample]:
    return list(OrthogonalProjection(OrthogonalProjection.Config(**config)).purify(samples, AttackerWorld()))


def told(samples: Sequence[Sample]) -> float:
    """How many of the pictures that it has not seen a linear probe tells the answer of."""
    x = np.stack([colours(s.image).ravel() / 255 for s in samples])
    answers, half = [s.answer for s in samples], len(samples) // 2
    learner = LogisticRegression(max_iter=1000).fit(x[:half], answers[:half])
    return float(learner.score(x[half:], answers[half:]))


def error(samples: Sequence[Sample], others: Sequence[Sample]) -> float:
    """Root mean square difference in levels."""
    differences = [colours(a.image).astype(float) - colours(b.image) for a, b in zip(samples, others, strict=True)]
    return float(np.sqrt(np.mean([np.square(d).mean() for d in differences])))


def test_a_probe_no_more_tells_the_answers_of_what_lsp_released() -> None:
    clean = pictures(200)
    release = lsp(clean)
    made = projected(release)
    assert told(clean) < 0.4 and told(release) > 0.9  # of four answers: a quarter is chance
    assert told(made) < 0.4
    assert error(made, clean) < error(release, clean)
    assert [(s.id, s.question, s.answer) for s in made] == [(s.id, s.question, s.answer) for s in release]
    assert [s.image.tobytes() for s in projected(release)] == [s.image.tobytes() for s in made]


def test_the_pattern_of_a_class_is_what_goes() -> None:
    """Of a pattern that is known, and no more of the picture than there are directions."""
    clean, rng = pictures(200), np.random.default_rng(1)
    patterns = 6 * rng.choice([-1, 1], (4, 16, 16, 3))
    release = [
        s.with_content(
            Image.fromarray(np.clip(np.asarray(s.image, int) + patterns[i % 4], 0, 255).astype(np.uint8)), ""
        )
        for i, s in enumerate(clean)
    ]
    for mine, before, after in zip((patterns[i % 4] for i in range(200)), release, projected(release), strict=True):
        change = (np.asarray(after.image, float) - np.asarray(before.image)).ravel()
        apart = (mine - patterns.mean(0)).ravel()  # what all classes have in common tells nothing
        assert -1.3 < change @ apart / (apart @ apart) < -0.7


def test_pictures_of_several_sizes_and_modes() -> None:
    """The pattern scales with the picture: four by four cells, brighter or darker."""
    sizes: list[tuple[int, ...]] = [(16, 16, 3), (32, 24, 3), (20, 20), (16, 16, 4)]
    clean, signs = pictures(240, sizes), np.random.default_rng(1).choice([-1, 1], (2, 4, 4))

    def pattern(sample: Sample, cells: np.ndarray) -> np.ndarray:
        return np.kron(cells, np.ones((sample.image.height // 4, sample.image.width // 4)))

    release = []
    for i, s in enumerate(clean):
        x, number = np.asarray(s.image, int).copy(), (i // 4) % 2
        planes = x[..., None] if x.ndim == 2 else x[..., :3]
        planes += 8 * pattern(s, signs[number]).astype(int)[..., None]
        release.append(Sample(s.id, Image.fromarray(np.clip(x, 0, 255).astype(np.uint8)), s.question, ANSWERS[number]))
    made = projected(release)
    for before, after in zip(release, made, strict=True):
        assert (after.image.size, after.image.mode) == (before.image.size, before.image.mode)
        if before.image.mode == "RGBA":
            assert after.image.getchannel("A").tobytes() == before.image.getchannel("A").tobytes()

    def apart(samples: Sequence[Sample]) -> float:
        """How much of what sets the patterns apart stands between the classes, of 1."""
        found: list[list[float]] = [[], []]
        for i, s in enumerate(samples):
            direction = 8 * pattern(s, signs[1] - signs[0])
            x = colours(s.image).astype(float).mean(2)
            found[(i // 4) % 2].append(float((x * direction).sum() / np.square(direction).sum()))
        return float(np.mean(found[1]) - np.mean(found[0]))

    assert 0.7 < apart(release) < 1.3 and abs(apart(made)) < 0.4


def test_what_is_projected_has_nothing_left_along_the_probe() -> None:
    """At sizes between which the grid's cells overlap, for grey and colour, to what 8 bits round."""
    weights = np.random.default_rng(0).normal(size=(5, 3, 6, 7))
    remove = Projection(weights)
    for shape in ((6, 7, 3), (13, 9, 3), (30, 31), (4, 5, 3)):
        x = np.random.default_rng(1).integers(90, 166, shape, dtype=np.uint8)
        image = remove(Image.fromarray(x))
        left = [weights.reshape(5, -1) @ averaged(op.values(i), (6, 7)).ravel() for i in (image, Image.fromarray(x))]
        assert np.abs(left[0]).max() < 0.03 * np.abs(left[1]).max()
        again = np.asarray(remove(image), int) - np.asarray(image, int)
        assert np.abs(again).max() <= 1  # a projection: twice is once


def test_averages_are_means_and_the_identity_where_sizes_are_equal() -> None:
    assert np.array_equal(averages(5, 5), np.eye(5))
    assert np.allclose(averages(7, 3) @ np.ones(7), 1) and np.allclose(averages(2, 5) @ np.ones(2), 1)
    assert np.allclose(averages(6, 2), np.kron(np.eye(2), np.ones((1, 3)) / 3))


def test_the_grid_is_the_median_size_and_no_larger_than_allowed() -> None:
    assert grid_of([(40, 30), (40, 30), (400, 90)], 224) == (30, 40)
    assert grid_of([(4000, 1000)], 224) == (56, 224) and grid_of([(4000, 1)], 224) == (1, 224)


@pytest.mark.parametrize("answers", [100])
def test_many_answers_make_classes(answers: int) -> None:
    release = pictures(120, answers=answers)
    made = projected(release)
    assert len(made) == 120 and error(made, release) > 0


def test_nothing_to_tell_and_nothing_to_keep() -> None:
    alone = [Sample(str(i), s.image, s.question, "fox") for i, s in enumerate(pictures(6))]
    assert projected(alone) == alone
    tiny = [*pictures(12), Sample("pixel", Image.new("L", (1, 1), 200), "which clan?", "owl")]
    assert projected(tiny)[-1].image.tobytes() == tiny[-1].image.tobytes()


def test_it_learns_from_a_part_of_many_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    release = lsp(pictures(240))
    monkeypatch.setattr(op, "MOST", 150)
    monkeypatch.setattr(op, "COLUMNS", 100)
    made = projected(release)
    assert len(made) == 240 and told(made) < 0.5 < told(release)
