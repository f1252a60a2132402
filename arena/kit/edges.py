"""Checks of what a plugin makes of samples at the edges of what data may be. Each returns what it saw, or raises
`Failed` or `Skipped`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from arena.data.sample import Sample
from arena.kit import material
from arena.kit.bench import Bench, Failed, Skipped


def one_sample(bench: Bench) -> str:
    """A single sample."""
    if bench.card.trains or bench.kind == "recipe":
        raise Skipped("nothing can be trained on one sample: one has to be held out")
    _survives(bench, material.plain(1))
    return "one sample alone"


def modes(bench: Bench) -> str:
    """Pictures of every mode that a release may have, and one that lies on its side; others become one of these where
    data are read."""
    with TemporaryDirectory(dir=bench.folder) as folder:
        samples = material.read_modes(Path(folder) / "read")
    _survives(bench, samples)
    kept = ", ".join(dict.fromkeys(s.image.mode for s in samples))
    return f"{kept}, upright from EXIF; {', '.join(material.OTHERS)} as what they show"


def sizes(bench: Bench) -> str:
    """Pictures of a single pixel, a pixel wide, 4,000 pixels long."""
    _survives(bench, material.sizes())
    return ", ".join(material.SIZES)


def texts(bench: Bench) -> str:
    """Questions of one word, very long ones, right to left, with emoji; an empty one is refused where data are read."""
    _survives(bench, material.texts())
    return ", ".join(material.TEXTS)


def repeated(bench: Bench) -> str:
    """Pictures and whole samples that stand twice."""
    _survives(bench, material.repeated())
    return "a picture with two questions, a sample with two ids"


def placeholder(bench: Bench) -> str:
    """What stands for a picture in prompts, in the middle of a question."""
    _survives(bench, material.placeholder("<image>"))
    return "<image> in a question"


def _survives(bench: Bench, samples: Sequence[Sample]) -> None:
    """Have samples gone through together; if that fails, find the one that it fails on, and leave out those that the
    model itself cannot read."""
    unread, refused = 0, ""
    try:
        problem = bench.make(samples).over
        where = bench.source.work
    except Failed as failed:
        if failed.ended:
            raise
        problem, where = failed.what, failed.where
        if failed.refused and len(samples) == 1:
            refused = failed.what
    if problem is None:
        return
    company = _company() if bench.card.trains else []
    for sample in samples if len(samples) > 1 else ():
        try:
            alone, place = bench.make([sample, *company]).over, bench.source.work
        except Failed as failed:
            alone, place = failed.what, failed.where
            if failed.refused:
                refused, alone = refused or failed.what, None
        if alone is None:
            continue
        if _unreadable(bench, [sample]):
            unread += 1
            continue
        raise Failed(f"on sample {sample.id!r} ({_about(sample)}): {alone}", place)
    if refused:
        raise Skipped(f"it refuses such samples, and says so: {refused}")
    if unread or _unreadable(bench, samples):
        raise Skipped("the model that stands for its own cannot read such samples: that is not the plugin's doing")
    raise Failed(problem, where)


def _company() -> list[Sample]:
    """Samples without which nothing can be trained on one."""
    return [replace(sample, id=f"beside-{sample.id}") for sample in material.plain(2, seed=8)]


def _unreadable(bench: Bench, samples: Sequence[Sample]) -> bool:
    return bench.uses_model and bench.kind != "model" and not bench.reads(samples, "")


def _about(sample: Sample) -> str:
    width, height = sample.image.size
    return f"{sample.image.mode}, {width} x {height} pixels, {len(sample.question.split())} words"
