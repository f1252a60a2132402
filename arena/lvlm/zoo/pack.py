"""From trained weights to a shipped checkpoint: fp16 safetensors, tokenizer, processor, and a model card with
held-out scores and the bars that they must reach."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arena.data.embedded import scenes
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.zoo.augmentation import LOSES_COLOURS, MEASURED
from arena.lvlm.zoo.pictures import QUESTIONS, Picture, ask
from arena.lvlm.zoo.train import Training, of_colours

HELD_OUT_SEED = 990_001
HELD_OUT = 500
LEAST = 0.9
"""Accuracy that a model should have in every kind of question about scenes."""
MOST_LOST = {name: 0.2 if name == "JPEG 10" else 0.1 for name in MEASURED}
"""Accuracy over all kinds that it may lose under each alteration."""


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


@dataclass(frozen=True)
class Scores:
    """What a card states; accuracies in [0, 1]."""

    kinds: dict[str, float]
    lost: dict[str, float]
    pictures: dict[str, float]

    def missed(self) -> list[str]:
        """Bars that are not reached, a sentence each."""
        low = [f"{kind} {score:.3f}, asked {LEAST}" for kind, score in self.kinds.items() if score < LEAST]
        high = [
            f"{name} costs {x:.3f}, at most {MOST_LOST[name]}" for name, x in self.lost.items() if x > MOST_LOST[name]
        ]
        return [*low, *high]


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
    (out / "README.md").write_text(_card(training, scores, per_kind), encoding="utf-8")
    return scores


def _card(training: Training, scores: Scores, per_kind: int) -> str:
    spec, size = training.spec, sum(p.numel() for p in training.model.parameters())
    kinds = "\n".join(f"| {k} | {x:.3f} | {LEAST:.2f} | {_met(x >= LEAST)} |" for k, x in scores.kinds.items())
    lost = "\n".join(
        f"| {k} | {x:.3f} | {MOST_LOST[k]:.2f} | {_met(x <= MOST_LOST[k])} |" for k, x in scores.lost.items()
    )
    shown = len(training.pictures.pictures)
    seen = "\n".join(f"| {k} | {x:.3f} |" for k, x in scores.pictures.items())
    blocks = f", {spec.merge} x {spec.merge} of them an image token" if spec.merge > 1 else ""
    return f"""# {spec.name}, version 2

{spec.architecture} at {size:,} parameters, for experiments on a CPU:

| | |
|---|---|
| vision tower ({spec.tower}) | {json.dumps(spec.vision)} |
| language model ({spec.decoder}) | {json.dumps(spec.text)} |
| pictures | {spec.image_size} x {spec.image_size} pixels in patches of {spec.patch_size}{blocks} |
| vocabulary | {len(training.lvlm.tokenizer):,} tokens |
| weights | float16 |

Made by `arena zoo train {spec.name}` from seed {spec.seed} (`arena/lvlm/zoo/train.py`): {spec.tower_steps:,} steps of
the tower on dense labels, {spec.language_steps:,} of projector and language model, {spec.joint_steps:,} of everything.
Training data are procedural scenes (`arena/data/embedded/scenes.py`), of at most four things, and {shown:,} pictures
that people made (`arena/lvlm/zoo/pictures.py`): Noto emoji (Apache-2.0), stamps of Tux Paint (GPL) and Open Clip Art
(public domain), none of them in the datasets `emoji` and `flags`. Most were altered on their way
(`arena/lvlm/zoo/augmentation.py`). {_ability(scores.kinds)} It is of no use outside this arena.

Accuracy of generated answers on {per_kind} held-out questions of each kind about scenes (scene seed {HELD_OUT_SEED}):

| question | accuracy | asked | |
|---|---|---|---|
{kinds}

Accuracy over all these questions that is lost on altered pictures; without colours, over questions that need none:

| alteration | lost | at most | |
|---|---|---|---|
{lost}

Where colours are taken, red, blue and purple things are about as light as their ground, so that many cannot be seen.

Accuracy on up to {per_kind} of the pictures that people made, which are those of the training:

| question | accuracy |
|---|---|
{seen}
"""


def _met(reached: bool) -> str:
    return "met" if reached else "**missed**"


def _ability(scores: dict[str, float], learned: float = 0.8) -> str:
    """What the model can answer and what it cannot, in a sentence each."""
    known = [kind for kind, score in scores.items() if score >= learned]
    rest = [kind for kind, score in scores.items() if score < learned]
    sentences = [f"It answers questions about {', '.join(known)}."] if known else []
    sentences += [f"It has not learned to answer questions about {', '.join(rest)}."] if rest else []
    return " ".join(sentences)
