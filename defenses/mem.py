"""MEM: multi-step error minimisation of pictures and a text trigger together (Liu 2024, arXiv 2407.16307)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from pydantic import Field

from arena.budget import Budget
from arena.data.copies import Local, shared
from arena.data.sample import Sample
from arena.errors import UsageError
from arena.lvlm.adapters import fused
from arena.lvlm.perturbation import PIXELS
from arena.plugins.base import DefenderWorld, Defense, Draft, Effort, PluginConfig, setting
from defenses.claims import noise_lowers_the_loss
from defenses.perturbations import Perturbations, shuffled
from defenses.purifying import Purifying
from defenses.surrogate import Surrogate, SurrogateConfig
from mmguard.craft import Crafting, Tally
from mmguard.image import levels, pixels, radius, released
from mmguard.objective import Objective
from mmguard.settings import Pictures, image_steps
from mmguard.trigger import Trigger, admissible_vocabulary, initial_trigger, insert

FRONT = 0
"""Words of a question that stand before the trigger."""


class Mem(Purifying, Defense):
    """min over delta and trigger of min over theta of CE(f_theta(x + delta, t + trigger), y).

    Rounds of training steps of LoRA surrogates on the protected samples, in the first rounds one HotFlip pass over the
    trigger, and sign steps of every delta. While delta is crafted, the questions of a batch are shuffled anew for each
    step and triggers stay with their pictures, so that delta binds to the trigger and not to the question. One trigger
    a sample, at the beginning of its question.

    The defaults are those of the authors' code: 20 rounds of 200 training steps and 8 noise steps, triggers in the
    first 5. That is 4,000 training steps of each surrogate, 160 noise steps of every picture and 5 passes over its
    trigger. Suites on tiny models set less: surrogates that are trained so long on a hundred samples have hardly any
    loss left, and what is crafted on them protects little. It deviates from that code in what is trained: adapters of a
    model that answers questions, by the loss of the answer, instead of all weights of CLIP by the contrastive loss.
    Words of a trigger are the admissible ones of `mmguard.trigger`.

    Budget: L∞ on pictures, words in questions.
    """

    version = "2"
    needs = frozenset({"seed", "surrogates"})

    class Config(PluginConfig, Pictures):
        rounds: int = setting(
            20, dry_run=1, ge=1, description="rounds of training and crafting; 20 is the authors', as the next two"
        )
        theta_steps: int = setting(200, dry_run=1, ge=1, description="training steps of each surrogate per round")
        text_rounds: int = setting(5, dry_run=1, ge=0, description="first so many rounds also rewrite triggers")
        pgd_steps: int = setting(8, dry_run=1, ge=1, description="noise steps per round; 8 is the paper's")
        step: int = Field(1, ge=1, description="size of a noise step, in 1/255")
        trigger_tokens: int | None = Field(
            None, ge=0, description="words of a trigger, 3 or 5 in the paper; as many as the budget allows where unset"
        )
        candidates: int = setting(16, dry_run=2, ge=1, description="HotFlip candidates per word; 16 is the paper's")
        rank: int = setting(16, dry_run=2, ge=1, description="rank of the surrogates' LoRA adapters")
        learning_rate: float = Field(2e-3, gt=0, description="of the surrogates' adapters (AdamW)")
        batch_size: int = setting(
            32, dry_run=8, ge=1, description="samples per step, for the surrogates and for crafting"
        )
        candidate_batch: int = Field(128, ge=1, description="candidate texts that run at a time")

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """All rounds: noise steps, minibatches of training and two forward passes for what is measured; in rounds that
        rewrite triggers, a gradient and the candidates for each word."""
        c = self.config
        minibatches = c.theta_steps * min(c.batch_size, samples) / samples
        words = min(c.rounds, c.text_rounds) * (budget.text if c.trigger_tokens is None else c.trigger_tokens)
        gradients = c.rounds * (image_steps(c.pgd_steps, c) + minibatches) + words
        return Effort(forwards=2 * c.rounds, gradients=gradients, texts=words * c.candidates)

    def protect(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Draft]:
        c, rng, bound = self.config, world.rng(), radius(world.budget)
        words = world.budget.text if c.trigger_tokens is None else c.trigger_tokens
        if words > world.budget.text:
            raise UsageError(f"mem: a trigger of {words} words is beyond the budget of {world.budget.text}")
        torch.manual_seed(world.seed)
        training = SurrogateConfig.model_validate(c.model_dump(include={"rank", "learning_rate", "batch_size"}))
        surrogates = [Surrogate.start(lvlm, samples, training) for lvlm in world.surrogates()]
        vocabulary = admissible_vocabulary(surrogates[0].lvlm)
        tokenizer, sharing = surrogates[0].lvlm.tokenizer, shared(samples, c.copies == "near")
        delta = Perturbations([samples[i] for i in sharing.first], torch.int16)
        triggers = [initial_trigger(s, words, FRONT, vocabulary, tokenizer, rng, world.budget) for s in samples]

        def protected(part: Sequence[int]) -> list[torch.Tensor]:
            return [pixels(levels(samples[i].image), delta[sharing.of_sample[i]]) for i in part]

        order = shuffled(len(samples), c.batch_size, rng)
        parts = sharing.parts([s.image.width * s.image.height for s in samples], c.batch_size, PIXELS)
        for number in range(c.rounds):
            for surrogate in surrogates:
                surrogate.samples = WithTriggers(samples, list(triggers))
            losses = []
            for _ in range(c.theta_steps):
                part = next(order)
                losses += [surrogate.train_step(part, protected) for surrogate in surrogates]
            with ExitStack() as stack:
                for surrogate in surrogates:
                    stack.enter_context(fused(surrogate.lvlm))
                for one in parts:
                    shares, mine = sharing.local(one), [samples[i] for i in one]
                    noise = [delta[d] for d in shares.deltas]
                    crafting = self._start(surrogates, mine, shares, noise, [triggers[i] for i in one])
                    if words and number < c.text_rounds:
                        crafting.rewrite(
                            vocabulary, range(words), c.candidates, words, 0.0, c.candidate_batch, world.budget
                        )
                    for step in range(c.pgd_steps):
                        crafting.samples = _asked_otherwise(mine, rng)
                        crafting.perturb(1, c.step, bound, number * c.pgd_steps + step)
                    for d, values in zip(shares.deltas, crafting.delta, strict=True):
                        delta[d] = values
                    for i, trigger in zip(one, crafting.words, strict=True):
                        triggers[i] = trigger
            world.progress((number + 1) / c.rounds, f"loss {np.mean(losses):.3f}")
        return (
            Draft(released(s.image, delta[sharing.of_sample[i]]), insert(s.question, triggers[i], FRONT)[0])
            for i, s in enumerate(samples)
        )

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Questions begin with a trigger and are else as they were, and the noise lowers the surrogates' loss beside
        it."""
        words = world.budget.text if self.config.trigger_tokens is None else self.config.trigger_tokens
        for sample, other in zip(samples, released, strict=True):
            trigger = other.question.removesuffix(sample.question.lstrip())
            if other.question == sample.question or trigger == other.question or len(trigger.split()) > words:
                return f"the question of sample {sample.id!r} does not begin with a trigger of at most {words} words"
        return noise_lowers_the_loss(samples, released, world, released)

    def _start(
        self,
        surrogates: Sequence[Surrogate],
        samples: Sequence[Sample],
        shares: Local,
        delta: list[torch.Tensor],
        triggers: list[Trigger],
    ) -> Crafting:
        models = [surrogate.lvlm for surrogate in surrogates]
        return Crafting.start(
            samples,
            delta,
            triggers,
            [FRONT] * len(samples),
            models,
            [1 / len(models)] * len(models),
            Objective.model_validate({"objective": "none", "layers": 1}),
            [Tally.new() for _ in models],
            shares,
            self.config,
        )


def _asked_otherwise(samples: Sequence[Sample], rng: np.random.Generator) -> list[Sample]:
    """The samples with their questions shuffled; pictures and answers stay."""
    order = rng.permutation(len(samples)).tolist()
    return [s.with_content(s.image, samples[j].question) for s, j in zip(samples, order, strict=True)]


@dataclass(frozen=True)
class WithTriggers(Sequence[Sample]):
    """Samples with a trigger in each question, made when they are looked at."""

    samples: Sequence[Sample]
    triggers: Sequence[Trigger]

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        sample = self.samples[index]
        return sample.with_content(sample.image, insert(sample.question, self.triggers[index], FRONT)[0])
