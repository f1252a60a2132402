"""From trained weights to a shipped checkpoint: fp16 safetensors, tokenizer, processor, and a model card with
held-out scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from arena.data import scenes
from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.llava import Llava
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
    training.tokenizer.save_pretrained(out)
    training.spec.image_processor().save_pretrained(out)
    scores = held_out_accuracy(Llava.from_pretrained(out, dtype=torch.float32), per_kind)
    say(", ".join(f"{kind} {score:.3f}" for kind, score in scores.items()))
    (out / "README.md").write_text(_card(training, scores, per_kind), encoding="utf-8")
    return scores


def _card(training: Training, scores: dict[str, float], per_kind: int) -> str:
    spec, model = training.spec, training.model
    rows = "\n".join(f"| {kind} | {score:.3f} |" for kind, score in scores.items())
    return f"""# {spec.name}

A LLaVA-architecture model of {sum(p.numel() for p in model.parameters()):,} parameters for experiments on a CPU: a
CLIP vision tower
({json.dumps(spec.vision)}), a two-layer projector and a Llama language model ({json.dumps(spec.text)}),
{spec.image_size} x {spec.image_size}
pixels in patches of {spec.patch_size}, {len(training.tokenizer):,} tokens. Weights are float16.

Made by `arena zoo train {spec.name}` from seed {spec.seed}: {spec.tower_steps:,} steps of the tower on dense labels,
{spec.language_steps:,} of
projector and language model, {spec.joint_steps:,} of everything (`arena/lvlm/zoo/train.py`). Training data are
procedural scenes alone
(`arena/data/scenes.py`); the model knows counts, colours, shapes, places and relations of at most four things, and
can repeat a word.
It is of no use outside this arena.

Accuracy of generated answers on {per_kind} held-out questions of each kind (scene seed {HELD_OUT_SEED}):

| question | accuracy |
|---|---|
{rows}
"""
