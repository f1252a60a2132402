"""Error-minimising words: min-min on text alone, a trigger per class (Li 2023, arXiv 2307.00456)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field

from arena.budget import Budget
from arena.data.sample import Sample
from arena.errors import UsageError
from arena.lvlm.adapters import fused
from arena.lvlm.base import LVLM
from arena.lvlm.perturbation import PIXELS, batches, pieces, planes
from arena.lvlm.shortcuts import same_pictures
from arena.plugins.base import DefenderWorld, Defense, Draft, Effort, PluginConfig, setting
from defenses.classes import answer_classes
from defenses.mem import FRONT, WithTriggers
from defenses.perturbations import shuffled
from defenses.surrogate import LearnerConfig, Surrogate
from mmguard.craft import Crafting, Tally
from mmguard.image import levels
from mmguard.objective import Objective
from mmguard.trigger import (
    Trigger,
    Vocabulary,
    admissible_vocabulary,
    choose,
    fits,
    initial_trigger,
    insert,
    screen,
    trigger_in,
)

DRAWS = 8
"""Random triggers that are tried to begin with, and that a crafted one is compared with."""


class TextErrorMinimizing(Defense):
    """min_trigger min_theta CE(f_theta(x, trigger + t), y): one trigger at the beginning of all questions of a class.

    Rounds of training steps of LoRA surrogates on the protected samples, and of one pass over the words of every
    trigger. A word is replaced by that of the lowest first-order estimate of the loss (HotFlip): with e the embeddings
    and g_i the gradient of sample i's loss by that of the word,

        argmin over v of e_v * sum of g_i, over a batch of the class's samples

    A class's trigger is a pattern that every one of its questions has, which is learned in place of what they ask; the
    paper finds that such simple patterns keep their effect on other models. `classwise: false` crafts a trigger for
    each question, as the paper's noise for single texts. Pictures stay as they are. The authors' code takes 30 training
    steps before it looks for words anew, and begins a class-wise trigger of any length at the front of a text.

    Adapted: the class is the answer, see `defenses.classes`, the loss that of its tokens, and the model a pretrained
    one with LoRA adapters. In the authors' code single texts have a word replaced; here questions, of which nothing may
    be lost, have words inserted. Words are the admissible ones of `mmguard.trigger`, begin at random ones instead of
    "the", and none gives an answer away. They are replaced one after the other, and one stays where its successor would
    not lower the loss of the batch: that code replaces all at once, in batches whose loss is the lowest so far. It
    looks for words until accuracy on test data no longer rises, in one pass over fewer than 10,000 texts; here rounds
    are fixed. Questions in which their class's trigger does not fit the budget share another one.

    Budget: words in questions.
    """

    needs = frozenset({"seed", "surrogates"})
    packages = ("scikit-learn",)

    class Config(PluginConfig):
        classwise: bool = Field(True, description="one trigger for all questions with one answer, not one for each")
        rounds: int = setting(10, dry_run=1, ge=1, description="rounds of training and of one pass over triggers")
        theta_steps: int = setting(
            30, dry_run=1, ge=1, description="training steps of each surrogate per round; 30 is the authors'"
        )
        trigger_tokens: int | None = Field(
            None, ge=0, description="words of a trigger; as many as the budget allows where unset"
        )
        candidates: int = Field(
            1, ge=1, description="words per place that are run, best estimates first; the authors take the first"
        )
        rank: int = setting(16, dry_run=2, ge=1, description="rank of the surrogates' LoRA adapters")
        learning_rate: float = Field(2e-3, gt=0, description="of the surrogates' adapters (AdamW)")
        batch_size: int = setting(
            32, dry_run=8, ge=1, description="samples per step, for the surrogates and for crafting"
        )
        candidate_batch: int = Field(128, ge=1, description="candidate texts that run at a time")

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """All rounds: minibatches of training, a gradient and the candidates for each word; of a class with more
        samples than a batch has, fewer."""
        c = self.config
        words = budget.text if c.trigger_tokens is None else c.trigger_tokens
        minibatches = c.theta_steps * min(c.batch_size, samples) / samples
        return Effort(gradients=c.rounds * (minibatches + words), texts=c.rounds * words * c.candidates)

    def protect(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Draft]:
        c, rng, words = self.config, world.rng(), self._words(world.budget)
        torch.manual_seed(world.seed)
        training = LearnerConfig.model_validate(c.model_dump(include={"rank", "learning_rate", "batch_size"}))
        surrogates = [Surrogate.start(lvlm, samples, training) for lvlm in world.surrogates()]
        vocabulary = admissible_vocabulary(surrogates[0].lvlm)
        beginnings = Beginnings(samples, words, vocabulary, surrogates[0].lvlm, world.budget, rng)
        patterns = [one for members in self._classes(samples, world.seed) for one in beginnings.of(members)]
        triggers: list[Trigger] = [()] * len(samples)
        _give(triggers, patterns)
        order = shuffled(len(samples), c.batch_size, rng)

        def shown(part: Sequence[int]) -> list[torch.Tensor]:
            return [planes(samples[i].image) for i in part]

        for number in range(c.rounds):
            for surrogate in surrogates:
                surrogate.samples = WithTriggers(samples, list(triggers))
            losses = []
            for _ in range(c.theta_steps):
                part = next(order)
                losses += [surrogate.train_step(part, shown) for surrogate in surrogates]
            with ExitStack() as stack:
                for surrogate in surrogates:
                    stack.enter_context(fused(surrogate.lvlm))
                    stack.enter_context(same_pictures(surrogate.lvlm))
                for several in _parts(patterns, samples, c.batch_size, rng) if words else ():
                    self._rewrite(several, samples, [s.lvlm for s in surrogates], vocabulary, world.budget)
            _give(triggers, patterns)
            world.progress((number + 1) / c.rounds, f"loss {np.mean(losses):.3f}")
        return (Draft(s.image, insert(s.question, triggers[i], FRONT)[0]) for i, s in enumerate(samples))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Questions alone change, by a trigger at their beginning, which is one for all of a class that it fits; the
        surrogates' loss is lower than with random words in the place of these, drawn a few times."""
        surrogates, words = world.surrogates(), self._words(world.budget)
        vocabulary, tokenizer = admissible_vocabulary(surrogates[0]), surrogates[0].tokenizer
        triggers: list[Trigger] = []
        for sample, other in zip(samples, released, strict=True):
            same = sample.question == other.question
            trigger = () if same else trigger_in(sample.question, other.question, FRONT)
            if sample.image.tobytes() != other.image.tobytes():
                return f"the picture of sample {sample.id!r} changed"
            if trigger is None or len(trigger) > words:
                return f"the question of sample {sample.id!r} does not begin with a trigger of at most {words} words"
            triggers.append(trigger)
        if not any(triggers):
            return "no question changed" if words else None
        classes = self._classes(samples, world.seed)
        for members in classes:
            own = [triggers[i] for i in members]
            pattern = max(own, key=lambda one: (len(one), own.count(one)))
            for i in members:
                changed = insert(samples[i].question, pattern, FRONT)[0]
                if triggers[i] != pattern and fits(samples[i], changed, words, tokenizer, world.budget):
                    return f"sample {samples[i].id!r} has another trigger than others with its answer"
        rng = np.random.default_rng(world.seed)
        for lvlm in surrogates:
            crafted = _loss(lvlm, released)
            random = []
            for _ in range(DRAWS):
                drawn: list[Trigger] = [()] * len(samples)
                for members in classes:
                    length = max(len(triggers[i]) for i in members)
                    _give(drawn, Beginnings(samples, length, vocabulary, lvlm, world.budget, rng).of(members))
                random.append(_loss(lvlm, WithTriggers(samples, drawn)))
            if not crafted < min(random):
                return f"the surrogate's loss is {crafted:.6g}, and {min(random):.6g} with random words instead"
        return None

    def _words(self, budget: Budget) -> int:
        words = budget.text if self.config.trigger_tokens is None else self.config.trigger_tokens
        if words > budget.text:
            raise UsageError(f"text-em: a trigger of {words} words is beyond the budget of {budget.text}")
        return words

    def _classes(self, samples: Sequence[Sample], seed: int) -> list[list[int]]:
        """The numbers of the samples that are to have one trigger."""
        if not self.config.classwise:
            return [[i] for i in range(len(samples))]
        classes = answer_classes(samples, seed)
        return [np.flatnonzero(classes == kind).tolist() for kind in np.unique(classes)]

    def _rewrite(
        self,
        several: Sequence[tuple[Pattern, Sequence[int]]],
        samples: Sequence[Sample],
        surrogates: Sequence[LVLM],
        vocabulary: Vocabulary,
        budget: Budget,
    ) -> None:
        """One pass over the words of some patterns, by the loss of some samples of each."""
        c, words = self.config, self._words(budget)
        numbers = [i for _, drawn in several for i in drawn]
        places = np.split(np.arange(len(numbers)), np.cumsum([len(drawn) for _, drawn in several])[:-1])
        mine = [samples[i] for i in numbers]
        crafting = Crafting.start(
            mine,
            [torch.zeros_like(levels(s.image)) for s in mine],
            [pattern.trigger for pattern, drawn in several for _ in drawn],
            [FRONT] * len(mine),
            surrogates,
            [1 / len(surrogates)] * len(surrogates),
            Objective.model_validate({"objective": "none", "layers": 1}),
            [Tally.new() for _ in surrogates],
        )
        barred = [
            vocabulary.places_of(frozenset().union(*(budget.forbidden(samples[i]) for i in pattern.members)))
            for pattern, _ in several
        ]
        tokenizer = surrogates[0].tokenizer
        for slot in range(words):
            if not any(slot < len(pattern.trigger) for pattern, _ in several):
                break
            scores = crafting.scores(vocabulary, slot)
            best = screen(torch.stack([scores[own.tolist()].sum(0) for own in places]), c.candidates, barred)
            options = []
            for (pattern, _), found in zip(several, best, strict=True):
                now = pattern.trigger
                others = found if slot < len(now) else ()
                options.append([now, *((*now[:slot], vocabulary.words[v], *now[slot + 1 :]) for v in others)])
            each = [options[number] for number, own in enumerate(places) for _ in own]
            losses = crafting.verify(each, 0.0, c.candidate_batch)
            for (pattern, _), own, tried in zip(several, places, options, strict=True):

                def feasible(at: int, pattern: Pattern = pattern, tried: Sequence[Trigger] = tried) -> bool:
                    return all(
                        fits(samples[i], insert(samples[i].question, tried[at], FRONT)[0], words, tokenizer, budget)
                        for i in pattern.members
                    )

                pattern.trigger = tried[choose(torch.stack([losses[i] for i in own]).sum(0), feasible)]
                for i in own:
                    crafting.words[i] = pattern.trigger


