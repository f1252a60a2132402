"""What defenses say of themselves for estimates and dry runs."""

from __future__ import annotations

import pytest

from arena.budget import Budget
from arena.plugins.base import Defense, Effort
from arena.plugins.registry import Registry

SAMPLES, BUDGET = 16, Budget(text=5)
STEPS = {"rounds": 3, "inner_steps": 2, "pgd_steps": 4}
TEXT = {"candidates": 10}
ROBUST = {"rounds": 3, "theta_steps": 2, "pgd_steps": 4, "draws": 5, "inner_steps": 2, "batch_size": 8}

EFFORTS: dict[str, tuple[str, dict[str, object], Effort]] = {
    "no model": ("lsp", {}, Effort()),
    "noise": ("random", {}, Effort()),
    # 3 rounds of 4 steps and 2 minibatches of half the samples
    "em": ("em", {"rounds": 3, "pgd_steps": 4, "theta_steps": 2, "batch_size": 8}, Effort(6, 15)),
    "a batch beyond the samples": (
        "em-class",
        {"rounds": 3, "pgd_steps": 4, "theta_steps": 2, "batch_size": 64, "batches": 1},
        Effort(6, 18),
    ),
    # 3 rounds of 4 passes of 2 steps, and 2 minibatches of half the samples
    "passes": (
        "em-class",
        {"rounds": 3, "pgd_steps": 2, "theta_steps": 2, "batch_size": 8, "batches": 7},
        Effort(6, 27),
    ),
    # 4 minibatches of half the samples, and 10 steps
    "hypo": ("hypo", {"clean_steps": 4, "pgd_steps": 10, "batch_size": 8}, Effort(1, 12)),
    "tap": ("tap", {"clean_steps": 4, "pgd_steps": 10, "batch_size": 8}, Effort(1, 12)),
    "feature-target": ("feature-target", {"pgd_steps": 10, "views": True}, Effort(0, 30)),
    "uc": ("uc", {"clusters": 3, "epochs": 4}, Effort(1, 12)),
    "t2ue": ("t2ue", {"epochs": 4}, Effort(0, 4, 1)),
    # 9 rounds of one pass and 2 minibatches of half the samples; in 6 of them 3 answers are asked about
    "bait": ("bait", {"rounds": 9, "candidates": 3, "batch_size": 8}, Effort(18, 18)),
    # 5 rounds of one pass, and of 3 minibatches of half the samples in two styles and one more that are compared
    "vtg": ("vtg", {"rounds": 5, "theta_steps": 3, "batch_size": 8}, Effort(7.5, 27.5)),
    "a generator of pictures that is there": ("bait", {"reuse": "trained"}, Effort()),
    "a generator that is there": ("t2ue", {"epochs": 4, "reuse": "trained"}, Effort(0, 0, 1)),
    # 3 rounds of 4 steps of 5 draws with 2 steps of da before each, and of 2 minibatches of half the samples likewise
    "rem": ("rem", {**ROBUST}, Effort(0, 189)),
    "sem": ("sem", {**ROBUST}, Effort(0, 69)),
    # 3 rounds of 4 steps and of 2 minibatches of half the samples
    "mi-ue": ("mi-ue", {"rounds": 3, "theta_steps": 2, "pgd_steps": 4, "batch_size": 8}, Effort(0, 15)),
    # 3 models, under each of which 4 colours are tried 3 times, and 10 steps taken; 4 minibatches of half the samples
    "dune": (
        "dune",
        {"clean_steps": 4, "batch_size": 8, "models": 3, "pgd_steps": 10, "particles": 4, "iterations": 3},
        Effort(36, 32),
    ),
    # as of mi-ue, each of two views
    "tue": ("tue", {"rounds": 3, "theta_steps": 2, "pgd_steps": 4, "batch_size": 8}, Effort(0, 30)),
    # 3 rounds of 4 steps of 2 draws, and of 2 minibatches of half the samples twice
    "anti-finetune": (
        "anti-finetune",
        {"rounds": 3, "theta_steps": 2, "pgd_steps": 4, "draws": 2, "batch_size": 8},
        Effort(0, 30),
    ),
    # as of anti-finetune with one draw, through two purifiers too; features as if the language model ran too
    "style-eot": ("style-eot", {"rounds": 3, "theta_steps": 2, "pgd_steps": 4, "batch_size": 8}, Effort(0, 78)),
    # the same as of em, and in 2 rounds the budget's 5 words
    "mem": (
        "mem",
        {"rounds": 3, "text_rounds": 2, "pgd_steps": 4, "theta_steps": 2, "batch_size": 8, **TEXT},
        Effort(6, 25, 100),
    ),
    "mem with short triggers": (
        "mem",
        {"rounds": 1, "pgd_steps": 4, "theta_steps": 2, "batch_size": 8, "trigger_tokens": 2, **TEXT},
        Effort(2, 7, 20),
    ),
    # 3 rounds of 2 minibatches of half the samples, and of the budget's 5 words
    "text-em": ("text-em", {"rounds": 3, "theta_steps": 2, "batch_size": 8, **TEXT}, Effort(0, 18, 150)),
    "all words": ("mmguard-bph", {**STEPS, **TEXT}, Effort(6, 33, 150)),
    "two slots": ("mmguard-crs", {**STEPS, **TEXT, "slots": 2}, Effort(6, 24, 60)),
    "more slots than words": ("mmguard-crs-max", {**STEPS, **TEXT, "slots": 9}, Effort(6, 33, 150)),
    "pictures alone": ("mmguard-image", {**STEPS}, Effort(6, 18)),
    "text alone": ("mmguard-text", {"rounds": 3, "inner_steps": 2, **TEXT}, Effort(6, 21, 150)),
}


def defense(name: str, **config: object) -> Defense:
    return Registry().create("defense", name, config)


@pytest.mark.parametrize("case", EFFORTS)
def test_the_effort_of_a_sample_is_counted(case: str) -> None:
    name, config, wanted = EFFORTS[case]
    assert defense(name, **config).effort(SAMPLES, BUDGET) == wanted


def test_no_words_no_text() -> None:
    for name in ("mmguard-multimodal", "mem", "text-em"):
        assert defense(name).effort(SAMPLES, Budget(text=0)).texts == 0


@pytest.mark.parametrize("name", [entry.id for entry in Registry().entries("defense")])
def test_a_dry_run_takes_a_few_passes(name: str) -> None:
    given = {"folder": "photos"} if name == "released" else {}  # which has no default
    config = Registry().get("defense", name).load().Config
    small = defense(name, **{**config.small(), **given}).effort(SAMPLES, BUDGET)
    assert small.forwards <= 2 and small.gradients <= 7 and small.texts <= 10
    assert small.texts <= 2 or name in ("mem", "text-em")  # have no setting for the words of a round
