"""What `arena protect` says before it starts: what it found, how long it takes, what a verification would cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arena.owner.estimate import Estimate, Prepared

PHASES = {"crafting": "crafting", "writing": "writing and checking", "measuring": "measuring what shows"}
_BYTES = 1.6
"""Bytes of a released pixel, about: noise is hard to compress."""


def outlook(prepared: Prepared, expected: Estimate, verify: bool) -> Iterator[str]:
    """The lines. Raises `UsageError` where a verification is asked for that cannot be done."""
    from arena.engine.progress import duration

    samples, copies = prepared.originals.samples, prepared.seen.copies(prepared.originals.files)
    pixels = sum(s.image.width * s.image.height for s in samples)
    of = "" if copies.pictures == len(samples) else f" about {copies.pictures} pictures"
    yield (
        f"{len(samples)} samples{of}, {pixels / len(samples) / 1e6:.2g} megapixels on average; the release takes about "
        f"{_size(pixels * _BYTES)}"
    )
    yield from (f"note: {note}" for note in copies.notes())
    yield from (f"warning: {warning}" for warning in prepared.warnings)
    parts = ", ".join(f"{name} {duration(expected.seconds[phase])}" for phase, name in PHASES.items())
    if expected.known:
        yield f"about {duration(expected.total)} on this machine: {parts}"
    else:
        yield f"at least {duration(expected.total)} on this machine; the defense does not say how much work it does"
    if verify:
        yield _verification(prepared, expected)


def _verification(prepared: Prepared, expected: Estimate) -> str:
    from arena.engine.progress import duration
    from arena.errors import UsageError
    from arena.plugins.registry import Registry
    from arena.stress.verify import planned

    if not prepared.surrogates:
        raise UsageError("--verify fine-tunes a surrogate: name one with --surrogate")
    plan = planned(len(prepared.originals.samples), prepared.surrogates[0].id, Registry())
    seconds = duration(plan.seconds(expected.forward, expected.gradient))
    return (
        f"then --verify: {plan.trainings} fine-tunings of {prepared.surrogates[0].id} on {plan.trained} samples, "
        f"{plan.epochs} epochs each, scored on {plan.held_out} that are held out: about {seconds} more"
    )


def _size(count: float) -> str:
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
