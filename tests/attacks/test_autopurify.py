"""AutoPurify keeps what is best by what the attacker has, and hands it to training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.plugins.base import Attack, AttackerWorld
from arena.plugins.registry import Registry
from attacks.composite import autopurify
from attacks.image.diffpure import DiffPure
from attacks.image.jpeg import Jpeg
from attacks.text.answer_strip import AnswerStrip
from attacks.training.loss_filter import FilteringHooks, LossFilter


class Failing(Attack):
    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        raise ArenaError("failing: not on this release")


def tried(monkeypatch: pytest.MonkeyPatch, **members: Mapping[str, Any]) -> None:
    """Let these be the whole list."""
    monkeypatch.setattr(autopurify, "CANDIDATES", {"image": {}, "text": {}, "training": {}, "filtering": {}} | members)


def world(own: Sequence[Sample] | None = None, **more: Any) -> AttackerWorld:
    load = Registry().create("model", "tiny-llava", {}).load
    return AttackerWorld(seed=3, model=load, auxiliary=None if own is None else tuple(own), **more)


@pytest.fixture(scope="module")
def data() -> tuple[list[Sample], list[Sample]]:
    """Drawn glyphs of which every question says the answer, and clean ones."""
    splits = Registry().create("dataset", "glyphs", {}).load(64, 24, 1, 5)
    spelled = [s.with_content(s.image, f"{s.question} {s.answer}") for s in splits.train]
    return spelled, list(splits.auxiliary)


def learned(lvlm: Any, view: Sequence[Sample]) -> tuple[float, float]:
    """In place of what a fine-tuned model knows: of samples that it learned from, the share that does not say the
    answer; and the loss, which tells pictures apart that went through JPEG."""
    assert view
    said = [s.answer in s.question.split() for s in lvlm]
    return 1 - sum(said) / len(said), float(len(set(lvlm[0].image.getdata())) % 97) / 100


@pytest.mark.parametrize("granted", [True, False])
def test_it_keeps_what_is_best(
    data: tuple[list[Sample], list[Sample]], granted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried(monkeypatch, image={"jpeg": Jpeg}, text={"answer-strip": AnswerStrip}, training={"loss-filter": LossFilter})
    monkeypatch.setattr(autopurify._Trial, "_fine_tuned", lambda self, chain: self.purified(self.samples, chain))
    monkeypatch.setattr(autopurify, "accuracy_and_loss", learned)
    release, own = data
    here = world(own if granted else None)
    made = list(Registry().create("attack", "autopurify", {}).purify(release, here))
    chosen, scores = here.notes["chosen"], here.notes["scores"]
    names = {"none", "jpeg", "answer-strip", "loss-filter", "jpeg+answer-strip", "jpeg+loss-filter"}
    assert set(scores) == names | {"answer-strip+loss-filter"}
    assert scores["none"][0] == scores["jpeg"][0] == 0 < scores["answer-strip"][0] == 1
    assert scores["+".join(chosen)] == max(scores.values()) and "answer-strip" in chosen
    stripped = list(AnswerStrip().purify(release, here))
    assert [s.question for s in made] == [s.question for s in stripped]
    assert [s.id for s in made] == [s.id for s in release] and [s.answer for s in made] == [s.answer for s in release]


def test_equals_leave_the_release_alone(
    data: tuple[list[Sample], list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried(monkeypatch, image={"jpeg": Jpeg}, text={"answer-strip": AnswerStrip})
    monkeypatch.setattr(autopurify._Trial, "_fine_tuned", lambda self, chain: None)
    monkeypatch.setattr(autopurify, "accuracy_and_loss", lambda lvlm, view: (0.5, 1.0))
    here = world(data[1])
    assert list(Registry().create("attack", "autopurify", {}).purify(data[0], here)) == data[0]
    assert here.notes["chosen"] == []


def test_training_has_the_hooks_of_what_was_chosen() -> None:
    attack = Registry().create("attack", "autopurify", {})
    hooks = attack.training(world(notes={"chosen": ["jpeg", "loss-filter"]}))
    assert isinstance(hooks, FilteringHooks)
    assert attack.training(world(notes={"chosen": ["jpeg"]})) is attack.training(world(notes={"chosen": []})) is None


def test_what_was_trained_on_clean_data_is_for_those_who_have_some(
    data: tuple[list[Sample], list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried(monkeypatch, image={"jpeg": Jpeg, "diffpure": DiffPure})
    release, own = data
    attack = Registry().create("attack", "autopurify", {"epochs": 1})
    for granted, names in ((own, {"none", "jpeg", "diffpure"}), (None, {"none", "jpeg"})):
        here = world(granted)
        list(attack.purify(release[:24], here))
        assert set(here.notes["scores"]) == names


def test_what_fails_is_left_out_and_all_of_it_says_why(
    data: tuple[list[Sample], list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried(monkeypatch, image={"failing": Failing}, text={"answer-strip": AnswerStrip})
    release, own = data
    attack = Registry().create("attack", "autopurify", {"epochs": 1})
    here = world(own)
    list(attack.purify(release[:16], here))
    assert set(here.notes["scores"]) == {"none", "answer-strip"}
    with pytest.raises(ArenaError, match=r"autopurify: no fine-tuning .* needs at least 2 samples"):
        list(attack.purify(release[:1], world(own)))


def test_same_seed_same_choice(data: tuple[list[Sample], list[Sample]], monkeypatch: pytest.MonkeyPatch) -> None:
    tried(monkeypatch, text={"answer-strip": AnswerStrip})
    attack = Registry().create("attack", "autopurify", {"epochs": 1})
    notes = []
    for _ in range(2):
        here = world(data[1])
        list(attack.purify(data[0][:24], here))
        notes.append(here.notes)
    assert notes[0] == notes[1]
