"""Recipes on transformers' Trainer: what learns, what is kept, what hooks see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import tiny_random_llava

from arena.data.glyphs import Glyphs
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.base import LVLM, Batch
from arena.plugin import Recipe, TrainingHooks
from arena.recipes.training import fine_tune, held_out_split, kept_epochs, load_epoch, read_history, tuned_model
from arena.registry import Registry

TRAINABLE = {
    "lora": lambda name: "lora_" in name and "language_model" in name,
    "projector": lambda name: "multi_modal_projector" in name,
    "full": lambda name: True,
}


@pytest.fixture(scope="module")
def samples() -> tuple[Sample, ...]:
    return Glyphs().load(24, 0, 0, seed=3).train


def recipe(name: str, **config: object) -> Recipe:
    return Registry().create("recipe", name, {"epochs": 2, "batch_size": 4, **config})


def loss(lvlm: LVLM, samples: tuple[Sample, ...]) -> float:
    lvlm.model.eval()
    with torch.no_grad():
        return float(lvlm.loss(lvlm.encode(samples)))


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_recipe_learns_with_its_own_parameters_only(name: str, samples: tuple[Sample, ...], tmp_path: Path) -> None:
    lvlm = tiny_random_llava()
    before = {k: v.clone() for k, v in lvlm.model.state_dict().items()}
    start = loss(lvlm, samples)
    chosen = recipe(name)
    history = fine_tune(lvlm, chosen, samples, 0, tmp_path)
    tuned = tuned_model(tiny_random_llava(), chosen, 0)
    trainable = [n for n, p in tuned.model.named_parameters() if p.requires_grad]
    assert trainable and all(map(TRAINABLE[name], trainable))
    load_epoch(tuned, tmp_path, history.chosen)
    assert loss(tuned, samples) < start - 0.05
    changed = {
        k.replace(".base_layer", "").replace("base_model.model.", "")
        for k, v in tuned.model.state_dict().items()
        if (plain := k.replace(".base_layer", "").replace("base_model.model.", "")) in before
        and not torch.equal(v, before[plain])
    }
    assert all(map(TRAINABLE[name], changed))


def test_history_and_best_epoch(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    history = fine_tune(tiny_random_llava(), recipe("full", epochs=3), samples, 0, tmp_path)
    assert len(history.epochs) == 3
    assert kept_epochs(tmp_path) == [0, 1, 2]
    best = history.epochs[history.chosen]
    assert all(
        (best.held_out_accuracy, -best.held_out_loss) >= (e.held_out_accuracy, -e.held_out_loss) for e in history.epochs
    )
    assert read_history(tmp_path) == history
    assert history.epochs[2].loss < history.epochs[0].loss


def test_only_the_best_epoch_is_kept_when_asked(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    history = fine_tune(tiny_random_llava(), recipe("lora", checkpoints="best"), samples, 0, tmp_path)
    assert kept_epochs(tmp_path) == [history.chosen]


def test_same_seed_same_weights(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    def weights(folder: str, seed: int) -> bytes:
        fine_tune(tiny_random_llava(), recipe("lora", epochs=1), samples, seed, tmp_path / folder)
        return (tmp_path / folder / "epoch-0.safetensors").read_bytes()

    assert weights("a", 0) == weights("b", 0)
    assert weights("a", 0) != weights("c", 1)


def test_a_checkpoint_of_another_recipe_is_refused(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    fine_tune(tiny_random_llava(), recipe("projector", epochs=1), samples, 0, tmp_path)
    with pytest.raises(ArenaError, match="checkpoint does not fit the recipe"):
        load_epoch(tuned_model(tiny_random_llava(), recipe("lora"), 0), tmp_path, 0)


class Recording(TrainingHooks):
    """Plain training that remembers what it saw."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.progress: list[float] = []

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> torch.Tensor:
        self.indices += batch.indices.tolist()
        self.progress.append(progress)
        assert all(x.shape == (3, 48, 48) and x.min() >= 0 and x.max() <= 1 for x in batch.images)
        return lvlm.loss(batch)


def test_hooks_replace_the_loss_and_see_every_sample(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    hooks = Recording()
    fine_tune(tiny_random_llava(), recipe("full"), samples, 0, tmp_path / "hooked", hooks)
    training, _ = held_out_split(samples, 0)
    assert sorted(hooks.indices) == sorted([*range(len(training))] * 2)
    assert hooks.progress == sorted(hooks.progress) and hooks.progress[0] >= 0 and hooks.progress[-1] < 1
    fine_tune(tiny_random_llava(), recipe("full"), samples, 0, tmp_path / "plain")
    for epoch in ("epoch-0.safetensors", "epoch-1.safetensors"):
        assert (tmp_path / "hooked" / epoch).read_bytes() == (tmp_path / "plain" / epoch).read_bytes()


class Backwards(TrainingHooks):
    """Climbs instead of descending."""

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> torch.Tensor:
        return -lvlm.loss(batch)


def test_a_hook_decides_what_is_learned(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    up = fine_tune(tiny_random_llava(), recipe("full"), samples, 0, tmp_path / "up", Backwards())
    down = fine_tune(tiny_random_llava(), recipe("full"), samples, 0, tmp_path / "down")
    assert up.epochs[-1].held_out_loss > down.epochs[-1].held_out_loss + 0.1


def test_accumulation_is_the_larger_batch(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    one = fine_tune(tiny_random_llava(), recipe("projector", batch_size=8, epochs=1), samples, 0, tmp_path / "a")
    two = fine_tune(
        tiny_random_llava(),
        recipe("projector", batch_size=4, gradient_accumulation=2, epochs=1),
        samples,
        0,
        tmp_path / "b",
    )
    assert two.epochs[0].held_out_loss == pytest.approx(one.epochs[0].held_out_loss, rel=1e-3)


def test_the_split_is_disjoint_and_complete(samples: tuple[Sample, ...]) -> None:
    training, held_out = held_out_split(samples, 5)
    assert len(held_out) == 3
    assert {s.id for s in training} | {s.id for s in held_out} == {s.id for s in samples}
    assert not {s.id for s in training} & {s.id for s in held_out}
    with pytest.raises(ArenaError, match="at least 2 samples"):
        held_out_split(samples[:1], 0)
