"""The cards of the tiny models: what one can do, and the bars that it should reach.

The scores stand in a card's metadata as evaluation results (`model-index`), as on the hub, and in its tables.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from arena.lvlm.zoo.augmentation import MEASURED

if TYPE_CHECKING:
    from arena.lvlm.zoo.train import Training

LEAST = 0.9
"""Accuracy that a model should have in every kind of question about scenes."""
MOST_LOST = {name: 0.2 if name == "JPEG 10" else 0.1 for name in MEASURED}
"""Accuracy over all kinds that it may lose under each alteration."""
WHY = {
    "grey": "Where colours are taken, red, blue and purple things are about as light as their ground, so that many "
    "cannot be seen.",
    "UEraser's policy": "UEraser's policy bleaches things away, and moves, shears and turns pictures, so that the "
    "right answer about a place becomes another.",
}
"""What is known of alterations whose bar is missed."""
TASK = "visual-question-answering"
SCENES, ALTERED, PICTURES = "scenes", "altered-scenes", "known-pictures"
"""What the evaluation results call the data."""


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


def shipped_scores() -> dict[str, Scores]:
    """What the cards of the models that come with the package state, to three decimals, by the id of the model."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*/README.md")):
        data = ModelCard.load(path).data
        parts: dict[str, dict[str, float]] = {SCENES: {}, ALTERED: {}, PICTURES: {}}
        for result in data.eval_results or []:
            parts[result.dataset_type][str(result.metric_name)] = float(result.metric_value)
        found[str(data.model_name)] = Scores(*parts.values())
    return found


def _metadata(name: str, scores: Scores) -> str:
    groups = (
        (SCENES, "held-out scenes", "accuracy", scores.kinds),
        (ALTERED, "held-out scenes, altered", "accuracy lost", scores.lost),
        (PICTURES, "pictures of the training", "accuracy", scores.pictures),
    )
    results = [
        EvalResult(TASK, type, data, metric, round(value, 3), metric_name=what)
        for type, data, metric, values in groups
        for what, value in values.items()
    ]
    return ModelCardData(model_name=name, pipeline_tag="image-text-to-text", eval_results=results).to_yaml()


def card(training: Training, scores: Scores, per_kind: int, scene_seed: int) -> str:
    """The text of a model card: what was trained on what, and how able it is over `per_kind` questions of each kind, on
    scenes of that seed; the scores stand in its metadata too."""
    spec, size = training.spec, sum(p.numel() for p in training.model.parameters())
    kinds = "\n".join(f"| {k} | {x:.3f} | {LEAST:.2f} | {_met(x >= LEAST)} |" for k, x in scores.kinds.items())
    lost = "\n".join(
        f"| {k} | {x:.3f} | {MOST_LOST[k]:.2f} | {_met(x <= MOST_LOST[k])} |" for k, x in scores.lost.items()
    )
    shown = len(training.pictures.pictures)
    seen = "\n".join(f"| {k} | {x:.3f} |" for k, x in scores.pictures.items())
    blocks = f", {spec.merge} x {spec.merge} of them an image token" if spec.merge > 1 else ""
    return f"""---
{_metadata(spec.name, scores)}
---
# {spec.name}, version 2

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

Accuracy of generated answers on {per_kind} held-out questions of each kind about scenes (scene seed {scene_seed}):

| question | accuracy | asked | |
|---|---|---|---|
{kinds}

Accuracy over all these questions that is lost on altered pictures; without colours, over questions that need none:

| alteration | lost | at most | |
|---|---|---|---|
{lost}

{fill(" ".join(WHY.values()), 120)}

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
