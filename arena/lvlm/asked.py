"""Whose layers an enclosing `probing` asks for, for models that answer with other layers than their k-th ones.

A model that reads pictures by cross-attention, or has layers without attention weights, says itself what its k-th layer
of attention is. It runs under a probe of its own and fills the one it was asked by.
"""

from __future__ import annotations

from collections.abc import Sequence

from arena.errors import ArenaError
from arena.lvlm import probe as probes


def asked() -> probes.Probe | None:
    """The probe that the enclosing `probing` of this thread fills; None where nothing is asked for."""
    found: probes.Probe | None = getattr(probes._active, "probe", None)
    return found if found is not None and found.layers else None


def chosen(probe: probes.Probe, layers: Sequence[int], kind: str) -> dict[int, int]:
    """Which of `layers`, the model's layers of a `kind`, each layer that `probe` asks for is; `ArenaError` if there are
    fewer."""
    most = max(probe.layers)
    if most >= len(layers):
        raise ArenaError(
            f"attention of {most + 1} layers is asked for, and the model has {len(layers)} layers with {kind}: "
            "lower `layers`"
        )
    return {k: layers[k] for k in sorted(probe.layers)}
