"""uc: one noise for each cluster of pictures, that leads any picture to the next cluster, whatever the answers are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_samples import mixed_samples
from tiny_models import tiny_random_llava
from torch import Tensor

from arena.budget import Budget, colours
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.pixels import to_tensor
from arena.plugins.base import DefenderWorld
from arena.plugins.registry import Registry
from arena.release import build_release
from defenses.generators import fitting
from defenses.uc import Clusters, Seeing, UnlearnableClusters, divergence, k_means, residual_network

QUICK: dict[str, Any] = {"clusters": 3, "epochs": 2, "side": 16, "width": 4, "batch_size": 8}
CRAFTED: dict[str, Any] = {"clusters": 3, "epochs": 20, "learning_rate": 1e-2, "side": 48, "width": 8, "batch_size": 9}


def random_world(seed: int = 0) -> DefenderWorld:
    return DefenderWorld(Budget(image=8), seed, lambda: (tiny_random_llava(),))


def world(seed: int = 0) -> DefenderWorld:
    return DefenderWorld(Budget(image=8), seed, lambda: (Registry().create("model", "tiny-llava").load(),))


def release(samples: Sequence[Sample], granted: DefenderWorld, **config: Any) -> list[Sample]:
    made = Registry().create("defense", "uc", config).protect(samples, granted)
    return build_release(samples, made, granted.budget)


def noise_of(before: Sample, after: Sample) -> np.ndarray:
    return colours(after.image).astype(int) - colours(before.image)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(Glyphs().load(18, 0, 0, seed=1).train)


@pytest.fixture(scope="module")
def clusters(samples: list[Sample]) -> Clusters:
    plugin, granted = UnlearnableClusters(UnlearnableClusters.Config(**CRAFTED)), world()
    return plugin._clusters(samples, plugin._surrogates(granted), 0)


@pytest.fixture(scope="module")
def crafted(samples: list[Sample]) -> list[Sample]:
    return release(samples, world(), **CRAFTED)


@torch.no_grad()
def apart(pictures: Sequence[Tensor], centres: Tensor) -> Tensor:
    """Mean divergence of some pictures from each centre, ``(K,)``."""
    (lvlm,) = world().surrogates()
    found = Seeing(lvlm).pictures(pictures)
    return torch.stack([divergence(found, centre.expand_as(found)).mean() for centre in centres])


def test_neither_answers_nor_questions_are_read() -> None:
    samples = mixed_samples(6)
    turned = [
        replace(s, answer=o.answer, question=f"{o.question} or not?")
        for s, o in zip(samples, [*samples[1:], samples[0]], strict=True)
    ]
    assert [s.answer for s in turned] != [s.answer for s in samples]
    made = [[s.image.tobytes() for s in release(given, random_world(), **QUICK)] for given in (samples, turned)]
    assert made[0] == made[1]
    assert made[0] != [s.image.tobytes() for s in samples]


@pytest.fixture(scope="module")
def noise(samples: list[Sample], crafted: list[Sample], clusters: Clusters) -> list[Tensor]:
    """The noise of each cluster, ``(3, 48, 48)``, where any of its pictures shows it; all that do show the same."""
    made = []
    for kind in range(clusters.count):
        members = [i for i, other in enumerate(clusters.of_sample) if other == kind]
        several = np.stack([noise_of(samples[i], crafted[i]) for i in members])
        free = np.stack([(colours(samples[i].image) > 8) & (colours(samples[i].image) < 247) for i in members])
        whole = np.where(free, several, 0).sum(0) / free.sum(0).clip(1)
        assert (np.abs(several - whole)[free] < 1).all()
        made.append(torch.from_numpy(whole).permute(2, 0, 1).float() / 255)
    return made


def test_the_noise_of_a_cluster_leads_any_picture_to_the_next_one_and_no_other_noise_as_near(
    samples: list[Sample], clusters: Clusters, noise: list[Tensor]
) -> None:
    """Also pictures of other clusters; and what is led to the cluster itself, or beyond the next, does not count."""
    pictures = [to_tensor(s.image) for s in samples]
    (centres,) = clusters.centres
    clean = apart(pictures, centres)
    under = torch.stack([apart([(x + one).clamp(0, 1) for x in pictures], centres) for one in noise])
    for kind in range(3):
        aim = (kind + 1) % 3
        assert under[kind, aim] < clean[aim]
        assert under[:, aim].argmin() == kind


def test_pictures_come_nearer_to_the_next_cluster(
    samples: list[Sample], crafted: list[Sample], clusters: Clusters
) -> None:
    plugin = UnlearnableClusters(UnlearnableClusters.Config(**CRAFTED))
    assert plugin.distinguished(samples, crafted, world()) is None
    assert plugin.distinguished(samples, samples, world()) is not None
    (centres,) = clusters.centres
    for kind in range(3):
        members = [i for i, other in enumerate(clusters.of_sample) if other == kind]
        before, after = (apart([to_tensor(s[i].image) for i in members], centres) for s in (samples, crafted))
        assert after[(kind + 1) % 3] < before[(kind + 1) % 3]


def test_clusters_are_those_of_the_least_spread_and_none_is_empty() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(middle, 0.1, (8, 4)) for middle in (0, 3, 6)]).astype(np.float32)
    for seed in range(5):
        labels = k_means(rows, 3, seed)
        assert [len(set(labels[at : at + 8].tolist())) for at in (0, 8, 16)] == [1, 1, 1]
        assert sorted(set(labels.tolist())) == [0, 1, 2]
        assert (labels == k_means(rows, 3, seed)).all()
    assert set(k_means(rows[[0, 0, 0, 1]], 10, 0).tolist()) == {0, 1}
    assert set(k_means(rows[[0, 0]], 10, 0).tolist()) == {0}


def test_copies_are_in_one_cluster_and_there_are_no_more_clusters_than_pictures() -> None:
    first, second, third = mixed_samples(4)[0], mixed_samples(4)[3], mixed_samples(2)[1]
    small = first.image.resize((8, 8)).resize((48, 48), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=95, subsampling=0)
    pictures = (small, second.image, small.copy(), third.image, Image.open(buffer))
    given = [Sample(str(i), x, "what?", str(i)) for i, x in enumerate(pictures)]
    plugin = UnlearnableClusters(UnlearnableClusters.Config(copies="near", **{**QUICK, "clusters": 10}))
    found = plugin._clusters(given, plugin._surrogates(random_world()), 0)
    assert found.count == 3 and found.pictures == [0, 1, 3]
    assert found.of_sample[0] == found.of_sample[2] == found.of_sample[4]
    assert len(set(found.of_sample)) == 3
    with pytest.raises(ArenaError, match="uc: all pictures look alike"):
        plugin._clusters([given[0], given[2]], plugin._surrogates(random_world()), 0)


def test_noise_fits_pictures_of_any_size_and_mode() -> None:
    given = mixed_samples(5)
    released = release(given, random_world(), **QUICK)
    for before, after in zip(given, released, strict=True):
        assert (after.image.size, after.image.mode) == (before.image.size, before.image.mode)
        assert 0 < np.abs(noise_of(before, after)).max() <= 8
    noise = torch.arange(12.0).view(3, 2, 2)
    assert torch.equal(fitting(noise, torch.zeros(3, 4, 6)), noise.repeat_interleave(2, 1).repeat_interleave(3, 2))
    assert torch.equal(fitting(noise, torch.zeros(1, 2, 2)), noise.mean(0, keepdim=True))


def test_divergence_is_from_what_is_wanted() -> None:
    found, wanted = torch.randn(3, 5), torch.randn(3, 5)
    p, q = wanted.softmax(1), found.softmax(1)
    torch.testing.assert_close(divergence(found, wanted), (p * (p / q).log()).sum(1))
    assert divergence(wanted, wanted).abs().max() < 1e-6


@pytest.mark.parametrize("width", [3, 4])
def test_a_generator_gives_noise_of_its_size(width: int) -> None:
    made = residual_network(width)(torch.rand(1, 3, 20, 20))
    assert made.shape == (1, 3, 20, 20)
    assert made.abs().max() <= 1
