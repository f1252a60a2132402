"""What stands in for a class label where the published method has one: the sample's answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arena.data.sample import Sample

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
