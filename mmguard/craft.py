"""One batch within a round of Algorithm 1: PGD on the pictures, then screen-and-verify on the triggers, at adapted
surrogates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arena.budget import Budget
from arena.data.copies import Local
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch, Role
from arena.lvlm.continuation import Version
from arena.lvlm.perturbation import as_rgb, check_finite
from arena.lvlm.pixels import to_tensor
from arena.lvlm.shortcuts import same_pictures
from mmguard import image as pictures
from mmguard import trigger as triggers
from mmguard.attention import (
    Shift,
    align,
    check_causal_order,
    image_keys,
    mean_attention,
    theorem_5_1,
)
from mmguard.candidates import candidate_losses
from mmguard.objective import (
    Objective,
    Reference,
    Terms,
    affected,
    attend,
    combine,
    compared,
    evaluate,
    l_prot,
    l_train,
    layers_of,
    reference,
)
from mmguard.purifiers import Seen, views
from mmguard.settings import Pictures
from mmguard.trigger import Trigger, Vocabulary


@dataclass
class Tally:
    """How often a clamp or a cap bound while gradients were taken."""

    clamped: Tensor
    capped: Tensor

    @classmethod
    def new(cls) -> Tally:
        return cls(torch.tensor(0), torch.tensor(0))

    def add(self, terms: Terms) -> None:
        self.clamped = self.clamped + terms.bind.clamped.cpu()
        self.capped = self.capped + terms.bind.capped.cpu()


@dataclass(frozen=True)
class Look:
    """`LVLM.pixel_inputs` of perturbed pictures at a surrogate, and the perturbations."""

    delta: Sequence[Tensor]
    pixels: dict[str, Tensor]


@dataclass
class Crafting:
    """The samples of one batch and their current protection.

    `clean` are the pictures and `delta` the perturbations, int16 levels ``(C, H, W)``; `shares` says which samples have
    which. `words` are the triggers, `gaps` where they stand, `surrogates` the adapted models with their `weights`,
    `references` what each sees of the clean samples, `tallies` one a surrogate. Pictures are also crafted through the
    views and purifiers that `beside` asks for.
    """

    samples: Sequence[Sample]
    clean: list[Tensor]
    delta: list[Tensor]
    words: list[Trigger]
    gaps: Sequence[int]
    surrogates: Sequence[LVLM]
    weights: Sequence[float]
    objective: Objective
    references: list[Reference]
    tallies: list[Tally]
    shares: Local
    beside: Pictures = field(default_factory=Pictures)
    looks: dict[int, Look] = field(default_factory=dict)
    """By surrogate, what it last saw; see `look`."""

    @classmethod
    def start(
        cls,
        samples: Sequence[Sample],
        delta: list[Tensor],
        words: list[Trigger],
        gaps: Sequence[int],
        surrogates: Sequence[LVLM],
        weights: Sequence[float],
        objective: Objective,
        tallies: list[Tally],
        shares: Local | None = None,
        beside: Pictures | None = None,
    ) -> Crafting:
        shares = Local.apart(len(samples)) if shares is None else shares
        beside = Pictures() if beside is None else beside
        shown = [samples[i].image for i in shares.shows]
        clean = [pictures.levels(image) for image in shown]
        references = []
        for lvlm in surrogates:
            images = [to_tensor(image).to(lvlm.device) for image in shown]
            of_samples = [images[p] for p in shares.picture]
            references.append(reference(lvlm, samples, layers_of(objective, lvlm), objective.answer_rows, of_samples))
        return cls(
            *(samples, clean, delta, words, gaps, surrogates, weights, objective, references, tallies, shares, beside)
        )

    def version(self, i: int, words: Trigger) -> Version:
        """Sample i's question with the given trigger, and the trigger's span."""
        return triggers.insert(self.samples[i].question, words, self.gaps[i])

    @torch.no_grad()
    def look(self, lvlm: LVLM) -> Look:
        """The perturbed pictures as a surrogate sees them; what was seen is kept while no perturbation is replaced."""
        last = self.looks.get(id(lvlm))
        if last is None or any(a is not b for a, b in zip(last.delta, self.delta, strict=True)):
            self.looks.pop(id(lvlm), None)  # there may be no room for both
            pairs = zip(self.clean, self.shares.delta, strict=True)
            images = [as_rgb(pictures.pixels(x, self.delta[d])).to(lvlm.device) for x, d in pairs]
            pixels = lvlm.inputs_of([images[p] for p in self.shares.picture])
            last = self.looks[id(lvlm)] = Look(tuple(self.delta), pixels)
        return last

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of sample i's picture."""
        height, width = self.clean[self.shares.picture[i]].shape[-2:]
        return height, width

    def encode(self, lvlm: LVLM) -> Batch:
        """The protected samples as a batch of `lvlm`."""
        versions = [self.version(i, words) for i, words in enumerate(self.words)]
        rows = [
            lvlm.encode_text(self.size(i), text, sample.answer, span)
            for i, (sample, (text, span)) in enumerate(zip(self.samples, versions, strict=True))
        ]
        batch = lvlm.collate(rows, self.look(lvlm).pixels, (), torch.arange(len(rows)))
        check_causal_order(batch.roles)
        return batch

    def perturb(self, steps: int, step: int, radius: int, turn: int = 0) -> None:
        """PGD on every picture (eqs. 13-15); `turn` counts the steps before, by which views of pictures are drawn."""
        if steps == 0:
            return
        batches = [self.encode(lvlm) for lvlm in self.surrogates]

        def losses(number: int, images: list[Tensor]) -> Iterator[Tensor]:
            joint = []
            for lvlm, batch, clean, tally in zip(self.surrogates, batches, self.references, self.tallies, strict=True):
                on_device = [x.to(lvlm.device) for x in images]
                seen = lvlm.with_images(batch, [on_device[p] for p in self.shares.picture])
                terms, _ = evaluate(self.objective, lvlm, seen, clean)
                tally.add(terms)
                joint.append(terms.joint)
            yield l_prot(joint, self.weights)
            for through in views(self.beside, turn + number):
                for lvlm, weight in zip(self.surrogates, self.weights, strict=True):
                    chosen = [i for i in range(len(self.samples)) if through.concerned(lvlm, *self.size(i))]
                    if chosen and weight:
                        yield self._through(through, chosen, lvlm, weight, images)

        self.delta = pictures.pgd(self.clean, self.delta, losses, steps, step, radius, self.shares.delta)

    def _through(
        self, seen: Seen, chosen: Sequence[int], lvlm: LVLM, weight: float, images: Sequence[Tensor]
    ) -> Tensor:
        """The weighted joint losses of the `chosen` samples, seen through a view as their clean pictures are; a
        question that the view words otherwise has no trigger."""
        used = sorted({self.shares.picture[i] for i in chosen})
        shown = dict(zip(used, seen.pictures([images[p].to(lvlm.device) for p in used]), strict=True))
        with torch.no_grad():
            original = [as_rgb(self.clean[p].float() / 255).to(lvlm.device) for p in used]
            before = dict(zip(used, seen.pictures(original), strict=True))
        places = [self.shares.picture[i] for i in chosen]
        given = [self.samples[i] for i in chosen]
        samples = seen.questions(given)
        versions = [
            self.version(i, self.words[i]) if asked is own else (asked.question, None)
            for i, own, asked in zip(chosen, given, samples, strict=True)
        ]
        texts = [s.with_content(s.image, text) for s, (text, _) in zip(samples, versions, strict=True)]
        layers, rows = layers_of(self.objective, lvlm), self.objective.answer_rows
        clean = reference(lvlm, samples, layers, rows, [before[p] for p in places])
        batch = lvlm.encode(texts, [shown[p] for p in places], [span for _, span in versions])
        terms, _ = evaluate(self.objective, lvlm, batch, clean)
        return weight * terms.joint

    def rewrite(
        self,
        vocabulary: Vocabulary,
        slots: Sequence[int],
        candidates: int,
        most_tokens: int,
        lambda_ppl: float,
        batch_size: int,
        budget: Budget,
    ) -> int:
        """Screen and verify every slot in turn (eqs. 16-20), leaving out what the budget forbids; returns how many
        words changed."""
        barred = [vocabulary.places_of(budget.forbidden(sample)) for sample in self.samples]
        with ExitStack() as stack:
            for lvlm in self.surrogates:
                stack.enter_context(same_pictures(lvlm))
            changed = 0
            for slot in slots:
                active = [i for i, words in enumerate(self.words) if slot < len(words)]
                if active:
                    best = triggers.screen(self.scores(vocabulary, slot), candidates, barred)
                    options = [[words] for words in self.words]
                    for i in active:
                        words = self.words[i]
                        options[i] += [(*words[:slot], vocabulary.words[v], *words[slot + 1 :]) for v in best[i]]
                    losses = self.verify(options, lambda_ppl, batch_size)
                    changed += sum(self._choose(i, options[i], losses[i], most_tokens, budget) for i in active)
            return changed

    def _choose(self, i: int, options: Sequence[Trigger], losses: Tensor, most_tokens: int, budget: Budget) -> bool:
        """Give sample i the best of its options that fits the budget; whether that is another trigger."""
        tokenizer = self.surrogates[0].tokenizer

        def fits(c: int) -> bool:
            text = self.version(i, options[c])[0]
            return triggers.fits(self.samples[i], text, most_tokens, tokenizer, budget)

        before = self.words[i]
        self.words[i] = options[triggers.choose(losses, fits)]
        return self.words[i] != before

    def scores(self, vocabulary: Vocabulary, slot: int) -> Tensor:
        """Screening scores of V_adm, ``(B, V)``, by the first surrogate."""
        lvlm = self.surrogates[0]
        batch = self.encode(lvlm)
        terms, forward = evaluate(self.objective, lvlm, batch, self.references[0], embeddings=True)
        self.tallies[0].add(terms)
        assert forward.embeddings is not None
        positions = [self._positions(lvlm, i, min(slot, len(words) - 1)) for i, words in enumerate(self.words)]
        current, gradient = triggers.slot_gradient(terms.joint, forward.embeddings, positions)
        table = lvlm.model.get_input_embeddings().weight.detach()[vocabulary.ids.to(lvlm.device)]
        return triggers.screening_scores(table, current, gradient)

    def _positions(self, lvlm: LVLM, i: int, slot: int) -> list[int]:
        if slot < 0:  # no trigger fitted this question; its scores are not used
            return [0]
        words = self.words[i]
        return triggers.slot_positions(lvlm, self.size(i), self.version(i, words), words, slot, self.samples[i].answer)

    def verify(self, options: Sequence[Sequence[Trigger]], lambda_ppl: float, batch_size: int) -> list[Tensor]:
        """l_prot of every option, on the CPU, plus the weighted log-perplexity of the question where it counts."""
        versions = [[self.version(i, words) for words in some] for i, some in enumerate(options)]
        by_surrogate = []
        for lvlm, clean in zip(self.surrogates, self.references, strict=True):
            sizes = [self.size(i) for i in range(len(self.samples))]
            pixels = self.look(lvlm).pixels
            losses = candidate_losses(self.objective, lvlm, self.samples, sizes, versions, clean, batch_size, pixels)
            if lambda_ppl:
                texts = [text for some in versions for text, _ in some]
                with lvlm.model.disable_adapter():  # fluent in the eyes of the base model
                    logs = torch.tensor(lvlm.perplexities(texts, batch_size)).log().split([len(s) for s in versions])
                losses = [loss + lambda_ppl * log for loss, log in zip(losses, logs, strict=True)]
            by_surrogate.append(losses)
        return [l_prot(of_sample, self.weights) for of_sample in zip(*by_surrogate, strict=True)]

    @torch.no_grad()
    def measure(self, shifts: bool) -> list[tuple[Terms, dict[str, Shift]]]:
        """For each surrogate the terms now, and if `shifts` are wanted, Theorem 5.1 for the trigger and for the
        perturbed image tokens."""
        measured: list[tuple[Terms, dict[str, Shift]]] = []
        for lvlm, clean in zip(self.surrogates, self.references, strict=True):
            batch = self.encode(lvlm)
            layers, rows = layers_of(self.objective, lvlm), self.objective.answer_rows
            forward, attention = attend(lvlm, batch, layers, (Role.TRIGGER, Role.ANSWER), rows)
            chosen = affected(lvlm, clean.pixels, batch.pixels, self.objective.tau_delta)
            used = None if self.objective.binding == "none" else attention
            terms = combine(self.objective, l_train(forward), used, chosen, compared(self.objective, clean))
            check_finite("the surrogates' loss", [terms.joint])
            if not shifts:
                measured.append((terms, {}))
                continue
            answer, aligned = mean_attention(attention, Role.ANSWER), align(*clean.attention, attention.keys)
            targets = {
                "trigger": attention.keys == Role.TRIGGER,
                "perturbation": image_keys(attention.keys, chosen),
            }
            measured.append((terms, {name: theorem_5_1(answer, aligned, keys) for name, keys in targets.items()}))
        return measured
