"""What a data owner is told about a release: `report.json`, validated, and `report.html`, one self-contained page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from rapidfuzz.distance import Levenshtein

from arena.budget import Budget, amount, words
from arena.data.colours import amplified
from arena.data.pictures.encoding import PNG, Encoding
from arena.data.sample import Sample
from arena.errors import ArenaError, UsageError
from arena.owner.coverage import Coverage
from arena.owner.intake import Refusal
from arena.owner.seen import Copies
from arena.paths import is_file, unreadable
from arena.text import printable

FILE = "report.json"
LARGEST_SIDE = 480
"""Pixels of a picture on the page; larger ones are shown reduced."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Request(_Part):
    """What was asked for; a run goes on only with the same."""

    source: str
    split: str
    columns: dict[str, str]
    limit: int | None
    samples: int
    digest: str
    defense: dict[str, Any]
    surrogates: list[dict[str, Any]]
    budget: Budget
    seed: int
    encoding: Encoding = PNG
    keep_exif: bool = False

    @field_validator("budget", mode="before")
    @classmethod
    def _before_the_rule(cls, value: Any) -> Any:
        """Reports from before answer words were forbidden do not say so."""
        return {"forbid_answer_words": False, **value} if isinstance(value, dict) else value


class Measured(_Part):
    """What was measured against the budget on the files of the release: the most of any sample.

    `image` is in the budget's norm and its unit (1/255, or pixels; the largest change where it has none); `tokens` is
    the growth under the first surrogate's tokenizer, None without surrogates.
    """

    image: float
    words: int
    tokens: int | None


class ReleasedSample(_Part):
    """One sample: its picture's path in the source and in the release, the characters inserted into its question (None
    where nothing was inserted, or more was changed), SHA-256 of the clean and of the released sample, and of their
    pictures alone, the mode of its picture, and what was changed beside the protection."""

    id: str
    source_file: str
    file: str
    trigger: tuple[int, int] | None
    clean: str
    released: str
    clean_picture: str = ""
    released_picture: str = ""
    mode: str = ""
    changes: list[str] = []


class Report(_Part):
    """Everything known about a release. `refused` are the pictures that are not in it, `warnings` what its owner has to
    know before publishing it; `log` has an entry a round where the defense keeps a log, `seconds` are those of the last
    session of a run that was interrupted (`resumed`)."""

    schema_version: Literal[1] = 1
    created: str
    request: Request
    resumed: bool
    warnings: list[str] = []
    measured: Measured
    coverage: Coverage | None = None
    copies: Copies | None = None
    stealth: dict[str, float | None]
    diagnostics: dict[str, float]
    log: list[dict[str, Any]]
    notes: list[str]
    samples: list[ReleasedSample]
    refused: list[Refusal] = []
    seconds: float
    peak_memory_mb: float
    environment: dict[str, Any]
    verified: dict[str, Any] | None = None
    """What `arena.owner.verified` found, as JSON."""


def read_report(folder: Path) -> Report:
    """The report of a folder that `arena protect` finished. Raises `UsageError` where there is none, `ArenaError` where
    it cannot be read."""
    path = folder / FILE
    if not is_file(path):
        raise UsageError(f"{folder} has no {FILE}: name a folder that `arena protect` made and finished")
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ArenaError(f"{path} is damaged or from another version ({where}: {first['msg']})") from error


def write_report(
    report: Report, originals: Sequence[Sample], released: Sequence[Sample], shown: Sequence[int], folder: Path
) -> None:
    """Write `report.json` and `report.html`, which shows the samples at the indices `shown`."""
    examples = [_example(report.samples[i], originals[i], released[i]) for i in shown]
    page = {
        "report": report,
        "examples": examples,
        "rounds": rounds_table(report.log),
        "about_attention": any(name.endswith("-eta") for name in report.diagnostics),
        "renamed": [s for s in report.samples if s.source_file != s.file],
        "changed": by_change(report.samples),
    }
    html = environment().get_template("report.html.j2").render(page)
    (folder / "report.html").write_text(html, encoding="utf-8")
    (folder / FILE).write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")


def measure(
    originals: Sequence[Sample],
    released: Sequence[Sample],
    budget: Budget,
    count_tokens: Callable[[str], int] | None,
) -> Measured:
    """What the samples use of the budget at most."""
    image, changed, growth = 0.0, 0, 0
    for original, sample in zip(originals, released, strict=True):
        image = max(image, amount(original.image, sample.image, budget.norm))
        changed = max(changed, int(Levenshtein.distance(words(original.question), words(sample.question))))
        if count_tokens is not None:
            growth = max(growth, count_tokens(sample.question) - count_tokens(original.question))
    return Measured(image=image, words=changed, tokens=None if count_tokens is None else growth)


def inserted_span(original: str, released: str) -> tuple[int, int] | None:
    """The characters of `released` from the first to the last inserted word; None where there is none, or where words
    of the original were changed or words were inserted in several places."""
    before, after = words(original), words(released)
    extra = len(after) - len(before)
    first = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    if extra <= 0 or after[first + extra :] != before[first:]:
        return None
    spans, at = [], 0
    for word in after:
        at = released.index(word, at)
        spans.append((at, at + len(word)))
        at += len(word)
    return spans[first][0], spans[first + extra - 1][1]


def by_change(samples: Sequence[ReleasedSample]) -> dict[str, list[str]]:
    """What was changed beside the protection, most frequent first, with the files that it was changed in."""
    found: dict[str, list[str]] = {}
    for sample in samples:
        for change in sample.changes:
            found.setdefault(change, []).append(sample.source_file)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def rounds_table(log: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """A defense's log as a table: a column for every number at whatever depth, a row a round."""
    rows = [dict(_numbers(entry)) for entry in log]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [[f"{row[name]:.6g}" if name in row else "" for name in names] for row in rows]


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name} {key}".strip())
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from _numbers(inner, f"{name} {number}".strip())
    elif isinstance(value, int | float):
        yield name.replace("_", " "), float(value)


def _example(about: ReleasedSample, original: Sample, released: Sample) -> dict[str, Any]:
    start, stop = about.trigger or (len(released.question), len(released.question))
    question = released.question
    smooth, exact = Image.Resampling.LANCZOS, Image.Resampling.NEAREST
    change = amplified(original.image, released.image)
    return {
        "file": about.file,
        "original": _data_uri(original.image, smooth),
        "released": _data_uri(released.image, smooth),
        # Averaging neighbours would wash the noise out.
        "perturbation": _data_uri(change, exact),
        "question": original.question,
        "parts": (question[:start], question[start:stop], question[stop:]),
        "answer": original.answer,
    }


def _data_uri(image: Image.Image, resample: Image.Resampling) -> str:
    shown = image.convert("RGB")
    shown.thumbnail((LARGEST_SIDE, LARGEST_SIDE), resample)
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _finalize(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


@cache
def environment() -> jinja2.Environment:
    """The templates; whatever a sample holds is text on the page."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("arena.owner"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["settings"] = _json
    return made
