"""Packed trainings: the same weights, bit for bit, whatever a training is packed with."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample
from arena.plugins.base import Recipe
from arena.plugins.registry import Registry
from arena.recipes import packing
from arena.recipes.packing import Member, train_together
from arena.recipes.training import fine_tune

MODELS = ["tiny-llava", "tiny-qwen3-vl", "tiny-idefics3"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def samples(seed: int, count: int = 18, ending: str = "") -> list[Sample]:
    drawn = Glyphs().load(count, 0, 0, seed=seed).train
    return [s.with_content(s.image, s.question + ending) for s in drawn]


def recipe(id: str = "lora", **config: object) -> Recipe:
    return Registry().create("recipe", id, {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, **config})


def train(model: str, chosen: Recipe, data: list[Sample], seed: int, folder: Path, member: Member | None) -> None:
    fine_tune(Registry().create("model", model).load(), chosen, data, seed, folder, member=member)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


TRAININGS = [(samples(1), 0), (samples(2), 0), (samples(2, 15), 7), (samples(1, ending=" please tell me"), 0)]
"""Data and seeds: of one length and of several, of one number of steps and of another."""


@pytest.mark.parametrize("model", MODELS)
def test_a_training_is_the_same_in_any_company(model: str, tmp_path: Path) -> None:
    def one(number: int, name: str, member: Member | None = None) -> None:
        train(model, recipe(), *TRAININGS[number], tmp_path / f"{name}-{number}", member)

    for number in range(len(TRAININGS)):
        one(number, "alone")
    train_together([partial(one, number, "all") for number in range(len(TRAININGS))])
    train_together([partial(one, number, "two") for number in (1, 0)])
    for number in range(len(TRAININGS)):
        assert contents(tmp_path / f"all-{number}") == contents(tmp_path / f"alone-{number}")
    for number in (0, 1):
        assert contents(tmp_path / f"two-{number}") == contents(tmp_path / f"alone-{number}")
    assert contents(tmp_path / "alone-0") != contents(tmp_path / "alone-1")


def test_steps_of_one_shape_are_computed_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together: list[int] = []
    compute = packing.Pack._together

    def counted(self: packing.Pack, numbers: list[int], *rest: object) -> object:
        together.append(len(numbers))
        return compute(self, numbers, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(packing.Pack, "_together", counted)
    data = samples(1)
    trainings = [partial(train, "tiny-llava", recipe(), data, 0, tmp_path / str(number)) for number in range(3)]
    train_together(trainings)
    assert together == [3] * 2 * 4  # two epochs of 16 samples in batches of 4
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


@pytest.mark.parametrize("id", ["dora", "projector"])
def test_what_cannot_be_stacked_is_trained_step_by_step(id: str, tmp_path: Path) -> None:
    def one(seed: int, name: str, member: Member | None = None) -> None:
        train("tiny-llava", recipe(id), samples(1), seed, tmp_path / f"{name}-{seed}", member)

    for seed in (0, 1):
        one(seed, "alone")
    train_together([partial(one, seed, "pack") for seed in (0, 1)])
    for seed in (0, 1):
        assert contents(tmp_path / f"pack-{seed}") == contents(tmp_path / f"alone-{seed}")


def test_the_error_of_a_training_is_raised(tmp_path: Path) -> None:
    def broken(member: Member) -> None:
        raise ValueError("no such thing")

    good = partial(train, "tiny-llava", recipe(), samples(1), 0, tmp_path)
    with pytest.raises(ValueError, match="no such thing"):
        train_together([good, broken])
