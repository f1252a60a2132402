"""Algorithm 1: rounds of adapting the surrogates to the protected samples, then perturbing pictures and rewriting
triggers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arena.budget import Budget
from arena.data.copies import Local, shared
from arena.data.sample import Sample
from arena.errors import UsageError
from arena.lvlm.adapters import fused
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.lvlm.perturbation import PIXELS, pieces
from arena.plugins.base import Draft
from mmguard import trigger as triggers
from mmguard.adapt import adapted, train
from mmguard.attention import Shift
from mmguard.craft import Crafting, Tally
from mmguard.image import radius, released
from mmguard.objective import Objective, Terms, ensemble_weights
from mmguard.settings import ImageStep, Rounds, TextStep
from mmguard.workspace import State, Turn, Workspace, run_key

Progress = Callable[[float, str], None]


class Settings(Objective, Rounds, ImageStep, TextStep):
    """Objective and effort of Algorithm 1; the image budget and the longest trigger come from the budget."""


class Drafts:
    """The protected samples in order, read from the workspace one at a time; may be iterated again."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def __len__(self) -> int:
        return len(self._run.samples)

    def __iter__(self) -> Iterator[Draft]:
        run = self._run
        for i, sample in enumerate(run.samples):
            (delta,) = run.workspace.read([run.sharing.of_sample[i]])
            yield Draft(released(sample.image, delta), run.question(i, sample))


@dataclass(frozen=True)
class Protection:
    """What `protect` gives.

    `log` has one entry a round: number of the round, and for each surrogate the loss it was adapted to by pass, mean
    training, binding and joint loss after crafting, each path, how often clamp and cap bound; besides the mean
    ensemble loss, the mean |delta| in 1/255 and the words changed. `diagnostics` has one entry a sample, measured in
    the last round: by surrogate, eta, bound and measured TV of Theorem 5.1 for trigger and perturbation (null where
    there is none).
    """

    drafts: Drafts
    log: list[dict[str, Any]]
    diagnostics: list[dict[str, Any]]


