"""Which records count: one a cell, whichever suite asked for it."""

from __future__ import annotations

from collections.abc import Iterable

from arena.records.schema import Record


def by_cell(records: Iterable[Record]) -> dict[str, Record]:
    """The record that counts of each cell, by the cell's name, in the order in which cells appear.

    One that is done counts before one that failed, a later one before an earlier one. Of records that say the same of
    the same code the first counts, so that a merge changes nothing of what was there.
    """
    found: dict[str, Record] = {}
    for record in records:
        known = found.get(record.cell)
        found[record.cell] = record if known is None else _counts(known, record)
    return found


def _counts(one: Record, other: Record) -> Record:
    if (one.status == "done") != (other.status == "done"):
        return one if one.status == "done" else other
    if _said(one) == _said(other):
        return one if one.created <= other.created else other
    return one if one.created > other.created else other


def _said(record: Record) -> object:
    sources = [reference.source_digest for _, reference in record.plugins()]
    return record.outcome, record.zero_shot, record.failure, record.lineage, record.engine_digest, sources


def latest(records: Iterable[Record]) -> list[Record]:
    """The records that count, see `by_cell`."""
    return list(by_cell(records).values())
