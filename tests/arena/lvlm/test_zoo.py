"""The tiny models: training resumes to the same weights, and what is shipped does what its card says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from tiny_models import small_idefics3, small_model, small_qwen3_vl

from arena.data.embedded import scenes
from arena.data.sample import Sample
from arena.lvlm.checkpoints import ZOO
from arena.lvlm.zoo import train as training_module
from arena.lvlm.zoo.card import ALTERED, MOST_LOST, PICTURES, SCENES, WHY, Scores, shipped_scores
from arena.lvlm.zoo.models import TINY
from arena.lvlm.zoo.pack import accuracy_lost, held_out_accuracy, pack
from arena.lvlm.zoo.pictures import Picture
from arena.lvlm.zoo.tiny import TinyModel, answer_words, known_exchanges
from arena.lvlm.zoo.tokenizer import vocabulary, words
from arena.lvlm.zoo.train import Training, of_colours
from arena.plugins.registry import Registry

SHIPPED = {name: name.replace("-", "_") for name in TINY}
"""Folders."""


def made_by_people(count: int = 6) -> list[Picture]:
    rng = np.random.default_rng(1)
    facts = [("duck", "bird", "yellow"), (None, "vehicle", "blue"), (None, None, "green")]
    return [
        Picture(Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)), *facts[i % 3], "stamps")
        for i in range(count)
    ]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "POOL", 32)
    monkeypatch.setattr(training_module, "CHECKPOINT_EVERY", 2)


def training_of(
    spec: TinyModel, folder: Path, say: Callable[[str], None] = lambda _: None, workers: int = 0
) -> Training:
    return Training(spec, folder, made_by_people(), say, workers=workers)


STEPS = {"tower_steps": 4, "language_steps": 4, "joint_steps": 4, "batch_size": 6}
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
    whole = training_of(spec, tmp_path / "whole", workers=1)
    whole.run()

    class Killed(Exception):
        pass

    def die(line: str) -> None:
        if "language 2/4" in line:
            raise Killed

    with pytest.raises(Killed):
        training_of(spec, tmp_path / "killed", die).run()
    again = training_of(spec, tmp_path / "killed")
    again.run()
    expected = weights(whole)
    assert expected.keys() == weights(again).keys()
    assert all(torch.equal(v, expected[k]) for k, v in weights(again).items())


@pytest.mark.usefixtures("short")
def test_packing_writes_a_hub_checkpoint_and_a_card(spec: TinyModel, tmp_path: Path) -> None:
    training, said = training_of(spec, tmp_path / "run"), []
    scores = pack(training, tmp_path / "packed", said.append, per_kind=4)
    card = (tmp_path / "packed" / "README.md").read_text(encoding="utf-8")
    assert_in_tables(scores, card)
    stated = ModelCard(card).data
    assert stated.model_name == spec.name
    assert [r.metric_value for r in stated.eval_results] == [round(score, 3) for score in all_of(scores)]
    assert f"seed {spec.seed}" in card and f"{spec.architecture} at " in card
    assert len(scores.missed()) >= 4, "an untrained model"
    assert card.count("**missed**") == len(scores.missed()) == len([line for line in said if "bar missed" in line])
    assert_names_files(card)


@pytest.mark.usefixtures("short")
def test_cards_state_what_was_measured_to_three_decimals(
    spec: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {
        "held_out_accuracy": {"count": 0.98765},
        "accuracy_lost": {"grey": 0.0126},
        "known_pictures": {"name": 1 / 3},
    }
    for function, found in measured.items():
        monkeypatch.setattr(f"arena.lvlm.zoo.pack.{function}", lambda *_, found=found: found)
    pack(training_of(spec, tmp_path / "run"), tmp_path / "packed", lambda _: None)
    stated = ModelCard.load(tmp_path / "packed" / "README.md").data.eval_results
    said = [(r.dataset_type, r.metric_name, r.metric_value) for r in stated]
    assert said == [(SCENES, "count", 0.988), (ALTERED, "grey", 0.013), (PICTURES, "name", 0.333)]


def all_of(scores: Scores) -> list[float]:
    return [*scores.kinds.values(), *scores.lost.values(), *scores.pictures.values()]


def assert_in_tables(scores: Scores, card: str) -> None:
    for rows in (scores.kinds, scores.lost, scores.pictures):
        assert rows and all(f"| {name} | {score:.3f} |" in card for name, score in rows.items())


def test_what_shipped_cards_state_in_their_metadata_stands_in_their_tables() -> None:
    stated = shipped_scores()
    assert sorted(stated) == sorted(SHIPPED)
    for name, scores in stated.items():
        assert_in_tables(scores, (ZOO / SHIPPED[name] / "README.md").read_text(encoding="utf-8"))
        assert {what for what, lost in scores.lost.items() if lost > MOST_LOST[what]} <= WHY.keys()


def assert_names_files(card: str) -> None:
    named = re.findall(r"`(arena/[\w/]+\.py)`", card)
    assert len(named) >= 2 and all((Path(__file__).parents[3] / path).is_file() for path in named), named


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_card_names_files_that_are_there(name: str) -> None:
    assert_names_files((ZOO / SHIPPED[name] / "README.md").read_text(encoding="utf-8"))


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
    training = training_of(spec, tmp_path)
    scene = training.pool.scenes[0]
    with torch.no_grad():
        for p in training.model.parameters():  # sharper than at the start, so that places matter
            p.mul_(2)
    monkeypatch.setattr(training_module, "QUESTION_WEIGHT", 0.0)
    asked = [("what is it?", "two"), ("where is the red star?", "top left"), ("how many?", "blue")]
    no_words_inserted = SimpleNamespace(random=lambda: 1.0)
    batch = {"pixels": training.lesson.pixels([scene.image]), **training.lesson.pack([asked], no_words_inserted)}
    together = training._language_loss(batch)
    alone = training.lvlm.encode([Sample(q, scene.image, q, a) for q, a in asked])
    assert together.item() == pytest.approx(training.lvlm.loss(alone).item(), rel=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_tokenizer_has_a_token_a_word(name: str) -> None:
    tokenizer = TINY[name].tokenizer()
    single = [w for w in words() if len(tokenizer.encode(f" {w}", add_special_tokens=False)) == 1]
    assert len(single) >= 600
    text = "USER: naïve café — 東京?"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("name", TINY)
def test_no_word_that_is_asked_or_answered_is_split(name: str) -> None:
    tokenizer = TINY[name].tokenizer()
    asked = {word for question, _ in known_exchanges() for word in re.findall("[a-z]+", question)}
    known = {*vocabulary(), *answer_words(), *asked}
    assert [w for w in sorted(known) if len(tokenizer.encode(f" {w}", add_special_tokens=False)) > 1] == []


def batches(stage: str, tmp_path: Path, size: int = 60) -> tuple[training_module.Batches, Training]:
    training = training_of(SMALL["llava"], tmp_path)
    lesson, pool = training.lesson, training.pictures
    return training_module.Batches(training.spec, stage, 8, size, lesson, training.pool, pool), training


@pytest.mark.usefixtures("short")
def test_nobody_asks_for_colours_that_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, training = batches("language", tmp_path)
    packed: list[list[tuple[str, str]]] = []
    pack = training.lesson.pack
    monkeypatch.setattr(training.lesson, "pack", lambda rows, rng: packed.extend(rows) or pack(rows, rng))
    monkeypatch.setattr(training_module, "alter", lambda image, rng: (image, False))
    made[5]
    assert packed and any(packed) and not any(of_colours(*qa) for row in packed for qa in row)
    packed.clear()
    monkeypatch.setattr(training_module, "alter", lambda image, rng: (image, True))
    made[5]
    assert sum(of_colours(*qa) for row in packed for qa in row) > 30


@pytest.mark.usefixtures("short")
def test_the_tower_learns_of_what_is_known_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, training = batches("tower", tmp_path)
    monkeypatch.setattr(training_module, "alter", lambda image, rng: (image, False))
    batch = made[0]
    assert batch["quadrants"].shape == (42, 4, 4) and batch["pictures"].shape == (18, 2)
    assert (batch["quadrants"][..., 1] == -100).all() and (batch["pictures"][:, 1] == -100).all()
    assert (batch["quadrants"][..., 0] >= 0).all()
    unknown = batch | {k: torch.full_like(batch[k], -100) for k in ("quadrants", "pictures")}
    assert training._tower_loss(unknown) == 0 and training._tower_loss(batch) > 1


def test_the_second_stage_begins_with_few_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "POOL", 200)
    made, training = batches("language", tmp_path)
    seen: list[scenes.Scene] = []
    monkeypatch.setattr(training.lesson, "about_scene", lambda scene, *_: seen.append(scene) or [("q?", "a")])
    made[0]
    assert {len(scene.things) for scene in seen} == {1, 2}
    seen.clear()
    made[7]
    assert {len(scene.things) for scene in seen} == {1, 2, 3, 4}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_model_is_as_able_as_its_card_says(name: str) -> None:
    folder = ZOO / SHIPPED[name]
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 6 * 2**20
    lvlm = Registry().create("model", name, {}).load()
    card = (folder / "README.md").read_text(encoding="utf-8")

    def stated(what: str) -> float:
        return float(next(line for line in card.splitlines() if line.startswith(f"| {what} |")).split("|")[2])

    for kind, score in held_out_accuracy(lvlm, per_kind=150).items():
        assert abs(stated(kind) - score) < 0.1
    for name_of_alteration, lost in accuracy_lost(lvlm, per_kind=60).items():
        assert abs(stated(name_of_alteration) - lost) < 0.12
