"""A toy learner for the pictures of the doubtful datasets."""

from __future__ import annotations

import json

import numpy as np

from arena.engine.job import Desk
from arena.engine.stages import FineTune, Score


def learn(stage: FineTune, desk: Desk) -> None:
    """The mean pictures of both answers, over most of the samples; which these are is a matter of the seed."""
    from doubtful import ANSWERS

    samples = desk.samples("samples")
    chosen = np.random.default_rng(stage.seed).permutation(len(samples))[: len(samples) * 4 // 5]
    means = [
        np.mean([np.asarray(samples[i].image, float) for i in chosen if samples[i].answer == a], axis=0)
        for a in ANSWERS
    ]
    epoch = {"loss": 1.0, "held_out_loss": 1.0, "held_out_accuracy": 0.5}
    (desk.made / "epoch-0.safetensors").write_bytes(b"toy")
    desk.write("history.json", {"chosen": 0, "epochs": [epoch], "means": [mean.tolist() for mean in means]})


def answer(stage: Score, desk: Desk) -> None:
    from doubtful import ANSWERS

    means = json.loads((desk.path("adapter") / "history.json").read_text(encoding="utf-8"))["means"]
    told = []
    for sample in desk.samples("test"):
        distances = [float(np.square(np.asarray(sample.image, float) - mean).sum()) for mean in means]
        told.append(ANSWERS[int(np.argmin(distances))])
    desk.write("answers.json", {"0": [[text, False] for text in told]})
