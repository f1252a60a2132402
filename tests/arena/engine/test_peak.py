"""Peak accuracy is that of all epochs, or nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from arena.engine.stages.score import Score


@pytest.mark.parametrize(
    ("accuracies", "peak"),
    [((0.2, 0.7, 0.6), 0.7), ((None, None, 0.6), None), ((0.9, None, 0.6), None), ((0.4,), 0.4)],
)
def test_peak_accuracy_needs_the_scores_of_all_epochs(accuracies: tuple[float | None, ...], peak: float | None) -> None:
    """With `checkpoints: best` one epoch is scored, whose accuracy says nothing of the others."""
    epochs = [{"test_accuracy": accuracy} for accuracy in accuracies]
    outcome = {"correct": [True], "cut": 0, "epochs": epochs, "chosen": len(epochs) - 1}
    artifact = SimpleNamespace(json=lambda name: outcome, manifest=SimpleNamespace(digest="d"))
    fields: dict[str, Any] = {"lineage": {}}
    Score.add_to(cast(Any, None), fields, "scored", cast(Any, artifact))
    assert fields["peak_accuracy"] == peak
