"""Taking a verified bundle into a folder of records: what `arena accept-submission` does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from arena.errors import UsageError
from arena.plugins.identity import PROTOCOL_VERSION
from arena.plugins.registry import Registry
from arena.records import submissions
from arena.records.accept import Standing, plugin_name
from arena.records.files import append_record, read_all, record_files, try_appending
from arena.records.schema import Record
from arena.records.submissions import Change, Checked, Entry, Part, Submission
from arena.submissions.bundle import Bundle
from arena.submissions.check import entered_of, refuse_other_suite
from arena.suites.schema import digest
from arena.suites.shipped import find_suite


@dataclass(frozen=True)
class Merge:
    """A submission that could be accepted, and the records that it brings."""

    line: Submission
    records: tuple[Record, ...]

    def changing(self, changes: Sequence[Change]) -> Merge:
        """The same, with what it changes on the board."""
        return Merge(self.line.model_copy(update={"changes": list(changes)}), self.records)


def prepare(bundle: Bundle, checked: Checked, suite: Path | str, results: Path, registry: Registry) -> Merge:
    """What accepting a verified bundle would add to the folder of `results`, where records of its suite go; `suite` is
    the suite's id or file.

    Nothing is written. Raises `UsageError` where the suite here is another one, where id or label are taken by other
    code, or where the bundle was accepted before.
    """
    refuse_other_suite(bundle)
    board, entry, folder = find_suite(str(suite)), bundle.manifest.entry, results.parent
    if (board.id, digest(board)) != (bundle.manifest.suite.id, bundle.manifest.suite.digest):
        raise UsageError(
            f"the bundle is of suite {bundle.manifest.suite.id!r} ({bundle.manifest.suite.digest[:12]}), and this is "
            f"{board.id!r} ({digest(board)[:12]}): name its suite with --suite, or submit the entry to this one"
        )
    entered_of(bundle)
    lines = submissions.read(folder)
    others = submissions.submitted(folder, board.id)
    if any(line.bundle == bundle.digest for line in lines):
        raise UsageError(f"the bundle {bundle.digest[:12]} was accepted before: `arena board {suite}` shows it")
    standing = Standing.read(folder)
    for part in entry.parts:
        refuse_taken_id(entry, part, [*read_all(record_files(results)), *others.values()], registry, standing)
    refuse_taken_label(entry, [line for line in lines if line.suite == board.id])
    standing.refuse_withdrawn(bundle.records)
    known = {cell for line in lines for cell in line.cells}
    new = tuple(record for record in bundle.records if record.cell not in known)
    if not new:
        raise UsageError(f"{entry.kind} {entry.label!r} was submitted before, and this bundle has no cell beyond that")
    line = Submission(
        suite=board.id,
        suite_digest=digest(board),
        protocol_version=PROTOCOL_VERSION,
        bundle=bundle.digest,
        entry=entry,
        statement=bundle.statement.model_dump(),
        code=str(bundle.manifest.code),
        cells=[record.cell for record in new],
        checked=checked,
        changes=[],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return Merge(line, new)


def commit(merge: Merge, folder: Path) -> None:
    """Write a submission down. The line in ``submissions.jsonl`` comes last: records without it are on no board, so
    that who is interrupted does it again. Raises `ArenaError` where a file cannot be written."""
    path = submissions.records_file(folder, merge.line.suite)
    try_appending(path)
    there = submissions.submitted(folder, merge.line.suite)
    for record in merge.records:
        if there.get(record.cell) != record:
            append_record(path, record)
    submissions.append(folder, merge.line)


def refuse_taken_id(
    entry: Entry, part: Part, records: Iterable[Record], registry: Registry, standing: Standing
) -> None:
    """Raise `UsageError` where records, or what is installed, have the id of a part from another package, or of the
    same version with another source."""
    name = plugin_name(entry.kind, part.id)
    known = {known.id: known.origin.package for known in registry.entries(entry.kind)}
    if known.get(part.id, part.package) != part.package:
        raise UsageError(
            f"the id of {name} is taken by package {known[part.id]}: rename the entry point, and submit anew"
        )
    for record in records:
        for kind, reference in record.plugins():
            if (kind, reference.id) != (entry.kind, part.id):
                continue
            if reference.origin.package != part.package:
                raise UsageError(
                    f"the id of {name} is taken: records here have it from package {reference.origin.package}, and the "
                    f"bundle from {part.package}. Rename the entry point, and submit anew"
                )
            same = standing.alike(name, reference.source_digest, part.source_digest)
            if reference.version == part.version and not same:
                raise UsageError(
                    f"{name} version {part.version} is taken by other code: records here were made by source "
                    f"{reference.source_digest[:12]}, the bundle by {part.source_digest[:12]}. Count up its `version`, "
                    "and submit anew"
                )


def refuse_taken_label(entry: Entry, lines: Iterable[Submission]) -> None:
    """Raise `UsageError` where an earlier submission has the label for something else."""
    for line in lines:
        if (line.entry.kind, line.entry.label) != (entry.kind, entry.label):
            continue
        if _asked(line.entry) != _asked(entry):
            raise UsageError(
                f"the label {entry.label!r} is taken by another {entry.kind} (from {line.author}): submit anew under a "
                "--label of its own"
            )


def _asked(entry: Entry) -> object:
    return [(part.id, part.version, part.package) for part in entry.parts], entry.use
