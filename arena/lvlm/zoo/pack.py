"""From trained weights to a shipped checkpoint: fp16 safetensors, tokenizer, processor, and a model card with
held-out scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from arena.data.embedded import scenes
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.zoo.tokenizer import words
from arena.lvlm.zoo.train import Training

HELD_OUT_SEED = 990_001
HELD_OUT = 500


def held_out_accuracy(lvlm: LVLM, per_kind: int = HELD_OUT) -> dict[str, float]:
    """Accuracy of generated answers by kind of question, on scenes that no training pool holds."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    asked: dict[str, list[Sample]] = {kind: [] for kind in scenes.QUESTIONS}
    while any(len(samples) < per_kind for samples in asked.values()):
        scene = scenes.random_scene(rng)
        for kind, samples in asked.items():
            if len(samples) < per_kind and (qa := scenes.ask(scene, kind, rng, tries=3)) is not None:
                samples.append(Sample(f"{kind}-{len(samples)}", scene.image, *qa))
    return {
        kind: float(np.mean([a == s.answer for a, s in zip(lvlm.generate(samples), samples, strict=True)]))
        for kind, samples in asked.items()
    }


def pack(
    training: Training, out: Path, say: Callable[[str], None] = print, per_kind: int = HELD_OUT
) -> dict[str, float]:
    """Write the trained model to `out` in the hub's format and return its held-out accuracies."""
    out.mkdir(parents=True, exist_ok=True)
    training.model.half().save_pretrained(out)
    training.lvlm.tokenizer.save_pretrained(out)
    training.spec.image_processor().save_pretrained(out)
    scores = held_out_accuracy(training.spec.load(out), per_kind)
    say(", ".join(f"{kind} {score:.3f}" for kind, score in scores.items()))
    (out / "README.md").write_text(_card(training, scores, per_kind), encoding="utf-8")
    return scores


def _card(training: Training, scores: dict[str, float], per_kind: int) -> str:
    spec, size = training.spec, sum(p.numel() for p in training.model.parameters())
    rows = "\n".join(f"| {kind} | {score:.3f} |" for kind, score in scores.items())
    blocks = f", {spec.merge} x {spec.merge} of them an image token" if spec.merge > 1 else ""
    repeats = "a word" if spec.sayable() == words() else f"any of {len(spec.sayable())} answer words"
    return f"""# {spec.name}

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
Training data are procedural scenes alone (`arena/data/embedded/scenes.py`), of at most four things. {_ability(scores)}
It can also repeat {repeats} that it is told. It is of no use outside this arena.

Accuracy of generated answers on {per_kind} held-out questions of each kind (scene seed {HELD_OUT_SEED}):

| question | accuracy |
|---|---|
{rows}
"""


def _ability(scores: dict[str, float], learned: float = 0.8) -> str:
    """What the model can answer and what it cannot, in a sentence each."""
    known = [kind for kind, score in scores.items() if score >= learned]
    rest = [kind for kind, score in scores.items() if score < learned]
    sentences = [f"It answers questions about {', '.join(known)}."] if known else []
    sentences += [f"It has not learned to answer questions about {', '.join(rest)}."] if rest else []
    return " ".join(sentences)
