"""Features of frozen parts: computed once a picture, never taken for those of another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_random_llava

from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.lvlm import features
from arena.lvlm.base import LVLM, images_of
from arena.lvlm.batch import Batch
from arena.lvlm.features import Features, Remembered, frozen_pictures
from arena.plugins.base import TrainingHooks
from arena.plugins.registry import Registry
from arena.recipes.training import fine_tune

RECIPES = {"lora": True, "dora": True, "qlora": True, "projector": False, "projector-lora": False, "full": False}
"""Whether a recipe leaves alone what pictures go through before the language model."""


@pytest.fixture(scope="module")
def samples() -> tuple[Sample, ...]:
    return Glyphs().load(16, 0, 0, seed=3).train


def tuned(id: str) -> LVLM:
    return Registry().create("recipe", id).prepare(tiny_random_llava())


def passes(lvlm: LVLM) -> list[int]:
    """How many pictures each pass of the vision tower has, from now on."""
    seen: list[int] = []
    lvlm.module(lvlm.vision_tower).register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    return seen


def known(lvlm: LVLM, batch: Batch, kept: Features, indices: list[int]) -> Batch:
    return replace(batch, features=Remembered.of(kept, indices, batch.pixels))


@pytest.mark.parametrize("id", RECIPES)
def test_only_features_that_cannot_change_are_remembered(id: str) -> None:
    assert frozen_pictures(tuned(id)) is RECIPES[id]


def test_a_tower_that_drops_at_random_is_not_remembered() -> None:
    lvlm = tuned("lora")
    lvlm.module(lvlm.vision_tower).encoder.layers[0].self_attn.dropout = 0.1
    assert not frozen_pictures(lvlm)


def test_each_picture_is_looked_at_once(samples: tuple[Sample, ...]) -> None:
    lvlm, kept = tuned("lora"), Features()
    batch = lvlm.encode(samples)
    plain = lvlm.losses(batch)
    seen = passes(lvlm)
    first = lvlm.losses(known(lvlm, batch, kept, list(range(16))))
    again = lvlm.losses(known(lvlm, batch, kept, list(range(16))))
    part = lvlm.encode([samples[i] for i in (9, 2, 5)])
    mixed = lvlm.losses(known(lvlm, part, kept, [9, 2, 5]))
    assert seen == [16]
    assert torch.equal(first, plain) and torch.equal(again, plain)
    torch.testing.assert_close(mixed, plain[[9, 2, 5]])


def test_other_pictures_in_a_batch_have_features_of_their_own(samples: tuple[Sample, ...]) -> None:
    lvlm, kept = tuned("lora"), Features()
    batch = known(lvlm, lvlm.encode(samples), kept, list(range(16)))
    before = lvlm.losses(batch)
    others = [1 - x for x in images_of(samples)]
    expected = lvlm.losses(lvlm.encode(samples, others))
    assert torch.equal(lvlm.losses(lvlm.with_images(batch, others)), expected)
    assert torch.equal(lvlm.losses(replace(batch, pixels=lvlm.pixel_inputs(others))), expected)
    assert torch.equal(lvlm.losses(batch), before) and not torch.equal(before, expected)


def test_no_more_is_kept_than_is_allowed(samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    lvlm, kept = tuned("lora"), Features()
    batch = lvlm.encode(samples)
    one = sum(x.numel() * 4 for x in lvlm.module("model").get_image_features(**batch.pixels).pooler_output) // 16
    monkeypatch.setattr(features, "KEPT", 3 * one)
    plain, seen = lvlm.losses(batch), passes(lvlm)
    for _ in range(2):
        assert torch.equal(lvlm.losses(known(lvlm, batch, kept, list(range(16)))), plain)
    assert (len(kept.of), kept.kept, seen) == (3, 3 * one, [16, 16])


def test_a_training_runs_the_tower_once_a_sample(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    recipe = Registry().create("recipe", "lora", {"epochs": 3, "batch_size": 4})
    lvlm = tiny_random_llava()
    seen = passes(lvlm)
    fine_tune(lvlm, recipe, samples, 0, tmp_path / "plain")
    assert sum(seen) == 16
    hooked = tiny_random_llava()
    seen = passes(hooked)
    fine_tune(hooked, recipe, samples, 0, tmp_path / "hooked", TrainingHooks())  # they may change pictures
    assert sum(seen) == 3 * 16
    for path in (tmp_path / "plain").iterdir():
        assert path.read_bytes() == (tmp_path / "hooked" / path.name).read_bytes()