def protect(
    samples: Sequence[Sample],
    surrogates: Sequence[LVLM],
    budget: Budget,
    settings: Settings,
    seed: int,
    workspace: Path | None = None,
    progress: Progress | None = None,
) -> Protection:
    """Protect `samples` against fine-tuning, in order (Algorithm 1).

    Memory is bounded by the batch, which has fewer samples where their pictures are large: samples are taken from the
    sequence when needed, perturbations live in `workspace` (a folder that makes the run resumable by round, and gets a
    `log.json`; a temporary one where None). Samples with one picture have one perturbation, for all their questions.
    Screening uses the first surrogate, whose tokenizer also counts the budget's tokens; verification the weighted sum
    of all.
    The same arguments give the same bytes on one machine and thread count. The surrogates are frozen, and otherwise
    left as they were.

    Raises `UsageError` for a budget or setting that does not fit.
    """
    temporary = tempfile.TemporaryDirectory(prefix="mmguard-") if workspace is None else None
    folder = Path(temporary.name) if temporary else workspace
    assert folder is not None
    run = _Run(samples, surrogates, budget, settings, seed, folder, progress)
    run.keep_alive = temporary
    run.work()
    state = run.workspace.state
    report = {"log": state.log, "diagnostics": state.diagnostics}
    (folder / "log.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return Protection(Drafts(run), state.log, state.diagnostics)


def summary(protection: Protection) -> dict[str, float]:
    """Numbers of a run for its record: the first surrogate's losses in the last round, and Theorem 5.1 over the
    samples.

    Of eta, bound and measured TV the means over the samples that have them; ``trigger-violations`` counts samples whose
    measured TV is below the bound, which for the trigger the theorem rules out.
    """
    last = protection.log[-1]
    numbers = {"loss": float(last["loss"])}
    numbers |= {f"loss-{name}": float(v) for name, v in last["surrogates"][0].items() if isinstance(v, float)}
    for target in ("trigger", "perturbation"):
        shifts = [d["surrogates"][0][target] for d in protection.diagnostics]
        shifts = [shift for shift in shifts if shift is not None]
        if shifts:
            for name in ("eta", "bound", "measured"):
                numbers[f"{target}-{name}"] = float(np.mean([shift[name] for shift in shifts]))
            numbers[f"{target}-violations"] = float(sum(s["measured"] < s["bound"] - 1e-6 for s in shifts))
    return numbers


class _Run:
    """One run of Algorithm 1 over a workspace."""

    keep_alive: object = None
    """The temporary folder, which goes when the drafts do."""

    def __init__(
        self,
        samples: Sequence[Sample],
        surrogates: Sequence[LVLM],
        budget: Budget,
        settings: Settings,
        seed: int,
        folder: Path,
        progress: Progress | None,
    ) -> None:
        self.samples, self.surrogates, self.settings, self.seed = samples, surrogates, settings, seed
        if not surrogates or not samples:
            raise UsageError("mmguard needs at least one sample and one surrogate model")
        self.weights = ensemble_weights(settings.surrogate_weights, len(surrogates))
        self.radius = radius(budget)
        self.budget = budget
        self.words = budget.text if settings.trigger_tokens is None else settings.trigger_tokens
        if self.words > budget.text:
            raise UsageError(
                f"a trigger of {self.words} words is beyond the budget of {budget.text}: lower trigger_tokens"
            )
        self.vocabulary = triggers.admissible_vocabulary(surrogates[0]) if self.words else None
        self.progress = progress or (lambda done, note: None)
        described = f"{settings.model_dump_json()} {budget.model_dump_json()} {seed}"
        self.sharing = shared(samples, settings.copies == "near")
        one_of_each = [samples[i] for i in self.sharing.first]
        self.workspace = Workspace(folder, one_of_each, run_key(samples, surrogates, described))
        if not self.workspace.state.triggers:
            self.workspace.state.triggers = [list(self._first_trigger(i, s)) for i, s in enumerate(samples)]

    def _first_trigger(self, i: int, sample: Sample) -> triggers.Trigger:
        if self.vocabulary is None:
            return ()
        rng = np.random.default_rng([self.seed, i, 1])
        tokenizer = self.surrogates[0].tokenizer
        return triggers.initial_trigger(
            sample, self.words, self.gap(i, sample), self.vocabulary, tokenizer, rng, self.budget
        )

    def gap(self, i: int, sample: Sample) -> int:
        return triggers.gaps_of([sample], self.settings.position, self.seed, i)[0]

    def question(self, i: int, sample: Sample) -> str:
        """Sample i's released question."""
        return triggers.insert(sample.question, tuple(self.workspace.state.triggers[i]), self.gap(i, sample))[0]

    def work(self) -> None:
        for number in range(self.workspace.state.rounds, self.settings.rounds):
            with ExitStack() as stack:
                self._round(number, stack)

    def _round(self, number: int, stack: ExitStack) -> None:
        c, before = self.settings, self.workspace.state
        self._report(number, 0, "adapting the surrogates")
        tuned, losses = [], []
        for m, lvlm in enumerate(self.surrogates):
            model = stack.enter_context(adapted(lvlm, c.rank, c.dropout, [self.seed, number, m, 0]))
            seed = [self.seed, number, m, 1]
            losses.append(
                train(
                    *(model, self._encode, len(self.samples), c.inner_steps, c.batch_size, c.learning_rate, seed),
                    pieces=partial(pieces, samples=self.samples),
                )
            )
            if not c.lambda_ppl:  # perplexity needs the model without its adapters
                stack.enter_context(fused(model))
            tuned.append(model)
        size = len(self.samples)
        after = State(before.key, number + 1, [[]] * size, before.log)
        tallies, sums, diagnostics = [Tally.new() for _ in tuned], _Sums(len(tuned)), dict[int, dict[str, Any]]()
        slots = self._slots(number)
        turn = stack.enter_context(self.workspace.turn())
        sizes = [sample.image.width * sample.image.height for sample in self.samples]
        for part in self.sharing.parts(sizes, c.batch_size, PIXELS):
            shares = self.sharing.local(part)
            crafting = self._start(part, shares, turn, tuned, tallies)
            crafting.perturb(c.pgd_steps, c.step, self.radius, number * c.pgd_steps)
            if self.vocabulary is not None:
                sums.changed += crafting.rewrite(
                    self.vocabulary, slots, c.candidates, self.words, c.lambda_ppl, c.candidate_batch, self.budget
                )
            last = number + 1 == c.rounds
            measured = crafting.measure(shifts=last)
            sums.add([terms for terms, _ in measured], self.weights, crafting.delta)
            turn.write(shares.deltas, crafting.delta)
            for i, words in zip(part, crafting.words, strict=True):
                after.triggers[i] = list(words)
            if last:
                found = _diagnostics(crafting.samples, [shifts for _, shifts in measured])
                diagnostics |= dict(zip(part, found, strict=True))
            self._report(number, sums.samples / size, f"loss {sums.loss / sums.samples:.4f}")
        turn.finish()
        after.diagnostics = [diagnostics[i] for i in sorted(diagnostics)]
        after.log = [*before.log, sums.entry(number + 1, losses, tallies)]
        self.workspace.commit(after)

    def _report(self, number: int, share: float, note: str) -> None:
        self.progress((number + share) / self.settings.rounds, f"round {number + 1} of {self.settings.rounds}: {note}")

    def _slots(self, number: int) -> list[int]:
        if self.settings.slots is None or self.settings.slots >= self.words:
            return list(range(self.words))
        rng = np.random.default_rng([self.seed, number, 2])
        return sorted(int(i) for i in rng.choice(self.words, self.settings.slots, replace=False))

    def _start(
        self, part: Sequence[int], shares: Local, turn: Turn, tuned: Sequence[LVLM], tallies: list[Tally]
    ) -> Crafting:
        c, samples = self.settings, [self.samples[i] for i in part]
        words = [tuple(self.workspace.state.triggers[i]) for i in part]
        gaps = [self.gap(i, s) for i, s in zip(part, samples, strict=True)]
        delta = turn.read(shares.deltas)
        return Crafting.start(samples, delta, words, gaps, tuned, self.weights, c, tallies, shares, c)

    def _encode(self, lvlm: LVLM, indices: Sequence[int]) -> Batch:
        """The samples as they are protected now, as training data."""
        samples = []
        numbers = [self.sharing.of_sample[i] for i in indices]
        for i, delta in zip(indices, self.workspace.read(numbers), strict=True):
            sample = self.samples[i]
            samples.append(sample.with_content(released(sample.image, delta), self.question(i, sample)))
        return lvlm.encode(samples)


class _Sums:
    """Totals over a round's samples."""

    def __init__(self, surrogates: int) -> None:
        self.terms: list[dict[str, float]] = [{} for _ in range(surrogates)]
        self.loss = 0.0
        self.samples = 0
        self.change: list[float] = []
        self.changed = 0

    def add(self, terms: Sequence[Terms], weights: Sequence[float], delta: Sequence[Tensor]) -> None:
        for total, weight, t in zip(self.terms, weights, terms, strict=True):
            named = {"train": t.train, "bind": t.bind.loss, "joint": t.joint, **t.bind.paths}
            for name, values in named.items():
                total[name] = total.get(name, 0.0) + float(values.double().sum())
            self.loss += weight * float(t.joint.double().sum())
        self.samples += len(terms[0].joint)
        self.change += [float(d.abs().mean(dtype=torch.float64)) for d in delta]

    def entry(self, number: int, adapted_losses: Sequence[list[float]], tallies: Sequence[Tally]) -> dict[str, Any]:
        """The round's log entry, means over the samples and over the perturbations."""
        samples = self.samples
        surrogates = [
            {
                "adapted": losses,
                **{name: total / samples for name, total in terms.items()},
                "clamped": int(tally.clamped),
                "capped": int(tally.capped),
            }
            for losses, terms, tally in zip(adapted_losses, self.terms, tallies, strict=True)
        ]
        return {
            "round": number,
            "loss": self.loss / samples,
            "surrogates": surrogates,
            "mean_change": sum(self.change) / len(self.change),
            "words_changed": self.changed,
        }


def _diagnostics(samples: Sequence[Sample], shifts: Sequence[dict[str, Shift]]) -> list[dict[str, Any]]:
    def number(shift: Shift, i: int) -> dict[str, float] | None:
        if shift.eta[i].item() == 0.0:
            return None
        return {"eta": float(shift.eta[i]), "bound": float(shift.bound[i]), "measured": float(shift.measured[i])}

    return [
        {"id": s.id, "surrogates": [{name: number(x, i) for name, x in of_one.items()} for of_one in shifts]}
        for i, s in enumerate(samples)
    ]
