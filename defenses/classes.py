"""What stands in for a class label where the published method has one: the sample's answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arena.data.copies import shared
from arena.data.sample import Sample
from arena.errors import ArenaError

MOST_CLASSES = 64


def answer_classes(samples: Sequence[Sample], seed: int) -> np.ndarray:
    """A class per sample, int ``(n,)``: its answer string, or one of 64 clusters of answers where there are more.

    Clusters are k-means on character n-grams of the answers.
    """
    answers, labels = np.unique([s.answer.casefold().strip() for s in samples], return_inverse=True)
    if len(answers) <= MOST_CLASSES:
        return np.asarray(labels)
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    features = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3)).fit_transform(answers)
    clusters = KMeans(MOST_CLASSES, n_init=4, random_state=seed).fit_predict(features)
    return np.asarray(clusters[labels])


def picture_classes(samples: Sequence[Sample], near: bool, seed: int) -> np.ndarray:
    """As `answer_classes`, int ``(n,)``; a picture with several answers, near copies too with `near`, is of the first
    one's class."""
    classes, sharing = answer_classes(samples, seed), shared(samples, near)
    return np.asarray(classes[[sharing.first[d] for d in sharing.of_sample]])


def aimed_at(samples: Sequence[Sample], near: bool, seed: int) -> list[int]:
    """Of each sample the number of the one that shows its target: for all of a class one of another class, drawn by the
    seed. Raises `ArenaError` where all pictures are of one class."""
    classes, rng = picture_classes(samples, near, seed), np.random.default_rng(seed)
    if (classes == classes[0]).all():
        raise ArenaError("all pictures have one answer, so there is no other one to aim at; protect more kinds")
    chosen = {int(kind): int(rng.choice(np.flatnonzero(classes != kind))) for kind in np.unique(classes)}
    return [chosen[int(kind)] for kind in classes]
