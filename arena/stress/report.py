"""What a stress test found, for a terminal, for pull requests, and for other programs."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from arena.files import refuse_foreign, write_atomically
from arena.junit import Case, junit
from arena.stress.compare import Moved
from arena.stress.verdicts import Measured, Verdict, number
from arena.text import printable, shortened

if TYPE_CHECKING:
    from arena.stress.run import Outcome

SCHEMA_VERSION = 1
"""Of the JSON file; counted up when a field changes its meaning or goes."""

_TITLE = "## Stress test: "
_JUNIT: dict[str, Literal["passed", "failed", "error"]] = {"met": "passed", "failed": "failed", "undecided": "error"}


def summary(outcome: Outcome) -> Iterator[str]:
    """The lines for a terminal."""
    yield from map(line, _summary(outcome))


def _summary(outcome: Outcome) -> Iterator[str]:
    if outcome.suite is not None:
        yield f"{outcome.entry} on suite {outcome.suite} · digest {(outcome.digest or '')[:12]}"
    yield from outcome.notes
    yield from outcome.failures
    for name, one in outcome.measured:
        yield f"measured: {name} {one.shown} ({one.where})"
    for moved in _moved(outcome):
        yield f"{moved.status}: {moved.where}: {_numbers(moved)}"
    for verdict in outcome.verdicts:
        yield f"{verdict.status}: {verdict.name}: {verdict.why}"
    counts = {status: sum(v.status == status for v in outcome.verdicts) for status in ("met", "failed", "undecided")}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    yield f"{outcome.status}: {said}" + (f"; records: {outcome.results}" if outcome.results else "")


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The content of the JSON file, schema version 1; numbers that are not finite are null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "target": outcome.target,
        "suite": None if outcome.suite is None else {"id": outcome.suite, "digest": outcome.digest},
        "entry": outcome.entry,
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "requirements": [_verdict(verdict) for verdict in outcome.verdicts],
        "measured": [{"score": name, **_measured(one)} for name, one in outcome.measured],
        "compare": None
        if outcome.comparison is None
        else {
            "baseline": outcome.comparison.baseline,
            "entry": outcome.comparison.entry,
            "cells": [_cell(moved) for moved in outcome.comparison.cells],
        },
        "notes": list(outcome.notes),
        "failures": list(outcome.failures),
        "records": None if outcome.results is None else str(outcome.results),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    asked = verdict.requirement
    return {
        "requirement": verdict.name,
        "status": verdict.status,
        "why": verdict.why,
        "score": None if asked is None else asked.score.name,
        "unit": None if asked is None else asked.score.unit,
        "bound": None if asked is None else asked.bound,
        "threshold": None if asked is None else asked.number,
        "worst": None if verdict.worst is None else _measured(verdict.worst),
        "measured": [_measured(one) for one in verdict.measured],
        "line": verdict.line or None,
    }


def _measured(one: Measured) -> dict[str, Any]:
    return {
        "where": one.where,
        "value": _finite(one.value),
        "low": _finite(one.low),
        "high": _finite(one.high),
        "seeds": one.seeds,
        "undefined": one.undefined,
    }


def _cell(moved: Moved) -> dict[str, Any]:
    numbers = {name: _finite(getattr(moved, name)) for name in ("before", "after", "lost", "low", "high", "p")}
    return {"where": moved.where, "status": moved.status, **numbers, "missing": moved.missing}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def as_junit(outcome: Outcome) -> bytes:
    """JUnit XML: one test case a requirement. What could not be decided is an error."""
    cases = [
        Case(
            f"arena stress {outcome.target}",
            verdict.name,
            _JUNIT[verdict.status],
            verdict.why,
            "\n".join(f"{one.where}: {one.shown}" for one in verdict.measured),
        )
        for verdict in outcome.verdicts
    ]
    return junit("arena stress", cases)


def as_markdown(outcome: Outcome) -> str:
    """A page for a pull request: GitHub's Markdown, in which nothing of a label is read as markup."""
    lines = [f"{_TITLE}{_text(outcome.target)} — {_MARK[outcome.status]} {outcome.status}", ""]
    if outcome.suite is not None:
        lines += [f"{_text(str(outcome.entry))} on suite {_text(outcome.suite)}.", ""]
    lines += ["| | requirement | measured | where |", "|---|---|---|---|"]
    for verdict in outcome.verdicts:
        shown, where = (verdict.why, "") if verdict.worst is None else (verdict.worst.shown, verdict.worst.where)
        mark = f"{_MARK[verdict.status]} {verdict.status}"
        lines.append(f"| {mark} | {_text(verdict.name)} | {_text(shown)} | {_text(where)} |")
    if moved := list(_moved(outcome)):
        lines += ["", f"Against {_text(str(outcome.comparison and outcome.comparison.baseline))}:", ""]
        lines += ["| | cell | drop before | after | lost |", "|---|---|--:|--:|--:|"]
        for cell in moved:
            before, after = (_or(value) for value in (cell.before, cell.after))
            lines.append(f"| {cell.status} | {_text(cell.where)} | {before} | {after} | {_text(_lost(cell))} |")
    extra = [*outcome.notes, *outcome.failures, *(f"{n}: {m.shown} ({m.where})" for n, m in outcome.measured)]
    if extra:
        lines += ["", *(f"- {_text(line)}" for line in extra)]
    return "\n".join(lines) + "\n"


