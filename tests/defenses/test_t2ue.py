"""t2ue: noise that a generator makes of a sample's text alone, once it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_samples import mixed_samples
from tiny_models import tiny_random_llava

from arena.budget import Budget, colours
from arena.data.copies import shared
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.kit.material import plain
from arena.lvlm.base import LVLM
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.t2ue import Generator, TextNorm, Texts, TextToUnlearnable, embeddings

QUICK: dict[str, Any] = {"epochs": 8, "blocks": 3, "width": 4}


def world(seed: int = 0, workspace: Path | None = None) -> DefenderWorld:
    return DefenderWorld(Budget(image=8), seed, lambda: (tiny_random_llava(),), workspace=workspace)


def release(samples: Sequence[Sample], granted: DefenderWorld, **config: Any) -> list[Sample]:
    made = Registry().create("defense", "t2ue", {**QUICK, **config}).protect(samples, granted)
    return build_release(samples, made, granted.budget)


def noise_of(before: Sample, after: Sample) -> np.ndarray:
    return colours(after.image).astype(int) - colours(before.image)


def grey(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with flat pictures of a brightness each: nothing is cut off."""
    return [s.with_content(Image.new("RGB", (48, 48), (100 + i,) * 3), s.question) for i, s in enumerate(samples)]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return plain(15, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def crafted(samples: list[Sample], folder: Path) -> list[Sample]:
    return release(samples, world(workspace=folder))


@pytest.fixture(scope="module")
def kept(crafted: list[Sample], folder: Path) -> str:
    return str(folder / "trained")


def test_other_pictures_with_the_texts_get_the_noise_and_no_model_sees_them(
    samples: list[Sample], crafted: list[Sample], kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: LVLM, images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        raise AssertionError("a model was shown a picture")

    other = grey(samples)
    monkeypatch.setattr(type(tiny_random_llava()), "pixel_inputs", refused)
    again = release(other, world(seed=5), reuse=kept)
    by_text: dict[tuple[str, str], np.ndarray] = {}
    for before, after, gray, made in zip(samples, crafted, other, again, strict=True):
        noise = noise_of(gray, made)
        assert (noise == noise_of(before, after)).all()
        assert (noise == by_text.setdefault((gray.question, gray.answer), noise)).all()
    assert len(by_text) > 1
    assert len({noise.tobytes() for noise in by_text.values()}) == len(by_text)


def test_noise_follows_the_text_of_a_sample_and_not_its_place(samples: list[Sample], kept: str) -> None:
    turned = list(reversed(samples))
    there = {s.id: noise_of(a, s) for a, s in zip(samples, release(samples, world(), reuse=kept), strict=True)}
    for before, after in zip(turned, release(turned, world(), reuse=kept), strict=True):
        assert (noise_of(before, after) == there[before.id]).all()


@torch.no_grad()
def test_an_answer_costs_least_under_the_noise_of_its_own_text(samples: list[Sample], crafted: list[Sample]) -> None:
    """Noise that read no text would lower all losses alike."""
    lvlm = tiny_random_llava()
    noise = {s.answer: noise_of(s, made) for s, made in zip(samples, crafted, strict=True)}

    def loss(answer: str, under: str) -> float:
        shown = [
            s.with_content(Image.fromarray((np.asarray(s.image) + noise[under]).astype(np.uint8)), s.question)
            for s in samples
            if s.answer == answer
        ]
        return float(lvlm.losses(lvlm.encode(shown)).mean())

    gained = [loss(a, b) - loss(a, a) for a in noise for b in noise if a != b]
    assert len(noise) == 3 and np.mean(gained) > 0
    clean = float(lvlm.losses(lvlm.encode(samples)).mean())
    assert float(lvlm.losses(lvlm.encode(crafted)).mean()) < clean


def test_the_claim_is_of_one_noise_for_one_text(samples: list[Sample], crafted: list[Sample]) -> None:
    plugin = TextToUnlearnable(TextToUnlearnable.Config(**QUICK))
    assert plugin.distinguished(samples, crafted, world()) is None
    moved = [
        s.with_content(Image.fromarray((np.asarray(s.image).astype(int) + 2 * (i % 2)).astype(np.uint8)), s.question)
        for i, s in enumerate(crafted)
    ]
    assert "have one question and answer" in str(plugin.distinguished(samples, moved, world()))
    assert "it should be lower" in str(plugin.distinguished(samples, samples, world()))


def test_the_embedding_is_of_the_answer_after_the_question_and_of_no_neighbour() -> None:
    lvlm = tiny_random_llava()
    given = mixed_samples(3)
    found = embeddings(lvlm, given)
    torch.testing.assert_close(found.square().mean(1), torch.ones(3))
    for place, sample in enumerate(given):
        torch.testing.assert_close(embeddings(lvlm, [sample])[0], found[place])
    asked = embeddings(lvlm, [given[0].with_content(given[0].image, given[1].question)])[0]
    answered = embeddings(lvlm, [Sample("x", given[0].image, given[0].question, given[1].answer)])[0]
    assert not torch.allclose(asked, found[0], atol=1e-3) and not torch.allclose(answered, found[0], atol=1e-3)


def test_a_picture_with_several_texts_has_the_mean_of_their_embeddings() -> None:
    one, other, third = mixed_samples(3)
    given = [one, third, Sample("copy", one.image, other.question, other.answer)]
    lvlm = tiny_random_llava()
    texts = Texts(given, shared(given, near=False), lvlm, 2)
    each = embeddings(lvlm, given)
    torch.testing.assert_close(texts[[0, 1]], torch.stack([(each[0] + each[2]) / 2, each[1]]))
    released = release(given, world(), epochs=1)
    assert (noise_of(given[0], released[0]) == noise_of(given[2], released[2])).all()


def test_a_generator_of_other_settings_or_a_damaged_one_is_refused(samples: list[Sample], kept: str) -> None:
    with pytest.raises(ArenaError, match="made with other settings or surrogates"):
        release(samples, world(), reuse=kept, width=5)


def test_a_generator_that_diverges_protects_nothing(samples: list[Sample]) -> None:
    with pytest.raises(ArenaError, match="is NaN or infinite"):
        release(samples, world(), learning_rate=1e30)


def test_noise_fits_pictures_of_any_size_and_mode_and_a_single_one() -> None:
    given = mixed_samples(5)
    for some in (given, given[:1]):
        for before, after in zip(some, release(some, world(), epochs=2), strict=True):
            assert (after.image.size, after.image.mode) == (before.image.size, before.image.mode)
            assert 0 < np.abs(noise_of(before, after)).max() <= 8


@pytest.mark.parametrize(("blocks", "side"), [(3, 16), (5, 64), (7, 256)])
def test_a_generator_doubles_the_side_with_each_block(blocks: int, side: int) -> None:
    made = Generator(12, blocks, 2)(torch.randn(2, 100), torch.randn(2, 12))
    assert made.shape == (2, 3, side, side) and made.abs().max() <= 1
    assert Generator(12, 7, 64).first.out_features == 4 * 4 * 512  # the paper's


def test_a_text_scales_and_shifts_what_is_normalised() -> None:
    norm = TextNorm(3, 6)
    x, texts = torch.randn(4, 3, 5, 5) * 2 + 1, torch.randn(4, 6)
    whole = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x, texts), whole)  # scale 1 and shift 0 at first
    with torch.no_grad():
        for weights in norm.parameters():
            weights.normal_()
    gamma, beta = norm.scale(texts), norm.shift(texts)
    torch.testing.assert_close(norm(x, texts), gamma[..., None, None] * whole + beta[..., None, None])
    assert not torch.allclose(gamma[0], gamma[1])
