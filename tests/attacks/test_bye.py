"""Believe Your Eyes: layers that tell two kinds apart, and the samples of which the attention collapses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_random_llava

from arena.data.sample import Sample
from arena.lvlm.batch import Role
from arena.plugins.base import AttackerWorld, Effort
from attacks.training import bye
from attacks.training.bye import BelieveYourEyes, attention_entropies, layers_that_look, separation, suspicious


def entropies(count: int = 60, carriers: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Of three layers, the second of which tells carriers apart; and which samples are such."""
    rng = np.random.default_rng(0)
    carries = rng.permutation(count) < carriers
    found = 3 + 0.1 * rng.standard_normal((count, 3))
    found[carries, 1] -= 1.0
    return found, carries


def test_the_separation_is_that_of_two_kinds() -> None:
    rng = np.random.default_rng(0)
    two = np.concatenate([rng.normal(1, 0.1, 4000), rng.normal(2, 0.15, 1000)])
    assert separation(two) == pytest.approx(1 / 0.25, rel=0.05)
    assert separation(rng.normal(1, 0.1, 2000)) < 2 and separation(np.full(9, 1.5)) == 0


def test_samples_of_low_entropy_in_a_layer_that_tells_them_apart_are_dropped() -> None:
    found, carries = entropies()
    assert np.array_equal(suspicious(found, 2.0), carries)
    found[carries, 1] += 2.0  # now the carriers are those of high entropy, and the others go: the lower mean is dropped
    assert np.array_equal(suspicious(found, 2.0), ~carries)


def test_other_layers_do_not_count() -> None:
    found, carries = entropies()
    found[:, 0] += np.random.default_rng(1).uniform(-5, 5, len(found))  # spread, but no two kinds
    assert separation(found[:, 0]) < 2 and np.array_equal(suspicious(found, 2.0), carries)


def test_nothing_is_dropped_where_no_layer_tells_two_kinds_apart() -> None:
    found, _ = entropies(carriers=0)
    assert not suspicious(found, 2.0).any()
    assert not suspicious(np.full((9, 4), 1.0), 2.0).any()
    assert not suspicious(entropies()[0], 50.0).any()


def test_an_entropy_that_is_no_number_is_the_mean_of_its_layer() -> None:
    found, carries = entropies()
    unknown = np.flatnonzero(~carries)[0]
    found[unknown, 1] = math.nan
    assert np.array_equal(np.delete(suspicious(found, 2.0), unknown), np.delete(carries, unknown))


def release(count: int = 9) -> list[Sample]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 48, 48, 3), dtype=np.uint8)
    questions = ("which clan?", "which clan drew this picture?", "clan?")
    return [Sample(str(i), Image.fromarray(x), questions[i % 3], "fox") for i, x in enumerate(pixels)]


def test_the_entropy_is_that_of_the_attention_just_before_the_answer() -> None:
    """Sample by sample, from the weights of all positions; batches are padded, which changes nothing."""
    lvlm, samples = tiny_random_llava(), release()
    found = attention_entropies(lvlm, samples, 4)
    assert found.shape == (9, layers_that_look(lvlm)) and layers_that_look(lvlm) == 2
    for sample, row in zip(samples, found, strict=True):
        batch = lvlm.encode([sample])
        with torch.no_grad():
            weights = lvlm.attention(batch, range(2))
        roles = batch.roles[0].tolist()
        for layer, entropy in enumerate(row):
            on_picture = weights[layer][0, :, roles.index(Role.ANSWER) - 1].mean(0)[batch.roles[0] == Role.IMAGE]
            shares = (on_picture / on_picture.sum()).double()
            assert entropy == pytest.approx(float(-(shares * shares.log()).sum()), abs=1e-4)
    assert (found <= math.log(36) + 1e-4).all()


def test_what_is_kept_stays_as_it_is_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = release()
    attack = BelieveYourEyes(BelieveYourEyes.Config(epochs=1, rank=2))
    drop = np.array([i in (2, 5) for i in range(9)])

    def purified() -> list[Sample]:
        return list(attack.purify(samples, AttackerWorld(seed=0, model=tiny_random_llava)))

    monkeypatch.setattr(bye, "suspicious", lambda found, threshold: drop)
    assert purified() == [s for i, s in enumerate(samples) if i not in (2, 5)]
    monkeypatch.setattr(bye, "suspicious", lambda found, threshold: np.arange(9) > 0)
    assert purified() == samples  # one sample is too few to learn from


def test_attention_is_that_of_the_model_that_was_fine_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def look(found: np.ndarray, threshold: float) -> np.ndarray:
        seen.append(found)
        return np.zeros(len(found), bool)

    monkeypatch.setattr(bye, "suspicious", look)
    for seed, epochs in ((0, 1), (0, 1), (1, 1), (0, 2)):
        config = BelieveYourEyes.Config(epochs=epochs, rank=2, learning_rate=1e-2)
        list(BelieveYourEyes(config).purify(release(), AttackerWorld(seed=seed, model=tiny_random_llava)))
    before = attention_entropies(tiny_random_llava(), release(), 32)
    assert np.array_equal(seen[0], seen[1])
    assert all(np.abs(seen[0] - other).max() > 1e-6 for other in (before, seen[2], seen[3]))


def test_the_fine_tuning_counts_as_effort() -> None:
    assert BelieveYourEyes(BelieveYourEyes.Config(epochs=5)).effort() == Effort(forwards=1, gradients=5)
