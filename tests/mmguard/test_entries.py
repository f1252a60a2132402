"""The registry's entries: what each variant does to pictures and questions, within its budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from small_samples import mixed_samples
from tiny_models import tiny_random_llava

from arena.budget import Budget
from arena.data.sample import Sample
from arena.leak import given_away, inserted_words
from arena.plugins.base import DefenderWorld, Defense
from arena.release import build_release
from defenses.mem import Mem
from defenses.mmguard import (
    MMGuardBPH,
    MMGuardBPHMax,
    MMGuardCRS,
    MMGuardCRSMax,
    MMGuardImage,
    MMGuardMultimodal,
    MMGuardText,
)

QUICK = {"rounds": 1, "batch_size": 4, "rank": 2}
IMAGE = {"pgd_steps": 1}
TEXT = {"candidates": 2}

# class, config, does it perturb, does it insert
ENTRIES: list[tuple[type[Defense], dict[str, object], bool, bool]] = [
    *((c, {**QUICK, **IMAGE, **TEXT}, True, True) for c in (MMGuardBPH, MMGuardCRS, MMGuardBPHMax, MMGuardCRSMax)),
    (MMGuardMultimodal, {**QUICK, **IMAGE, **TEXT}, True, True),
    (MMGuardImage, {**QUICK, **IMAGE}, True, False),
    (MMGuardText, {**QUICK, **TEXT}, False, True),
    (Mem, {**QUICK, **IMAGE, **TEXT, "theta_steps": 2, "text_rounds": 1}, True, True),
]


def world(workspace: Path | None = None) -> DefenderWorld:
    return DefenderWorld(Budget(image=4, text=2), 7, lambda: (tiny_random_llava(),), workspace=workspace)


@pytest.mark.parametrize(("entry", "config", "perturbs", "inserts"), ENTRIES, ids=lambda x: getattr(x, "__name__", ""))
def test_what_a_variant_changes(entry: type[Defense], config: dict[str, object], perturbs: bool, inserts: bool) -> None:
    samples, tokenizer = mixed_samples(6), tiny_random_llava().tokenizer
    defense = entry(entry.Config.model_validate(config))
    first, again = (
        build_release(
            samples,
            defense.protect(samples, world()),
            Budget(image=4, text=2),
            lambda t: len(tokenizer(t)["input_ids"]),
        )
        for _ in range(2)
    )
    for sample, one, other in zip(samples, first, again, strict=True):
        assert (one.image.tobytes() != sample.image.tobytes()) == perturbs
        assert (one.question != sample.question) == inserts
        assert (one.image.tobytes(), one.question) == (other.image.tobytes(), other.question)


def test_variants_are_different_methods() -> None:
    samples = mixed_samples(4)
    releases = []
    for entry, config, *_ in ENTRIES:
        drafts = list(entry(entry.Config.model_validate({**config, "rounds": 2})).protect(samples, world()))
        releases.append(tuple((getattr(d.image, "tobytes", bytes)(), d.question) for d in drafts))
    assert len(set(releases)) == len(ENTRIES)


def test_the_workspace_is_used(tmp_path: Path) -> None:
    config = MMGuardBPH.Config.model_validate({**QUICK, **IMAGE, **TEXT})
    list(MMGuardBPH(config).protect(mixed_samples(4), world(tmp_path)))
    assert {p.name for p in tmp_path.iterdir()} == {"state.json", "log.json", "perturbations-1.int8"}


def test_a_variant_has_no_settings_of_parts_it_lacks() -> None:
    for entry, name in ((MMGuardImage, "candidates"), (MMGuardText, "pgd_steps"), (MMGuardMultimodal, "lambda_bind")):
        with pytest.raises(ValidationError, match=name):
            entry.Config.model_validate({name: 1})
    for entry, *_ in ENTRIES:
        assert all(field.description for field in entry.Config.model_fields.values()), entry


def test_mem_stops_rewriting_after_the_first_rounds() -> None:
    samples = mixed_samples(6)

    def questions(text_rounds: int, rounds: int) -> list[str]:
        config = {**QUICK, **IMAGE, **TEXT, "theta_steps": 1, "rounds": rounds, "text_rounds": text_rounds}
        return [d.question for d in Mem(Mem.Config.model_validate(config)).protect(samples, world())]

    assert questions(1, 1) == questions(1, 3)
    assert questions(0, 1) != questions(1, 1)
    assert all(q.endswith(f" {s.question}") for q, s in zip(questions(1, 1), samples, strict=True))


def test_the_rows_of_the_answer_are_a_choice_that_came_later() -> None:
    assert "answer_rows" not in MMGuardBPH.Config().identity()
    config = {**QUICK, **IMAGE, **TEXT, "answer_rows": "predicting"}
    chosen = MMGuardBPH.Config.model_validate(config)
    assert chosen.identity()["answer_rows"] == "predicting"
    samples = mixed_samples(4)
    plain = MMGuardBPH.Config.model_validate({**config, "answer_rows": "targets"})
    losses = []
    for settings in (plain, chosen):
        granted = world()
        list(MMGuardBPH(settings).protect(samples, granted))
        losses.append(granted.diagnostics["loss-answer->trigger"])
    assert losses[0] != losses[1]


WITH_WORDS = [(entry, config) for entry, config, _, inserts in ENTRIES if inserts]


@pytest.mark.parametrize(("entry", "config"), WITH_WORDS, ids=lambda x: getattr(x, "__name__", ""))
def test_no_word_of_the_answer_is_inserted(entry: type[Defense], config: dict[str, object]) -> None:
    """Where the answers are the words that the method would insert if it might."""
    samples, free = mixed_samples(4), Budget(image=4, text=2, forbid_answer_words=False)
    defense = entry(entry.Config.model_validate({**config, "candidates": 6}))

    def release(samples: Sequence[Sample], budget: Budget) -> list[Sample]:
        granted = DefenderWorld(budget, 7, lambda: (tiny_random_llava(),))
        return build_release(samples, defense.protect(samples, granted), budget)

    told = release(samples, free)
    found = [inserted_words(s.question, t.question) for s, t in zip(samples, told, strict=True)]
    answered = [replace(s, aliases=tuple(words)) for s, words in zip(samples, found, strict=True)]
    assert all(given_away(s, t.question) for s, t in zip(answered, release(answered, free), strict=True))
    kept = release(answered, Budget(image=4, text=2))
    assert all(s.question != t.question for s, t in zip(answered, kept, strict=True))
    assert not any(given_away(s, t.question) for s, t in zip(answered, kept, strict=True))
