"""Attacks inside fine-tuning: what each does to the loss of a step, and what a model trained so has learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_random_llava

from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.engine.plan import plan
from arena.engine.worker import run_task
from arena.errors import ArenaError, UsageError
from arena.lvlm.base import LVLM
from arena.lvlm.batch import IGNORE, Batch
from arena.plugins.base import AttackerWorld, TrainingHooks
from arena.plugins.registry import Registry
from arena.recipes.training import fine_tune, held_out_split, load_epoch, tuned_model
from arena.store.local import Store
from arena.suites.schema import Suite
from attacks.training.adv_train import AdversarialHooks
from attacks.training.loss_filter import FilteringHooks
from attacks.training.ueraser import UEraserHooks, worst

QUICK: dict[str, dict[str, object]] = {
    "adv-train": {"steps": 2},
    "ueraser": {"draws": 2, "share": 0.5},
    "loss-filter": {"watch": 0.5},
}


@pytest.fixture(scope="module")
def samples() -> tuple[Sample, ...]:
    return Glyphs().load(24, 0, 0, seed=3).train


@pytest.fixture(scope="module")
def mixed() -> list[Sample]:
    """Two pictures of one size, and others of sizes and modes of their own."""
    rng = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(48, 48, 3), (40, 64), (33, 70, 4), (48, 48, 3), (5, 3, 3)]
    return [
        Sample(str(i), Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)), "which clan?", answer)
        for i, (shape, answer) in enumerate(zip(shapes, ("red", "two", "red", "star", "two"), strict=True))
    ]


def hooks(name: str, seed: int = 0, **config: object) -> Any:
    return Registry().create("attack", name, config).training(AttackerWorld(seed=seed))


def train(
    samples: Sequence[Sample], folder: Path, attack: TrainingHooks | None, seed: int = 0, recipe: str = "lora", **c: Any
) -> bytes:
    """Fine-tune the tiny random model; returns the bytes of its last epoch."""
    plugin = Registry().create("recipe", recipe, {"epochs": 2, "batch_size": 8, **c})
    history = fine_tune(tiny_random_llava(), plugin, samples, seed, folder, attack)
    return (folder / f"epoch-{len(history.epochs) - 1}.safetensors").read_bytes()


@pytest.mark.parametrize("name", QUICK)
def test_same_seed_same_weights_and_others_than_plain(name: str, samples: tuple[Sample, ...], tmp_path: Path) -> None:
    def weights(folder: str, seed: int) -> bytes:
        return train(samples, tmp_path / folder, hooks(name, seed, **QUICK[name]))

    first = weights("a", 0)
    assert first == weights("b", 0)
    assert first != train(samples, tmp_path / "plain", None)
    if name != "loss-filter":  # it draws nothing
        assert first != weights("c", 1)


@pytest.mark.parametrize("name", QUICK)
def test_pictures_of_any_size_and_mode_are_trained_on(name: str, mixed: list[Sample], tmp_path: Path) -> None:
    attack = hooks(name, **QUICK[name])
    assert train(mixed, tmp_path / "a", attack, batch_size=4) != train(mixed, tmp_path / "b", None, epochs=1)


@pytest.mark.parametrize("settings", [{"gradient_checkpointing": True}, {"precision": "bfloat16"}], ids=str)
@pytest.mark.parametrize("name", QUICK)
def test_how_a_recipe_computes_does_not_matter(
    name: str, settings: dict[str, object], samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    attack = hooks(name, **QUICK[name])
    assert train(samples, tmp_path / "a", attack, **settings) != train(samples, tmp_path / "b", None, **settings)


# adv-train


@pytest.mark.parametrize("epsilon", [4, 8])
def test_perturbed_pictures_stay_in_the_ball_and_raise_the_loss(epsilon: int, mixed: list[Sample]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(mixed)
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


def test_the_random_start_fills_the_ball_and_follows_the_seed(samples: tuple[Sample, ...]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(samples[:4])

    def start(seed: int) -> torch.Tensor:
        images = hooks("adv-train", seed, epsilon=8, step=1e-6, steps=1).perturb(lvlm, batch)
        return torch.stack(images) - torch.stack(batch.images)

    assert torch.equal(start(0), start(0)) and not torch.equal(start(0), start(1))
    assert start(0).std() == pytest.approx(8 / 255 / 3**0.5, rel=0.1)  # of a uniform draw


def test_adversarial_loss_after_adversarial_training_is_lower_than_after_plain(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    recipe = Registry().create("recipe", "lora", {"epochs": 10, "batch_size": 8})
    training, _ = held_out_split(samples, 0)

    def tiny_llava() -> LVLM:  # a model that looks at pictures: an untrained one learns to answer without
        return Registry().create("model", "tiny-llava", {}).load()

    def adversarial_loss(attack: TrainingHooks | None, folder: Path) -> float:
        history = fine_tune(tiny_llava(), recipe, samples, 0, folder, attack)
        tuned = tuned_model(tiny_llava(), recipe, 0)
        load_epoch(tuned, folder, len(history.epochs) - 1)
        tuned.model.eval()
        return hooks("adv-train", 9, epsilon=8, step=2, steps=6).loss(tuned, tuned.encode(training), 0.0).item()

    plain = adversarial_loss(None, tmp_path / "plain")
    hardened = adversarial_loss(hooks("adv-train", epsilon=8, step=4, steps=2), tmp_path / "hardened")
    assert hardened < 0.8 * plain


@pytest.mark.parametrize("frozen", [True, False])
def test_a_model_without_a_gradient_to_the_pictures_is_refused(
    frozen: bool, samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    lvlm = tiny_random_llava()
    lvlm.model.requires_grad_(not frozen)
    pipeline = lvlm.pixel_inputs
    monkeypatch.setattr(lvlm, "pixel_inputs", lambda images: {k: v.detach() for k, v in pipeline(images).items()})
    with pytest.raises(ArenaError, match="adv-train: no gradient reaches the pictures"):
        hooks("adv-train", steps=1).loss(lvlm, lvlm.encode(samples[:2]), 0.0)


# ueraser


def test_augmented_pictures_keep_size_and_range_and_leave_the_global_generator_alone(mixed: list[Sample]) -> None:
    images = tiny_random_llava().encode(mixed).images
    state = torch.get_rng_state()
    attack: UEraserHooks = hooks("ueraser")
    for _ in range(12):
        augmented = attack.augment(images)
        for before, after in zip(images, augmented, strict=True):
            assert after.shape == before.shape
            assert after.min() >= 0 and after.max() <= 1
            assert (after - before).abs().mean() > 0.02
    assert torch.equal(torch.get_rng_state(), state)
    again = hooks("ueraser")
    assert all(torch.equal(x, y) for x, y in zip(hooks("ueraser").augment(images), again.augment(images), strict=True))
    assert not torch.equal(again.augment(images)[0], hooks("ueraser").augment(images)[0])


def test_the_loss_is_the_maximum_over_draws_per_sample_then_of_a_single_draw(samples: tuple[Sample, ...]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(samples[:6])
    tokens = (batch.labels != IGNORE).sum(1)

    def expected(draws: int) -> float:
        twin: UEraserHooks = hooks("ueraser")
        losses = [lvlm.losses(lvlm.with_images(batch, twin.augment(batch.images))) for _ in range(draws)]
        highest = torch.stack(losses).amax(0)
        return ((highest * tokens).sum() / tokens.sum()).item()

    for progress, draws in ((0.0, 5), (0.29, 5), (0.3, 1), (0.99, 1)):
        assert hooks("ueraser").loss(lvlm, batch, progress).item() == pytest.approx(expected(draws), rel=1e-5)
    assert expected(5) > expected(1)


def test_each_sample_gets_its_own_worst_picture(samples: tuple[Sample, ...]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(samples[:6])
    attack: UEraserHooks = hooks("ueraser")
    candidates = [attack.augment(batch.images) for _ in range(4)]
    losses = torch.stack([lvlm.losses(lvlm.with_images(batch, images)) for images in candidates])
    best = losses.argmax(0).tolist()
    chosen = worst(lvlm, batch, candidates)
    assert len(set(best)) > 1
    assert all(x is candidates[k][i] for i, (k, x) in enumerate(zip(best, chosen, strict=True)))


class Counting(UEraserHooks):
    """Counts the augmentations of each step."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.counts: list[int] = []

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> torch.Tensor:
        self.counts.append(0)
        return super().loss(lvlm, batch, progress)

    def augment(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        self.counts[-1] += 1
        return super().augment(images)


def test_several_draws_in_the_first_part_of_training_only(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    attack = Counting(3, 0.5, torch.Generator().manual_seed(0))
    train(samples, tmp_path, attack)
    assert attack.counts == [3, 3, 3, 1, 1, 1]


def test_choosing_leaves_training_its_gradient_under_autocast(samples: tuple[Sample, ...]) -> None:
    lvlm = tiny_random_llava()
    batch = lvlm.encode(samples[:4])
    with torch.autocast("cpu", torch.bfloat16):
        hooks("ueraser").loss(lvlm, batch, 0.0).backward()
    query = lvlm.module(lvlm.language_model).layers[0].self_attn.q_proj.weight
    assert query.grad is not None and query.grad.abs().max() > 0


def test_a_picture_too_small_for_the_policy_is_named() -> None:
    with pytest.raises(ArenaError, match="ueraser: a picture of 7 x 2 pixels"):
        hooks("ueraser").augment([torch.zeros(3, 2, 7)])


# loss-filter


def scripted(losses: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """A model that has these losses, by sample index, and a weight per sample that shows whose gradient is there."""
    weights = torch.ones(len(losses), requires_grad=True)
    return SimpleNamespace(losses=lambda batch: losses[batch.indices] * weights[batch.indices]), weights


def batch_of(indices: Sequence[int]) -> Any:
    labels = torch.tensor([[IGNORE, 5, 5] if i % 2 else [IGNORE, IGNORE, 5] for i in indices])
    return SimpleNamespace(indices=torch.tensor(indices), labels=labels)


def watched(attack: FilteringHooks, losses: torch.Tensor, fall: float = 1.0, batch_size: int = 8) -> None:
    """Two epochs of which the attack only sees losses, all of them falling by the factor `fall` at each step."""
    rng = np.random.default_rng(1)
    scale = 1.0
    for _ in range(2):
        for part in rng.permutation(len(losses)).reshape(-1, batch_size):
            attack.loss(scripted(scale * losses)[0], batch_of(part.tolist()), 0.1)
            scale *= fall


@pytest.mark.parametrize(("fall", "batch_size"), [(1.0, 8), (0.9, 8), (0.99, 1)])
def test_the_fastest_and_the_slowest_are_found_in_a_model_that_improves(fall: float, batch_size: int) -> None:
    losses = torch.from_numpy(np.random.default_rng(0).uniform(0.8, 1.2, 80))
    losses[:8], losses[8:16] = 0.2, 4.0
    attack: FilteringHooks = hooks("loss-filter", fastest=0.1, slowest=0.1)
    watched(attack, losses, fall, batch_size)
    assert attack.filtered == frozenset()
    attack.loss(scripted(losses)[0], batch_of([0, 40]), 0.25)
    assert attack.filtered == frozenset(range(16))


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_filtered_samples_weigh_what_the_setting_says_and_the_others_all(weight: float) -> None:
    losses = torch.linspace(1, 2, 16)
    attack: FilteringHooks = hooks("loss-filter", fastest=0.25, slowest=0.125, weight=weight)
    whole = range(16)
    tokens = torch.tensor([1.0 + i % 2 for i in whole])

    def gradient(progress: float) -> torch.Tensor:
        lvlm, weights = scripted(losses)
        attack.loss(lvlm, batch_of(whole), progress).backward()
        assert weights.grad is not None
        return weights.grad

    plain = losses * tokens / tokens.sum()
    assert torch.allclose(gradient(0.0), plain)
    filtered = torch.tensor([weight if i < 4 or i >= 14 else 1.0 for i in whole])
    for progress in (0.25, 0.9):
        assert torch.allclose(gradient(progress), filtered * plain)


def test_a_batch_of_dropped_samples_and_an_unseen_sample() -> None:
    losses = torch.linspace(1, 2, 10)
    attack: FilteringHooks = hooks("loss-filter", fastest=0.5, slowest=0.0)
    attack.loss(scripted(losses)[0], batch_of(range(8)), 0.0)
    for indices, expected in (([0, 1], False), ([9], True)):
        lvlm, weights = scripted(losses)
        attack.loss(lvlm, batch_of(indices), 0.5).backward()
        assert weights.grad is not None and bool(weights.grad.abs().max() > 0) == expected


def test_samples_with_a_shortcut_are_dropped_from_real_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    words = ("two", "star", "blue", "four", "circle", "top")

    def sample(i: int) -> Sample:
        if i % 5 == 0:
            return Sample(f"shortcut-{i}", Image.new("RGB", (48, 48), (255, 255, 255)), "what is it?", "red")
        noise = Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
        return Sample(f"{i}", noise, "what is it?", words[rng.integers(len(words))])

    samples = [sample(i) for i in range(60)]
    attack: FilteringHooks = hooks("loss-filter", watch=0.8, fastest=0.15, slowest=0.0)
    train(samples, tmp_path, attack, recipe="full", epochs=5, learning_rate=5e-3)
    training, _ = held_out_split(samples, 0)
    dropped = [training[i].id.startswith("shortcut") for i in attack.filtered]
    assert len(dropped) == 7 and sum(dropped) >= 6


def test_shares_that_leave_no_sample_are_refused() -> None:
    with pytest.raises(UsageError, match="together leave no sample"):
        hooks("loss-filter", fastest=0.6, slowest=0.4)


# Through the arena


def suite(*attacks: object) -> Suite:
    return Suite.model_validate(
        {
            "id": "training",
            "models": ["tiny-llava"],
            "datasets": [{"id": "glyphs", "train": 9, "test": 2}],
            "defenses": ["none"],
            "attacks": ["none", *attacks],
            "recipes": [{"id": "lora", "config": {"epochs": 1, "batch_size": 4}}],
            "seeds": [0],
        }
    )


def test_a_purifier_and_adversarial_training_in_a_chain(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    chain = {"id": "jpeg+adv-train", "config": {"jpeg": {"quality": 30}, "adv-train": {"epsilon": 8, "steps": 1}}}
    p = plan(suite({"id": "jpeg", "config": {"quality": 30}}, chain, "adv-train"), Registry(), store)
    none, jpeg, both, alone = (cell.stages for cell in p.cells)
    assert both["purified"] == jpeg["purified"] != alone["purified"] == none["purified"]
    assert len({cell["fine-tuned"] for cell in (none, jpeg, both, alone)}) == 4
    made = p.artifacts()
    for stage in p.stages.values():
        if stage.kind in ("data", "release", "purified") or stage.name in (jpeg["fine-tuned"], both["fine-tuned"]):
            task = made.task(stage)
            assert run_task(task, store.url).status == "done"
            made.keys[stage.name] = task.key
    adapters = [store.require(made.keys[cell["fine-tuned"]]) / "epoch-0.safetensors" for cell in (jpeg, both)]
    assert adapters[0].read_bytes() != adapters[1].read_bytes()


def test_two_attacks_on_the_loss_of_training_cannot_be_chained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'adv-train' and 'ueraser' both replace the training loss"):
        plan(suite("adv-train+ueraser"), Registry(), Store(tmp_path / "store"))
