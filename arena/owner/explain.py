"""`arena explain`: a sample of a folder that `arena protect` made, its original and a model, put before
`mmguard.explain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from arena.data.sample import Sample, digest
from arena.engine.describe import Plugins
from arena.errors import ArenaError, UsageError
from arena.owner.intake import as_published
from arena.owner.originals import list_originals
from arena.owner.protect import surrogate as find_surrogate
from arena.owner.released import read_released
from arena.owner.report import Report, read_report
from arena.plugins.registry import Registry
from arena.plugins.spec import load_model

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM
    from mmguard.explain import Explanation


def explain(folder: str | Path, sample: int, surrogate: str | None = None, layer: int = 1) -> Explanation:
    """Measure sample number `sample` (from 0) of a `folder` that `arena protect` made.

    The model is that of `surrogate`, a name as `arena.owner.protect.surrogate` takes it, else the first that the
    release was made against. `layer`, from 1, is the one of the maps. The original is read again from where it was.

    Raises `UsageError` for a wrong folder, number or name, `ArenaError` where original or release are gone or changed.
    """
    from mmguard.explain import explain as measure
    from mmguard.objective import Binds

    folder = Path(folder)
    report = read_report(folder)
    if not 0 <= sample < len(report.samples):
        raise UsageError(f"{folder} has {len(report.samples)} samples, numbered from 0: there is no {sample}")
    about = report.samples[sample]
    original, released = _original(report, sample), read_released(folder, report)[sample]
    name, lvlm = _model(report, surrogate)
    tau = report.request.defense["config"].get("tau_delta", Binds.model_validate({}).tau_delta)
    return measure(lvlm, original, released, about.trigger, layer, float(tau), name)


def refuse_among_samples(folder: Path, picture: Path) -> None:
    """Raise `UsageError` where a picture would lie among the samples that it is about, released or original."""
    report, place = read_report(folder), Path(os.path.realpath(picture))
    for samples in (folder / "data", Path(report.request.source)):
        if samples.is_dir() and place.is_relative_to(os.path.realpath(samples)):
            raise UsageError(f"{picture} would lie among the samples in {samples}: name a place apart from them")


def _original(report: Report, index: int) -> Sample:
    request, about = report.request, report.samples[index]
    try:
        source = list_originals(request.source, request.columns, request.split, request.limit)
        entry = next((entry for entry in source.listing.entries if entry.id == about.id), None)
        original = None if entry is None else as_published(entry.sample(), request.encoding)
        if original is not None:  # whose file may be a temporary one
            original = original.with_content(original.image.copy(), original.question)
    except ArenaError as error:
        raise ArenaError(f"the original of {about.file!r} is needed and cannot be read again: {error}") from error
    if original is None or digest([original]) != about.clean:
        raise ArenaError(
            f"the original of {about.file!r} is needed, and {request.source} no longer has it as it was: restore it"
        )
    return original


def _model(report: Report, name: str | None) -> tuple[str, LVLM]:
    plugins = Plugins(Registry())
    if name is not None:
        return name, load_model(find_surrogate(name, plugins).spec)
    if not report.request.surrogates:
        raise UsageError("the release was made without a surrogate model: name one with --surrogate")
    first = report.request.surrogates[0]
    source = plugins.registry.create("model", first["id"], {**first["config"], **first["runtime"]})
    if source.fingerprint() != first["fingerprint"]:
        raise ArenaError(
            f"surrogate {first['id']!r} no longer has the weights the release was made against: name one with "
            "--surrogate"
        )
    return first["id"], source.load()
