"""From trained weights to a shipped checkpoint: fp16 safetensors, tokenizer, processor, and a model card with
held-out scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from arena.data.embedded import scenes
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.zoo.augmentation import LOSES_COLOURS, MEASURED
from arena.lvlm.zoo.card import Scores, card
from arena.lvlm.zoo.pictures import QUESTIONS, Picture, ask
from arena.lvlm.zoo.train import Training, of_colours

HELD_OUT_SEED = 990_001
HELD_OUT = 500


def held_out_questions(per_kind: int = HELD_OUT) -> dict[str, list[Sample]]:
    """Questions by kind, on scenes that no training pool holds."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    asked: dict[str, list[Sample]] = {kind: [] for kind in scenes.QUESTIONS}
    while any(len(samples) < per_kind for samples in asked.values()):
        scene = scenes.random_scene(rng)
        for kind, samples in asked.items():
            if len(samples) < per_kind and (qa := scenes.ask(scene, kind, rng, tries=3)) is not None:
                samples.append(Sample(f"{kind}-{len(samples)}", scene.image, *qa))
    return asked


def right(lvlm: LVLM, samples: Sequence[Sample]) -> np.ndarray:
    """Which generated answers are right, bool ``(len(samples),)``."""
    return np.array([a == s.answer for a, s in zip(lvlm.generate(samples), samples, strict=True)], bool)


def held_out_accuracy(lvlm: LVLM, per_kind: int = HELD_OUT) -> dict[str, float]:
    """Accuracy of generated answers by kind of question about held-out scenes."""
    return {kind: float(right(lvlm, samples).mean()) for kind, samples in held_out_questions(per_kind).items()}


def accuracy_lost(lvlm: LVLM, per_kind: int = HELD_OUT) -> dict[str, float]:
    """What each alteration of `MEASURED` costs in accuracy over all held-out questions, on the same pictures; where
    colours are lost, over questions that need none."""
    everything = [s for samples in held_out_questions(per_kind).values() for s in samples]
    before, lost = right(lvlm, everything), {}
    for name, change in MEASURED.items():
        rng = np.random.default_rng(HELD_OUT_SEED)
        asked = [
            (i, s)
            for i, s in enumerate(everything)
            if name not in LOSES_COLOURS or not of_colours(s.question, s.answer)
        ]
        altered = [Sample(s.id, change(s.image, rng), s.question, s.answer) for _, s in asked]
        lost[name] = float(before[[i for i, _ in asked]].mean() - right(lvlm, altered).mean())
    return lost


def known_pictures(lvlm: LVLM, pictures: Sequence[Picture], per_kind: int = HELD_OUT) -> dict[str, float]:
    """Accuracy by kind of question on pictures of the training, as they are, at most `per_kind` of them: what the model
    knows of these, not what it can tell of others. NaN where nothing can be asked."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    found = {}
    for kind in QUESTIONS:
        asked = [(p, qa) for p in pictures if (qa := ask(p, kind, rng)) is not None]
        drawn = rng.permutation(len(asked))[:per_kind].tolist()
        samples = [Sample(f"{kind}-{i}", asked[i][0].image, *asked[i][1]) for i in drawn]
        found[kind] = float(right(lvlm, samples).mean()) if samples else float("nan")
    return found


def pack(training: Training, out: Path, say: Callable[[str], None] = print, per_kind: int = HELD_OUT) -> Scores:
    """Write the trained model to `out` in the hub's format and return its scores, measured on what was written."""
    out.mkdir(parents=True, exist_ok=True)
    training.model.half().cpu().save_pretrained(out)
    training.lvlm.tokenizer.save_pretrained(out)
    training.spec.image_processor().save_pretrained(out)
    lvlm = training.spec.load(out)
    scores = Scores(
        held_out_accuracy(lvlm, per_kind),
        accuracy_lost(lvlm, per_kind),
        known_pictures(lvlm, training.pictures.pictures, per_kind),
    )
    say(", ".join(f"{kind} {score:.3f}" for kind, score in scores.kinds.items()))
    for bar in scores.missed():
        say(f"bar missed: {bar}")
    (out / "README.md").write_text(card(training, scores, per_kind, HELD_OUT_SEED), encoding="utf-8")
    return scores
