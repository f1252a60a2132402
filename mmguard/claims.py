"""What MMGuard and its ablations claim of a release, tested on one: what changed, and that it lowers what the variant
minimises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from arena.budget import Budget
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from mmguard.craft import Crafting, Tally
from mmguard.image import levels, project, radius
from mmguard.objective import ensemble_weights
from mmguard.protect import Settings
from mmguard.trigger import Trigger, admissible_vocabulary, gaps_of, initial_trigger, trigger_in

DRAWS, DEVIATIONS = 8, 4
"""Draws of random signs, and by how many of their standard deviations the objective has to be below their mean."""


def missing(
    samples: Sequence[Sample],
    released: Sequence[Sample],
    surrogates: Sequence[LVLM],
    budget: Budget,
    settings: Settings,
    seed: int,
) -> str | None:
    """What a release does not have that `protect` gives with these arguments; None where it has all of it.

    Pictures change where the settings take image steps, questions by a trigger at its place where they have words for
    one. The weighted joint objective (eqs. 30-32) at the surrogates, without adapters, is lower than with random signs
    of the same perturbation, by more than chance, and than with the triggers that crafting began with.
    """
    words = budget.text if settings.trigger_tokens is None else settings.trigger_tokens
    gaps = gaps_of(samples, settings.position, seed, 0)
    triggers = []
    for sample, other, gap in zip(samples, released, gaps, strict=True):
        trigger = trigger_in(sample.question, other.question, gap)
        if trigger is None or len(trigger) > words:
            return f"the question of sample {sample.id!r} changed by more than a trigger of {words} words in its place"
        triggers.append(trigger)
    delta = [levels(b.image) - levels(a.image) for a, b in zip(samples, released, strict=True)]
    for what, changed, wanted in (
        ("picture", any(bool(d.any()) for d in delta), settings.pgd_steps > 0 and radius(budget) > 0),
        ("question", any(triggers), words > 0),
    ):
        if changed != wanted:
            return f"{'a' if changed else 'no'} {what} changed, which {'none' if changed else 'some'} should"

    def loss(delta: list[Tensor], triggers: list[Trigger]) -> float:
        weights = ensemble_weights(settings.surrogate_weights, len(surrogates))
        tallies = [Tally.new() for _ in surrogates]
        crafting = Crafting.start(samples, delta, triggers, gaps, surrogates, weights, settings, tallies)
        terms = [terms.joint.mean().item() for terms, _ in crafting.measure(shifts=False)]
        return sum(w * value for w, value in zip(weights, terms, strict=True))

    crafted = loss(delta, triggers)
    if any(bool(d.any()) for d in delta):
        generator = torch.Generator().manual_seed(seed)
        clean = [levels(s.image) for s in samples]

        def mixed(d: Tensor, x: Tensor) -> Tensor:
            signs = torch.randint(0, 2, d.shape, generator=generator, dtype=d.dtype) * 2 - 1
            return project(d.abs() * signs, x, radius(budget))

        random = [loss(list(map(mixed, delta, clean)), triggers) for _ in range(DRAWS)]
        if not crafted < np.mean(random) - DEVIATIONS * np.std(random):
            return (
                f"what it minimises is {crafted:.6g}, and {np.mean(random):.6g} ± {np.std(random):.2g} with random "
                "signs of the same perturbation"
            )
    if words:
        vocabulary, tokenizer = admissible_vocabulary(surrogates[0]), surrogates[0].tokenizer
        began = [
            initial_trigger(s, words, gap, vocabulary, tokenizer, np.random.default_rng([seed, i, 1]), budget)
            for i, (s, gap) in enumerate(zip(samples, gaps, strict=True))
        ]
        if not crafted < (begun := loss(delta, began)):
            return f"what it minimises is {crafted:.6g}, and {begun:.6g} with the triggers that crafting began with"
    return None
