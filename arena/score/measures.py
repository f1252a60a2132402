"""Scores that a field reports beside accuracy: graded, so that an answer can be worth a part of a point.

A measure is a function of the model's text and the sample, in [0, 1]; a dataset names those its field uses.
"""

from __future__ import annotations

from collections.abc import Callable

from rapidfuzz.distance import Levenshtein

from arena.data.sample import Sample
from arena.score.answers import normal_form
from arena.score.forms import folded

ANLS_THRESHOLD = 0.5


def vqa_accuracy(prediction: str, sample: Sample) -> float:
    """VQA accuracy (Antol 2015, arXiv 1505.00468): ``min(agreeing annotators / 3, 1)``, over all leave-one-out sets.

    The sample's answer and aliases are the annotators' answers, one each. As in the official evaluation, every
    annotator is left out once and the score against the others is averaged, so that one annotator too is measured like
    the model; texts are compared in `normal_form`.
    """
    said = normal_form(prediction)
    agrees = [normal_form(text) == said for text in (sample.answer, *sample.aliases)]
    agreeing = sum(agrees)
    return sum(min((agreeing - own) / 3, 1.0) for own in agrees) / len(agrees)


def anls(prediction: str, sample: Sample) -> float:
    """Normalised Levenshtein similarity of one answer (Biten 2019, arXiv 1905.13648); its mean over a test set is ANLS.

    The best over answer and aliases of ``1 - distance / length of the longer text``; 0 where the normalised distance is
    `ANLS_THRESHOLD` or more. Case, white space and the form of characters do not count.
    """
    said = folded(prediction)
    distance = min(Levenshtein.normalized_distance(said, folded(text)) for text in (sample.answer, *sample.aliases))
    return 1 - distance if distance < ANLS_THRESHOLD else 0.0


MEASURES: dict[str, Callable[[str, Sample], float]] = {"vqa-accuracy": vqa_accuracy, "anls": anls}