@dataclass
class Pattern:
    """A trigger, and the numbers of the samples that have it."""

    trigger: Trigger
    members: list[int]


@dataclass
class Beginnings:
    """Random triggers of so many `words` at most, which those questions share that have room for them."""

    samples: Sequence[Sample]
    words: int
    vocabulary: Vocabulary
    lvlm: LVLM
    budget: Budget
    rng: np.random.Generator

    def of(self, members: Sequence[int]) -> Iterator[Pattern]:
        """Patterns for some samples: as a rule one; several where it does not fit all of them. Of `DRAWS` triggers that
        one is taken first which puts most words into questions."""
        left = list(members)
        while left:
            best = Pattern((), left)
            for _ in range(DRAWS):
                one = self.samples[left[int(self.rng.integers(len(left)))]]
                trigger = initial_trigger(
                    one, self.words, FRONT, self.vocabulary, self.lvlm.tokenizer, self.rng, self.budget
                )
                able = [i for i in left if self._fits(i, trigger)]
                if len(trigger) * len(able) > len(best.trigger) * len(best.members):
                    best = Pattern(trigger, able)
                if len(able) == len(left) and len(trigger) == self.words:
                    break
            yield best
            taken = set(best.members)
            left = [i for i in left if i not in taken]

    def _fits(self, i: int, trigger: Trigger) -> bool:
        question = insert(self.samples[i].question, trigger, FRONT)[0]
        return fits(self.samples[i], question, self.words, self.lvlm.tokenizer, self.budget)


