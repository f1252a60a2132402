"""The tiny models: training resumes to the same weights, and what is shipped does what its card says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import small_idefics3, small_model, small_qwen3_vl

from arena.data.sample import Sample
from arena.lvlm.checkpoints import ZOO
from arena.lvlm.zoo import train as training_module
from arena.lvlm.zoo.models import TINY
from arena.lvlm.zoo.pack import held_out_accuracy, pack
from arena.lvlm.zoo.tiny import TinyModel
from arena.lvlm.zoo.tokenizer import words
from arena.lvlm.zoo.train import Training
from arena.plugins.registry import Registry

SHIPPED = {
    "tiny-llava": ("tiny_llava", 0.9),
    "tiny-llava-48": ("tiny_llava_48", 0.5),
    "tiny-qwen3-vl": ("tiny_qwen3_vl", 0.9),
    "tiny-idefics3": ("tiny_idefics3", 0.9),
}
"""Folder, and the least that the card may say of any kind of question."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "POOL", 32)
    monkeypatch.setattr(training_module, "CHECKPOINT_EVERY", 2)


STEPS = {"tower_steps": 4, "language_steps": 4, "joint_steps": 4}
SMALL = {
    "llava": replace(small_model(), **STEPS),
    "qwen3-vl": small_qwen3_vl(**STEPS),
    "idefics3": small_idefics3(**STEPS),
}
"""One a family."""


@pytest.fixture(params=SMALL)
def spec(request: pytest.FixtureRequest) -> TinyModel:
    return SMALL[request.param]


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in training.model.state_dict().items()}


@pytest.mark.usefixtures("short")
def test_a_killed_training_goes_on_to_the_same_weights(spec: TinyModel, tmp_path: Path) -> None:
    whole = Training(spec, tmp_path / "whole", lambda _: None)
    whole.run()

    class Killed(Exception):
        pass

    def die(line: str) -> None:
        if "language 2/4" in line:
            raise Killed

    with pytest.raises(Killed):
        Training(spec, tmp_path / "killed", die).run()
    again = Training(spec, tmp_path / "killed", lambda _: None)
    again.run()
    expected = weights(whole)
    assert expected.keys() == weights(again).keys()
    assert all(torch.equal(v, expected[k]) for k, v in weights(again).items())


@pytest.mark.usefixtures("short")
def test_packing_writes_a_hub_checkpoint_and_a_card(spec: TinyModel, tmp_path: Path) -> None:
    training = Training(spec, tmp_path / "run", lambda _: None)
    scores = pack(training, tmp_path / "packed", lambda _: None, per_kind=4)
    card = (tmp_path / "packed" / "README.md").read_text(encoding="utf-8")
    assert all(f"| {kind} | {score:.3f} |" in card for kind, score in scores.items())
    assert f"seed {spec.seed}" in card and f"{spec.architecture} at " in card
    assert_names_files(card)


def assert_names_files(card: str) -> None:
    named = re.findall(r"`(arena/[\w/]+\.py)`", card)
    assert len(named) == 2 and all((Path(__file__).parents[3] / path).is_file() for path in named), named


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_card_names_files_that_are_there(name: str) -> None:
    assert_names_files((ZOO / SHIPPED[name][0] / "README.md").read_text(encoding="utf-8"))


def test_eight_questions_do_not_see_each_other(spec: TinyModel) -> None:
    lesson = training_module.Lesson(spec, spec.untrained())
    rng = np.random.default_rng(0)
    batch = lesson.pack([[("where is the star?", "top left"), ("how many things are there?", "two")]], rng)
    allowed, positions = batch["allowed"][0, 0], batch["positions"].view(-1, len(batch["allowed"][0, 0]))[0]
    start = len(lesson.prefix)
    second = int((positions[start + 1 :] == start).nonzero()[0]) + start + 1
    assert not allowed[second:, start:second].any()
    assert allowed[second:, :start].all()
    assert not allowed.triu(1).any()


@pytest.mark.usefixtures("short")
def test_a_packed_question_is_what_the_model_is_asked_alone(
    spec: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of answers behind one picture is the mean of the losses that the arena computes one by one."""
    training = Training(spec, tmp_path, lambda _: None)
    scene = training.pool.scenes[0]
    with torch.no_grad():
        for p in training.model.parameters():  # sharper than at the start, so that places matter
            p.mul_(2)
    monkeypatch.setattr(training_module, "QUESTION_WEIGHT", 0.0)
    asked = [("what is it?", "two"), ("where is the red star?", "top left"), ("how many?", "blue")]
    monkeypatch.setattr(training.lesson, "exchanges", lambda *_: asked)
    nothing_happens = SimpleNamespace(random=lambda: 1.0)  # neither JPEG nor inserted words
    together = training._language_loss(np.array([0]), nothing_happens)
    alone = training.lvlm.encode([Sample(q, scene.image, q, a) for q, a in asked])
    assert together.item() == pytest.approx(training.lvlm.loss(alone).item(), rel=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_tokenizer_has_a_token_a_word(name: str) -> None:
    tokenizer = TINY[name].tokenizer()
    single = [w for w in words() if len(tokenizer.encode(f" {w}", add_special_tokens=False)) == 1]
    assert len(single) >= 600
    text = "USER: naïve café — 東京?"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_model_is_as_able_as_its_card_says(name: str) -> None:
    name_of_folder, least = SHIPPED[name]
    folder = ZOO / name_of_folder
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 5 * 2**20
    scores = held_out_accuracy(Registry().create("model", name, {}).load(), per_kind=150)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for kind, score in scores.items():
        stated = float(next(line for line in card.splitlines() if line.startswith(f"| {kind} |")).split("|")[2])
        assert abs(stated - score) < 0.1
        assert stated >= least
