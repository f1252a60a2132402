"""Verification with shared keys and values gives what whole sequences give."""

from __future__ import annotations

import pytest
import torch
from small_samples import mixed_samples
from tiny_models import tiny_random_llava
from torch import Tensor

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.adapters import attach_lora, linear_modules
from arena.lvlm.base import LVLM, images_of
from arena.lvlm.batch import Encoding, Role
from arena.lvlm.continuation import Version, common_length, encode_versions
from mmguard.candidates import candidate_losses
from mmguard.objective import Objective, evaluate, reference
from mmguard.trigger import admissible_vocabulary, insert


@pytest.fixture(scope="module")
def lvlm() -> LVLM:
    model = tiny_random_llava()
    torch.manual_seed(0)
    tuned = attach_lora(model, 4, 8, 0.0, linear_modules(model, model.language_model))
    with torch.no_grad():  # adapters that do something, attention that is far from uniform
        for parameter in tuned.model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    tuned.model.eval()
    return tuned


def versions_of(lvlm: LVLM, samples: list[Sample], gap: int, slot: int) -> list[list[Version]]:
    """Triggers that differ in one slot; the third sample has fewer versions, the fourth a shorter trigger and
    words of several tokens."""
    words = admissible_vocabulary(lvlm).words
    found = []
    for i, sample in enumerate(samples):
        base = words[i : i + (2 if i == 3 else 4)]
        others = [*words[50 : 50 + (3 if i == 2 else 6)], *(["zygotic"] if i == 3 else [])]
        at = min(slot, len(base) - 1)
        triggers = [base, *((*base[:at], word, *base[at + 1 :]) for word in others)]
        found.append([insert(sample.question, t, min(gap, len(sample.question.split()))) for t in triggers])
    return found


def whole(objective: Objective, lvlm: LVLM, samples: list[Sample], images: list[Tensor], versions: list[list[Version]]):
    losses = []
    for sample, image, texts in zip(samples, images, versions, strict=True):
        clean = reference(lvlm, [sample], range(objective.layers), objective.answer_rows)
        rows = []
        for text, span in texts:
            batch = lvlm.encode([sample.with_content(sample.image, text)], [image], [span])
            with torch.no_grad():
                rows.append(evaluate(objective, lvlm, batch, clean)[0].joint)
        losses.append(torch.cat(rows))
    return losses


@pytest.mark.parametrize("name", ["none", "bph", "crs", "crs-max"])
@pytest.mark.parametrize(("gap", "slot"), [(99, 0), (99, 2), (0, 1), (2, 3)])
def test_equal_to_whole_sequences(lvlm: LVLM, name: str, gap: int, slot: int) -> None:
    check_equal(Objective.model_validate({"objective": name}), lvlm, gap, slot)


@pytest.mark.parametrize("name", ["bph", "crs"])
def test_equal_to_whole_sequences_for_the_rows_that_predict(lvlm: LVLM, name: str) -> None:
    check_equal(Objective.model_validate({"objective": name, "answer_rows": "predicting"}), lvlm, 99, 3)


def check_equal(objective: Objective, lvlm: LVLM, gap: int, slot: int) -> None:
    samples = mixed_samples(5)
    images = [(x + 8 / 255 * torch.randn_like(x).sign()).clamp(0, 1) for x in images_of(samples)]
    versions = versions_of(lvlm, samples, gap, slot)
    clean = reference(lvlm, samples, range(2), objective.answer_rows)
    sizes = [(x.shape[-2], x.shape[-1]) for x in images]
    found = candidate_losses(objective, lvlm, samples, sizes, versions, clean, 7, lvlm.pixel_inputs(images))
    wanted = whole(objective, lvlm, samples, images, versions)
    assert [len(x) for x in found] == [len(x) for x in versions]
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() < 1e-4
    assert max(float(x.std()) for x in found) > 1e-3  # the candidates do differ


def test_versions_are_tokenised_as_whole_prompts(lvlm: LVLM) -> None:
    for sample, versions in zip(mixed_samples(5), versions_of(lvlm, mixed_samples(5), 1, 0), strict=True):
        found = encode_versions(lvlm, (48, 48), versions, sample.answer)
        assert found == [lvlm.encode_text((48, 48), text, sample.answer, span) for text, span in versions]


def test_a_tokenizer_that_is_not_cut_at_pictures_sees_whole_texts(lvlm: LVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(lvlm.tokenizer).__call__

    def spaced(self: object, text: object, **options: object) -> object:
        """As sentencepiece does: a text that is tokenised on its own gets a space before it."""
        encoded = real(self, text, **options)
        if not options["add_special_tokens"]:
            encoded["input_ids"] = [[0, *ids] for ids in encoded["input_ids"]]
            encoded["offset_mapping"] = [[(0, 0), *offsets] for offsets in encoded["offset_mapping"]]
        return encoded

    versions = [insert("which clan is this?", (word,), 4) for word in ("red", "star")]
    wanted = [lvlm.encode_text((48, 48), text, "two", span) for text, span in versions]
    monkeypatch.setattr(type(lvlm.tokenizer), "__call__", spaced)
    assert encode_versions(lvlm, (48, 48), versions, "two") == wanted


def test_common_length() -> None:
    roles = [int(r) for r in (Role.IMAGE, Role.TEXT, Role.TRIGGER, Role.TRIGGER, Role.ANSWER)]
    first, second = Encoding([9, 1, 2, 3, 4], roles), Encoding([9, 1, 2, 5, 4], roles)
    assert common_length([first, Encoding([9, 1, 7, 3, 4], roles)]) == 2
    assert common_length([first, second]) == 3
    assert common_length([first]) == 3  # the token that predicts the answer is always run
    late = Encoding([1, 2, 9, 4], [int(r) for r in (Role.TEXT, Role.TRIGGER, Role.IMAGE, Role.ANSWER)])
    with pytest.raises(ArenaError, match="before the picture"):
        common_length([late, Encoding([1, 3, 9, 4], late.roles)])
