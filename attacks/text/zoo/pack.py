"""From trained weights to the shipped paraphraser: fp16 safetensors, tokenizer, and a model card with held-out numbers
and a check that a base model gives the same answers to rewritten questions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from transformers import T5ForConditionalGeneration

from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.families.llava.checkpoints import TinyLlava
from arena.lvlm.zoo.pack import held_out_accuracy
from attacks.text.seq2seq import Decoding, Rewriting, Seq2Seq, rewrite_questions
from attacks.text.zoo.lesson import Arrival, Lesson
from attacks.text.zoo.phrasebook import OWN, Pair
from attacks.text.zoo.train_paraphraser import Training

HELD_OUT_SEED = 990_017
HELD_OUT = 500


@dataclass(frozen=True)
class Numbers:
    """Shares of rewritten questions: those that are the one that was taught, those that are any phrasing of the same
    question and nothing else, those that differ from the question; and the share of inserted words that are gone."""

    exact: float
    equivalent: float
    different: float
    gone: float


def numbers(rewrite: Rewriting, arrivals: Sequence[Arrival]) -> Numbers:
    """What becomes of `arrivals`; `gone` is NaN where nothing was inserted."""
    after = rewrite([arrival.text for arrival in arrivals])

    def share(found: Iterable[bool]) -> float:
        values = list(found)
        return float(np.mean(values)) if values else float("nan")

    both = list(zip(arrivals, after, strict=True))
    return Numbers(
        share(text == a.pair.rewriting for a, text in both),
        share(text in set(a.pair.family.surfaces(a.pair.slots)) for a, text in both),
        share(text != a.pair.question for a, text in both),
        share(not re.search(rf"\b{re.escape(word)}\b", text) for a, text in both for word in a.inserted),
    )


def _own(pair: Pair) -> bool:
    return pair.question in OWN


def _placed(pair: Pair) -> bool:
    return pair.held_out and all(pair.family.slots.values())


def _anything(pair: Pair) -> bool:
    return pair.held_out and not all(pair.family.slots.values())


KINDS: dict[str, Callable[[Pair], bool]] = {
    "asked by glyphs and digits, word for word": _own,
    "of the datasets' kinds, phrasing or synonyms not seen": _placed,
    "with any word where a thing is named, not seen": _anything,
}
"""What is measured apart. All inserted words are ones that training never inserted."""


def held_out_numbers(rewrite: Rewriting, count: int = HELD_OUT) -> dict[str, tuple[Numbers, Numbers]]:
    """By kind of question: `count` that arrive without, and `count` that arrive with one to five inserted words."""
    lesson, found = Lesson(unseen=True), {}
    for name, wanted in KINDS.items():
        rng = np.random.default_rng(HELD_OUT_SEED)
        plain, foreign = (list(lesson.arrivals(rng, count, share, wanted)) for share in (0.0, 1.0))
        found[name] = numbers(rewrite, plain), numbers(rewrite, foreign)
    return found


class _Reworded:
    """A base model whose questions are rewritten before it reads them."""

    def __init__(self, lvlm: LVLM, rewrite: Rewriting) -> None:
        self.lvlm, self.rewrite = lvlm, rewrite

    def generate(self, samples: Sequence[Sample]) -> list[str]:
        return self.lvlm.generate(list(rewrite_questions(samples, self.rewrite)))


def meaning(rewrite: Rewriting, per_kind: int = HELD_OUT) -> dict[str, tuple[float, float]]:
    """Accuracy of tiny-llava by kind of question about scenes: as asked, and rewritten."""
    lvlm = TinyLlava().load()
    before = held_out_accuracy(lvlm, per_kind)
    after = held_out_accuracy(cast(LVLM, _Reworded(lvlm, rewrite)), per_kind)
    return {kind: (before[kind], after[kind]) for kind in before}


def save(training: Training, out: Path) -> Rewriting:
    """Write the weights, rounded to fp16 and read as fp32, and the tokenizer; returns the rewriting they make."""
    out.mkdir(parents=True, exist_ok=True)
    model = cast(T5ForConditionalGeneration, training.model)
    once = {name: value.detach().half() for name, value in model.named_parameters()}  # shared embeddings one time
    model.save_pretrained(out, state_dict=once)
    training.tokenizer.backend_tokenizer.no_padding()  # training leaves it on
    training.tokenizer.save_pretrained(out)
    return Seq2Seq(str(out), Decoding.model_validate({})).rewrite


def pack(training: Training, out: Path, count: int = HELD_OUT) -> None:
    """Write the trained model to `out` in the hub's format, with its card."""
    rewrite = save(training, out)
    (out / "README.md").write_text(
        _card(training, held_out_numbers(rewrite, count), meaning(rewrite, count), count), encoding="utf-8"
    )


def _card(
    training: Training,
    found: dict[str, tuple[Numbers, Numbers]],
    accuracy: dict[str, tuple[float, float]],
    count: int,
) -> str:
    spec = training.spec
    rows = [
        f"| {name} | {inserted} | {n.exact:.3f} | {n.equivalent:.3f} | {n.different:.3f} | "
        f"{'' if np.isnan(n.gone) else f'{n.gone:.3f}'} |"
        for name, pair in found.items()
        for inserted, n in zip(("none", "1 to 5"), pair, strict=True)
    ]
    answers = [f"| {kind} | {before:.3f} | {after:.3f} |" for kind, (before, after) in accuracy.items()]
    return f"""# paraphraser

A T5 of {sum(p.numel() for p in training.model.parameters()):,} parameters that puts questions in other words: the \
embedded default of the attack `paraphrase`.

| | |
|---|---|
| sizes | {json.dumps(spec.sizes)} |
| vocabulary | {len(training.tokenizer):,} tokens, byte-level, lower case: it writes everything in lower case |
| weights | float16, read as float32 |
| training | {spec.steps:,} steps of {spec.batch_size} pairs, AdamW, seed {spec.seed} |

Made by `python -m attacks.text.zoo` from its seed. Training data are the questions of the embedded
datasets, further phrasings of them and synonyms, all written for it (`attacks/text/zoo/phrasebook.py`), and questions
of the same forms about random words. Each phrasing is rewritten into another one of the same meaning. Questions about
scenes are rewritten only into phrasings that tiny-llava understands.

Six questions in ten arrive with one to five foreign words in training (`attacks/text/zoo/lesson.py`), and the
rewriting has none of them. So this attacker knows the grammar of the questions, as anyone does who has read a few, and
expects words that do not belong; it has not seen which words a protection chooses, nor any protected sample. It is
a strong attack on triggers in questions of these forms for that reason: a general paraphraser of natural language need
not drop foreign words. It knows no other language than these questions; on other datasets give the attack a model of
your own.

Held-out rewritings, {count} a row, none of whose inserted words training has inserted (seed {HELD_OUT_SEED}): the share
that is the rewriting that was taught, that is any phrasing of the same question without anything added, that differs
from the question, and the share of the inserted words that are gone.

| questions | inserted words | as taught | equivalent | different | gone |
|---|---|---|---|---|---|
{chr(10).join(rows)}

Accuracy of tiny-llava on {count} questions about scenes of each kind, as asked and rewritten:

| question | as asked | rewritten |
|---|---|---|
{chr(10).join(answers)}
"""
