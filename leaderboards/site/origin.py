"""What a page says of the records that it was made from."""

from __future__ import annotations

from collections.abc import Sequence

from arena.plugins.identity import PROTOCOL_VERSION
from arena.records.schema import Record


def origin(suites: Sequence[str], records: Sequence[Record]) -> str:
    """Which files the page of these suites is made from, and how they are made again; of records that were made under
    an earlier version of the protocol also that, and where they lie."""
    version = min(record.protocol_version for record in records)
    folder = "records" if version == PROTOCOL_VERSION else f"records/v{version}"
    files = " and ".join(f"`{folder}/{suite}.jsonl`" for suite in suites)
    runs = " and ".join(f"`arena run {suite}`" for suite in suites)
    make = "makes" if len(suites) == 1 else "make"
    if version == PROTOCOL_VERSION:
        return f"Made by `arena evidence` from {files} alone; {runs} {make} the records again."
    return (
        f"Made by `arena evidence` from {files} alone. These are records of an earlier stage of the arena, protocol "
        f"version {version}, with the present statistics; the present one is version {PROTOCOL_VERSION}, {runs} {make} "
        "records of it, and the page is made from those as soon as they are there."
    )
