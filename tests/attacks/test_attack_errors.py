"""Attacks that cannot do their work, in suites: the record says what to do, and the other cells are done."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from arena.engine.execute import RunReport, run
from arena.errors import UnresolvedRevision
from arena.records.schema import Failure
from arena.suites.schema import Suite

PLUGINS = """
from collections.abc import Iterable, Sequence

from arena.data.sample import Sample
from arena.plugins.base import Attack, AttackerWorld
from arena.recipes.projector import Projector


class Greedy(Attack):
    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        return [*samples, *world.auxiliary]


class FrozenTower(Projector):
    '''The tower runs without a gradient, as in LLaVA's own training code.'''

    def prepare(self, lvlm):
        import torch

        tuned = super().prepare(lvlm)
        tower = tuned.module(tuned.vision_tower)
        tower.forward = torch.no_grad()(tower.forward)
        return tuned
"""

ENTRY_POINTS = """
[mmguard_arena.attacks]
greedy = strangers:Greedy

[mmguard_arena.recipes]
frozen-tower = strangers:FrozenTower
"""


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another made-up third party's package is installed."""
    folder = tmp_path / "packages"
    information = folder / "strangers-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "strangers.py").write_text(PLUGINS, encoding="utf-8")
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n", encoding="utf-8")
    (information / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    (information / "top_level.txt").write_text("strangers\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "strangers", raising=False)


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub cannot be reached, and nothing of it is in the cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def go(tmp_path: Path, **fields: Any) -> RunReport:
    suite: dict[str, Any] = {
        "id": "errors",
        "models": ["toy-model"],
        "datasets": [{"id": "toy-data", "train": 8, "auxiliary": 4, "test": 4}],
        "defenses": ["none", "toy-noise"],
        "recipes": ["toy-recipe"],
        "seeds": [0],
    }
    return run(
        Suite.model_validate(suite | fields),
        store=tmp_path / "store",
        results=tmp_path / "results.jsonl",
        scheduler="sync",
        isolated=False,
        console=Console(file=io.StringIO()),
    )


def failures(report: RunReport, attack: str) -> list[Failure]:
    """The failures, after checking that they are all the cells of the attack and no other."""
    cells = {"failed": set[str](), "done": set[str]()}
    for record in report.records:
        cells[record.status].add(record.attack.id)
    assert cells["failed"] == {attack} and attack not in cells["done"] and "none" in cells["done"]
    assert len(report.records) == len(report.plan.cells)
    found = [record.failure for record in report.failed]
    assert all(failure is not None and "Traceback" in failure.traceback for failure in found)
    return [failure for failure in found if failure is not None]


def test_a_purifier_without_the_auxiliary_samples_that_it_reads(tmp_path: Path, toys: Path, strangers: None) -> None:
    report = go(tmp_path, attacks=["none", "greedy", "toy-invert"], auxiliary=0.5)
    found = failures(report, "greedy")
    assert len(found) == 2
    for failure in found:
        assert failure.stage.startswith("purified") and failure.error == (
            "attack 'greedy': the plugin asked for 'auxiliary', which it was not granted: declare it in the class's "
            "`needs`, and grant auxiliary samples in the suite (`auxiliary:`)"
        )


@pytest.mark.parametrize("attack", ["eclipse", "lightshed"])
def test_a_model_of_own_pictures_without_such(tmp_path: Path, toys: Path, attack: str) -> None:
    found = failures(go(tmp_path, attacks=["none", attack, "toy-invert"]), attack)
    assert len(found) == 2
    for failure in found:
        assert failure.stage == f"fit {attack}" and "'auxiliary', which it was not granted" in failure.error


COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        ("back-translate", "Helsinki-NLP/opus-mt-en-de"),
        ("vae-trans", "stabilityai/sd-vae-ft-mse"),
        ("noisy-upscale", "stabilityai/stable-diffusion-x4-upscaler"),
    ],
)
def test_weights_whose_commit_nobody_knows_are_refused_at_once(
    tmp_path: Path, toys: Path, no_hub: None, attack: str, named: str
) -> None:
    with pytest.raises(UnresolvedRevision, match=rf"{named}.* is neither a folder nor in the local cache"):
        go(tmp_path, attacks=["none", attack])


@pytest.mark.parametrize(
    ("attack", "settings"),
    [("back-translate", ("forth", "back")), ("vae-trans", ("checkpoint",)), ("noisy-upscale", ("checkpoint",))],
)
def test_a_hub_that_cannot_be_reached(
    tmp_path: Path, toys: Path, no_hub: None, attack: str, settings: tuple[str, ...]
) -> None:
    named = f"who/what@{COMMIT}"
    report = go(tmp_path, attacks=["none", "toy-shout", {"id": attack, "config": dict.fromkeys(settings, named)}])
    found = failures(report, attack)
    assert len(found) == 2
    for failure in found:
        assert failure.stage.startswith("purified") and repr(named) in failure.error
        assert "cannot be loaded" in failure.error and "Give a folder, or a hub id that this machine" in failure.error


def test_adversarial_training_under_a_recipe_without_a_gradient_to_the_pictures(
    tmp_path: Path, strangers: None
) -> None:
    report = go(
        tmp_path,
        models=["tiny-llava"],
        datasets=[{"id": "glyphs", "train": 8, "test": 2}],
        defenses=["none"],
        attacks=["none", "ueraser", {"id": "adv-train", "config": {"steps": 1}}],
        recipes=[{"id": "frozen-tower", "config": {"epochs": 1, "batch_size": 4}}],
    )
    (failure,) = failures(report, "adv-train")
    assert failure.stage.startswith("fine-tuned")
    assert "adv-train: no gradient reaches the pictures through this model under this recipe" in failure.error
    assert "use a recipe that leaves the vision tower differentiable" in failure.error
    assert {record.recipe.id for record in report.records} == {"frozen-tower"}
