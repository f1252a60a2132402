"""The release of a finished run, held against its report."""

from __future__ import annotations

from pathlib import Path

from arena.data.sample import Sample, digest
from arena.errors import ArenaError
from arena.owner.report import Report
from arena.release import read_release

DATA = "data"
"""The folder of the release."""


def read_released(folder: Path, report: Report) -> list[Sample]:
    """The samples that `arena protect` released into a folder. Raises `ArenaError` where they are not there, or not as
    `report`, of that folder, has them."""
    data = folder / DATA
    remedy = "restore it, or protect again into a new folder"
    try:
        samples = read_release(data, [sample.mode for sample in report.samples])
    except ArenaError as error:
        raise ArenaError(f"{data} is not the release that the report is about ({error}): {remedy}") from error
    for sample, about in zip(samples, report.samples, strict=True):
        if digest([sample]) != about.released:
            raise ArenaError(f"{data}: {about.file!r} was changed since the release was made: {remedy}")
    return samples