_MARK = {"met": "✅", "failed": "❌", "undecided": "⚠️"}


def workflow_commands(outcome: Outcome) -> Iterator[str]:
    """GitHub's workflow commands: an error for each requirement that is not met, at its line of the file."""
    for verdict in outcome.verdicts:
        if verdict.status == "met":
            continue
        place = ""
        if outcome.file is not None:
            place = f" file={_property(os.path.relpath(outcome.file))},line={verdict.line or 1},"
        title = _property(f"arena stress: {verdict.name}")
        separator = place or " "
        yield f"::error{separator}title={title}::{_data(f'{verdict.status}: {verdict.why}')}"


def write(outcome: Outcome, junit_file: Path | None, markdown: Path | None, json_file: Path | None) -> None:
    """Write the files that are named, and append the page to the file in ``GITHUB_STEP_SUMMARY`` where that is set.
    Raises `ArenaError` where one is there that is somebody else's, `OSError` where one cannot be written."""
    refuse_others(junit_file, markdown, json_file)
    if junit_file is not None:
        write_atomically(junit_file, as_junit(outcome))
    if markdown is not None:
        write_atomically(markdown, as_markdown(outcome).encode())
    if json_file is not None:
        text = json.dumps(as_json(outcome), indent=1, allow_nan=False)
        write_atomically(json_file, f"{text}\n".encode())
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(as_markdown(outcome) + "\n")


def refuse_others(junit_file: Path | None, markdown: Path | None, json_file: Path | None) -> None:
    """Raise `ArenaError` where a file to be written is there and is somebody else's."""
    for path, what, *marks in (
        (junit_file, "JUnit XML of `arena stress`", b"<testsuite", b'name="arena stress"'),
        (markdown, "a page of `arena stress`", _TITLE.encode()),
        (json_file, "JSON of `arena stress`", b'"schema_version"', b'"target"'),
    ):
        if path is not None:
            refuse_foreign(path, what, *marks)


def _moved(outcome: Outcome) -> Iterator[Moved]:
    """Cells whose protection moved, or could not be compared."""
    if outcome.comparison is not None:
        yield from (cell for cell in outcome.comparison.cells if cell.status != "same")


def _numbers(moved: Moved) -> str:
    return moved.missing or f"drop {_or(moved.before)} before, {_or(moved.after)} now, lost {_lost(moved)}"


def _lost(moved: Moved) -> str:
    return moved.missing or f"{_or(moved.lost)} [{_or(moved.low)}, {_or(moved.high)}], {_p(moved.p)}"


def _p(value: float | None) -> str:
    return "p < 0.001" if value is not None and value < 0.001 else f"p = {_or(value)}"


def _or(value: float | None) -> str:
    return "-" if value is None else number(value)


_MARKUP = re.compile(r"[\\`*_\[<|~&@]")


def _text(text: str) -> str:
    """A text in Markdown as it is, on one line: characters that mean something there are written as numbers, so that
    nothing is a link, a picture, a mention or the end of a cell."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", line(text))


def line(text: str) -> str:
    """A text on one line, printable: in a log of GitHub, a line of its own could be a command."""
    return " ".join(shortened(text, 1000).split())


def _data(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
