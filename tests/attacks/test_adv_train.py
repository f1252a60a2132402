"""Adversarial training: its pictures, what it leaves alone, and what a model trained so has learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hooked import dropping, hooks, train
from tiny_models import tiny_random_llava

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.base import LVLM
from arena.plugins.base import TrainingHooks
from arena.plugins.registry import Registry
from arena.recipes.training import fine_tune, held_out_split, load_epoch, tuned_model
from attacks.training.adv_train import AdversarialHooks
from attacks.training.inner import at_rest


@pytest.mark.parametrize("epsilon", [4, 8])
def test_perturbed_pictures_stay_in_the_ball_and_raise_the_loss(epsilon: int, unequal: list[Sample]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(unequal)
    attack: AdversarialHooks = hooks("adv-train", epsilon=epsilon, step=epsilon / 4)
    perturbed = attack.perturb(lvlm, batch)
    assert [x.shape for x in perturbed] == [x.shape for x in batch.images]
    for x, clean in zip(perturbed, batch.images, strict=True):
        assert x.min() >= 0 and x.max() <= 1
        assert 0.9 * epsilon / 255 < (x - clean).abs().max() <= epsilon / 255 + 1e-6
    assert all(p.grad is None for p in lvlm.model.parameters())
    start = hooks("adv-train", epsilon=epsilon, step=1e-6, steps=1).perturb(lvlm, batch)
    clean_loss, noise_loss, worst_loss = (
        lvlm.loss(lvlm.with_images(batch, images)).item() for images in (batch.images, start, perturbed)
    )
    assert worst_loss > noise_loss + 5 * abs(noise_loss - clean_loss)


def test_the_random_start_fills_the_ball_and_follows_the_seed(glyphs: tuple[Sample, ...]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(glyphs[:4])

    def start(seed: int) -> torch.Tensor:
        images = hooks("adv-train", seed, epsilon=8, step=1e-6, steps=1).perturb(lvlm, batch)
        return torch.stack(images) - torch.stack(batch.images)

    assert torch.equal(start(0), start(0)) and not torch.equal(start(0), start(1))
    assert start(0).std() == pytest.approx(8 / 255 / 3**0.5, rel=0.1)  # of a uniform draw


def test_a_step_is_a_quarter_of_the_radius_where_there_are_ten() -> None:
    for epsilon in (2, 4, 8):
        assert hooks("adv-train", epsilon=epsilon).step == pytest.approx(epsilon / 4 / 255)
    assert hooks("adv-train", epsilon=8, steps=4).step == pytest.approx(5 / 255)
    assert hooks("adv-train", epsilon=8, steps=4, step=1).step == pytest.approx(1 / 255)


def test_the_worst_pictures_are_those_of_the_model_without_dropout(glyphs: tuple[Sample, ...]) -> None:
    lvlm = dropping()
    batch, before = lvlm.encode(glyphs[:4]), {n: p.detach().clone() for n, p in lvlm.model.named_parameters()}
    learning = {n for n, p in lvlm.model.named_parameters() if p.requires_grad}
    assert lvlm.loss(batch) != lvlm.loss(batch)
    state = torch.get_rng_state()
    found = [hooks("adv-train", epsilon=8, steps=3).perturb(lvlm, batch) for _ in range(2)]
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))
    assert torch.equal(torch.get_rng_state(), state), "training would go on with other random numbers"
    undropped = dropping(dropout=0.0)
    undropped.model.load_state_dict(lvlm.model.state_dict())
    other = hooks("adv-train", epsilon=8, steps=3).perturb(undropped, batch)
    assert all((x - y).abs().max() < 1e-6 for x, y in zip(found[0], other, strict=True))
    assert all(module.training for module in lvlm.model.modules())
    assert all(torch.equal(p, before[n]) for n, p in lvlm.model.named_parameters())
    assert {n for n, p in lvlm.model.named_parameters() if p.requires_grad} == learning


def test_the_number_of_steps_changes_nothing_of_training_but_the_pictures(
    glyphs: tuple[Sample, ...], tmp_path: Path
) -> None:
    def weights(steps: int) -> bytes:  # under a radius that no float of a picture can show
        attack = hooks("adv-train", epsilon=1e-9, steps=steps)
        return train(glyphs, tmp_path / str(steps), attack, dropout=0.5, epochs=1)

    assert weights(1) == weights(3)


def test_layers_that_recompute_to_save_memory_do_so_in_the_inner_maximisation() -> None:
    lvlm = dropping()
    lvlm.model.gradient_checkpointing_enable()
    layer = lvlm.module(lvlm.language_model).layers[0]
    with at_rest(lvlm):
        assert layer.training and not layer.self_attn.q_proj.lora_dropout["default"].training


ROBUST = [("lora", {}), ("lora", {"modules": "all"}), ("full", {})]
"""Recipes under which adversarial training learns."""


@pytest.mark.parametrize(("id", "config"), ROBUST, ids=str)
def test_adversarial_loss_after_adversarial_training_is_lower_than_after_plain(
    id: str, config: dict[str, object], glyphs: tuple[Sample, ...], tmp_path: Path
) -> None:
    recipe = Registry().create("recipe", id, {"epochs": 24, "batch_size": 8, **config})
    training, _ = held_out_split(glyphs, 0)

    def tiny_llava() -> LVLM:  # a model that looks at pictures: an untrained one learns to answer without
        return Registry().create("model", "tiny-llava", {}).load()

    def adversarial_loss(attack: TrainingHooks | None, folder: Path) -> float:
        history = fine_tune(tiny_llava(), recipe, glyphs, 0, folder, attack)
        tuned = tuned_model(tiny_llava(), recipe, 0)
        load_epoch(tuned, folder, len(history.epochs) - 1)
        tuned.model.eval()
        return hooks("adv-train", 9, epsilon=4, step=1, steps=6).loss(tuned, tuned.encode(training), 0.0).item()

    plain = adversarial_loss(None, tmp_path / "plain")
    hardened = adversarial_loss(hooks("adv-train", epsilon=4, step=2, steps=3), tmp_path / "hardened")
    assert hardened < 0.8 * plain


@pytest.mark.parametrize("frozen", [True, False])
def test_a_model_without_a_gradient_to_the_pictures_is_refused(
    frozen: bool, glyphs: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    lvlm = tiny_random_llava()
    lvlm.model.requires_grad_(not frozen)
    pipeline = lvlm.pixel_inputs
    monkeypatch.setattr(lvlm, "pixel_inputs", lambda images: {k: v.detach() for k, v in pipeline(images).items()})
    with pytest.raises(ArenaError, match="adv-train: no gradient reaches the pictures"):
        hooks("adv-train", steps=1).loss(lvlm, lvlm.encode(glyphs[:2]), 0.0)
