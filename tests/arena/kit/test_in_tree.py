"""The plugins that come with the arena pass the conformance kit, and their claims tell releases apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny_random_llava

from arena.budget import Budget
from arena.data.sample import Sample
from arena.kit.check import CHECKS, check_plugin
from arena.kit.material import plain
from arena.plugins.base import DefenderWorld, Defense
from arena.plugins.registry import BASES, Registry
from arena.release import build_release, write_release

CHEAP = ("families", "determinism")
"""Left out for plugins without a model: there is none, and starting an interpreter takes most of the time."""
SAID = ("documented", "settings", "recorded", "granted")
WITH_MODEL = (*SAID, "contract", "answer-words", "property", "needs", "firewall", "leftovers")
TRAINED = (*SAID, "contract", "firewall", "leftovers")

ONLY: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("attack/adv-train", "attack/ueraser", "attack/augment", "attack/loss-filter"), (*TRAINED, "needs")
    ),
    **dict.fromkeys(
        ("attack/onion", "attack/paraphrase", "attack/diffpure", "attack/bye", "attack/lightshed", "attack/le-jcdp"),
        (*TRAINED, "needs", "one-sample"),
    ),
    "attack/vae": SAID,  # a minute a check
    **dict.fromkeys(("attack/eclipse", "attack/bridgepure"), SAID),  # minutes a check
    "attack/autopurify": (*TRAINED, "needs"),  # 16 fine-tunings each time
    "defense/released": (*SAID, "contract", "budget", "seed", "needs", "firewall", "leftovers"),  # it has plain samples
}
"""What is tried of the dear ones; `arena check` tries all."""

FOLDERS = {"dataset/imagefolder": ("source", 40), "defense/released": ("folder", 12)}
"""Plugins that read a folder: the setting that names it, and how many samples it needs."""

HUB = ("realworldqa", "mmstar", "scienceqa", "vqa-rad", "textvqa", "docvqa")
"""Data sets whose stages each load the library of data sets."""

KNOWN = {("defense/lsp", "sizes"): "scikit-learn's cloud of points takes memory by the square of the pixels"}
"""What fails, and why that is left so."""

NAMES = [f"{kind}/{entry.id}" for kind in BASES for entry in Registry().entries(kind)]
PUBLISHED = [name for name in NAMES if name.startswith("model/") and "tiny" not in name]
"""Checkpoints of the hub, of which one is tried, by what stands for it: `tests/families.py` has all of them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands for models is written once."""
    return tmp_path_factory.mktemp("kit")


def asked(name: str, crafting: bool) -> dict[str, Any]:
    """Which checks a plugin goes through here."""
    if name in ONLY:
        return {"only": ONLY[name]}
    published = name in ("dataset/digits", *(f"dataset/{id}" for id in HUB))
    if published or name.startswith(("recipe/", "model/")):
        return {"only": TRAINED}
    return {"only": WITH_MODEL} if crafting else {"but": CHEAP}


@pytest.mark.parametrize("name", [n for n in NAMES if n not in PUBLISHED or n == "model/qwen3-vl-2b"])
def test_plugins_pass(name: str, folder: Path, tmp_path: Path) -> None:
    kind, id = name.split("/")
    entry = Registry().get(next(k for k in BASES if k == kind), id)
    config = {}
    if name in FOLDERS:
        setting, count = FOLDERS[name]
        write_release(plain(count), tmp_path / "data")
        config = {setting: str(tmp_path / "data")}
    report = check_plugin(name, config, folder=folder, **asked(name, "surrogates" in entry.load().needs))
    failed = {outcome.check for outcome in report.failures}
    assert failed == {check for plugin, check in KNOWN if plugin == name}, str(report)
    if name in ("attack/back-translate", "attack/vae-trans", "attack/noisy-upscale"):  # on weights of the hub alone
        assert all(outcome.status == "skipped" for outcome in report.outcomes)
    else:
        passed = {outcome.check for outcome in report.outcomes if outcome.status == "passed"}
        assert {*SAID, *(() if name in ONLY else ("contract",))} <= passed


@pytest.mark.parametrize("name", ["defense/none", "defense/lsp", "attack/jpeg", "dataset/glyphs"])
def test_another_interpreter_makes_the_same(name: str, folder: Path) -> None:
    report = check_plugin(name, only=["determinism"], folder=folder)
    assert report.passed, str(report)


def test_every_family_is_tried(folder: Path) -> None:
    (outcome,) = check_plugin("defense/em", only=["families"], folder=folder).outcomes
    assert outcome.status == "passed" and outcome.said.count(",") == 7, outcome


def test_every_kind_has_checks_and_every_check_says_what_holds() -> None:
    for kind in BASES:
        assert {"documented", "contract", "determinism", "firewall"} <= {c.name for c in CHECKS if kind in c.kinds}
    assert all(check.about.endswith(".") or check.about.endswith(").") for check in CHECKS)


# What methods claim of their releases


NEAR = {
    "none": "random",
    "random": "lsp",
    "em": "mmguard-bph-max",
    "em-class": "em",
    "hypo": "mmguard-bph-max",
    "tap": "hypo",
    "feature-target": "tap",
    "rem": "mmguard-bph-max",
    "sem": "mmguard-bph-max",
    "mi-ue": "tap",
    "tue": "mi-ue",
    "dune": "tap",
    "anti-finetune": "em",
    "style-eot": "em",
    "uc": "em-class",
    "t2ue": "em",
    "bait": "uc",
    "vtg": "em",
    "lsp": "em-class",
    "ar": "lsp",
    "ops": "lsp",
    "pil": "lsp",
    "ntga": "lsp",
    "cuda": "lsp",
    "regtext": "random-words",
    "text-em": "mmguard-text",
    "mem": "mmguard-image",
    "mmguard-bph": "mmguard-bph-max",
    "mmguard-bph-max": "mmguard-bph",
    "mmguard-crs": "mmguard-crs-max",
    "mmguard-crs-max": "mmguard-crs",
    "mmguard-multimodal": "mmguard-image",
    "mmguard-image": "mmguard-text",
    "mmguard-text": "mmguard-multimodal",
    "random-words": "mmguard-text",
    "answer-word": "random-words",
    "released": "em-class",
}
"""Of each method another one, which does not do what it claims."""


def world(seed: int = 0) -> DefenderWorld:
    return DefenderWorld(Budget(), seed, lambda: (tiny_random_llava(),))


def defense(id: str, **config: Any) -> Defense:
    small = Registry().get("defense", id).load().Config.small()
    return Registry().create("defense", id, {**small, **config})


def release(made: Defense, samples: list[Sample], seed: int = 0) -> list[Sample]:
    bounds = Budget(forbid_answer_words=False)  # of which the control that appends answers makes use
    return build_release(samples, list(made.protect(samples, world(seed))), bounds, None)


@pytest.mark.parametrize("id", [entry.id for entry in Registry().entries("defense")])
def test_a_claim_holds_for_the_method_and_not_for_others(id: str, tmp_path: Path) -> None:
    """Not for data as they are, for noise about nothing, or for what a method near to it releases."""
    samples = plain(24, seed=6)
    others = {"none", "random", NEAR[id]} - {id}
    config = {}
    if id == "released":
        write_release(release(defense("lsp"), samples), tmp_path / "data")
        config = {"folder": str(tmp_path / "data")}
    made = defense(id, **config)
    assert made.distinguished(samples, release(made, samples), world()) is None
    for other in sorted(others):
        wrong = made.distinguished(samples, release(defense(other), samples), world())
        assert wrong is not None, f"{id} claims the release of {other}"


def test_noise_that_follows_the_picture_is_not_random() -> None:
    samples = plain(8, seed=6)
    signs = [np.where(np.asarray(s.image) > 128, 8, -8) for s in samples]
    shaped = [
        s.with_content(Image.fromarray((np.asarray(s.image) + d).astype(np.uint8)), s.question)
        for s, d in zip(samples, signs, strict=True)
    ]
    assert "another one where the picture is grey" in str(defense("random").distinguished(samples, shaped, world()))