def _give(triggers: list[Trigger], patterns: Iterable[Pattern]) -> None:
    """Write down which trigger each sample has."""
    for pattern in patterns:
        for i in pattern.members:
            triggers[i] = pattern.trigger


def _parts(
    patterns: Sequence[Pattern], samples: Sequence[Sample], batch_size: int, rng: np.random.Generator
) -> Iterator[list[tuple[Pattern, list[int]]]]:
    """Patterns with at most a batch of their samples, drawn at random; as many at a time as are a batch together."""
    part: list[tuple[Pattern, list[int]]] = []
    room, pixels = batch_size, PIXELS
    for pattern in patterns:
        drawn = pieces(rng.permutation(pattern.members)[:batch_size].tolist(), samples)[0]
        size = sum(samples[i].image.width * samples[i].image.height for i in drawn)
        if part and (len(drawn) > room or size > pixels):
            yield part
            part, room, pixels = [], batch_size, PIXELS
        part.append((pattern, drawn))
        room, pixels = room - len(drawn), pixels - size
    if part:
        yield part


@torch.no_grad()
def _loss(lvlm: LVLM, samples: Sequence[Sample]) -> float:
    losses = [lvlm.losses(lvlm.encode([samples[i] for i in part])) for part in batches(len(samples), 8)]
    return float(torch.cat(losses).mean())
