"""A bundle: what is submitted, as one zip file that another machine can check.

| file | |
|---|---|
| `manifest.json` | what the others are, with their SHA-256: `Manifest` |
| `records.jsonl` | the entry's cells |
| `suite.json` | the board's suite, without the entry |
| `statement.yaml` | what the author signed off, see `arena.submissions.statement` |
| `packages.txt` | every installed package, ``name==version`` |
| `NAME.whl` | the plugin's wheel, unless the manifest names repository and commit |

A bundle's digest is that of its manifest, which has the digests of all else, so that it does not depend on how the zip
was packed. Reading one unpacks nothing to disk, and no more into memory than the limits below.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from arena.errors import ArenaError, UsageError
from arena.files import atomically, write_atomically
from arena.paths import is_file
from arena.plugins.identity import IDENTITY_VERSION, PROTOCOL_VERSION
from arena.records.accept import problem
from arena.records.bulk import bulk
from arena.records.schema import SCHEMA_VERSION, Record, StageCost, SuiteRef
from arena.records.submissions import Digest, Entry
from arena.submissions.statement import LIMIT, Statement, parse_statement
from arena.suites.parts import DefenseUse
from arena.suites.schema import Suite, digest
from arena.text import shortened

BUNDLE_VERSION = 1
"""Counted up when the format changes."""

MANIFEST, RECORDS, SUITE = "manifest.json", "records.jsonl", "suite.json"
STATEMENT, PACKAGES = "statement.yaml", "packages.txt"

_MB = 2**20
LIMITS: Mapping[str, int] = {
    MANIFEST: _MB,
    RECORDS: 128 * _MB,
    SUITE: _MB // 16,
    STATEMENT: LIMIT,
    PACKAGES: _MB,
    "wheel": 64 * _MB,
}
"""Bytes of each file, unpacked, at most."""

_WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.whl")
_AGAIN = "get the bundle again from where it was made, or make it anew with `arena submit`"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Code(_Part):
    """Where the plugin's code is: a wheel in the bundle, or a repository and a commit. Without a repository the commit
    is of the arena's own."""

    wheel: Annotated[str, Field(pattern=f"^{_WHEEL.pattern}$")] | None = None
    repository: Annotated[str, Field(pattern=r"^https://[^\s\x00-\x1f\x7f]+$", max_length=500)] | None = None
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.wheel is None) == (self.commit is None) or (self.repository is not None and self.commit is None):
            raise ValueError("the code is either a wheel, or a commit with its repository")
        return self

    def __str__(self) -> str:
        return self.wheel or " at ".join(filter(None, (self.repository, self.commit)))


class File(_Part):
    """A file of the bundle."""

    sha256: Digest
    bytes: Annotated[int, Field(ge=0)]


class Manifest(_Part):
    """What a bundle holds. `defenses` are what a submitted attack was run on; `stealth` and `cost` are means over the
    cells: what the harness measured on the releases, and seconds a sample by stage."""

    bundle_version: Literal[1] = 1
    protocol_version: int = PROTOCOL_VERSION
    identity_version: int = IDENTITY_VERSION
    record_version: int = SCHEMA_VERSION
    suite: SuiteRef
    entry: Entry
    defenses: list[DefenseUse]
    code: Code
    engine_digest: str
    stealth: dict[str, float | None]
    cost: dict[str, float | None]
    files: dict[str, File]
    created: str


@dataclass(frozen=True)
class Bundle:
    """A bundle that is what its manifest says."""

    digest: str
    manifest: Manifest
    suite: Suite
    records: tuple[Record, ...]
    statement: Statement
    wheel: bytes | None

    def code_to(self, folder: Path) -> list[str]:
        """What to hand to ``pip install`` for the plugin's code, after reading it; a wheel is written to `folder`.
        Nothing where the code is the arena's own."""
        code = self.manifest.code
        if code.wheel is not None and self.wheel is not None:
            write_atomically(folder / code.wheel, self.wheel)
            return [str(folder / code.wheel)]
        return [] if code.repository is None else [f"git+{code.repository}@{code.commit}"]


def described(files: Mapping[str, bytes]) -> dict[str, File]:
    """What the manifest says of files."""
    return {name: File(sha256=_sha256(content), bytes=len(content)) for name, content in sorted(files.items())}


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> str:
    """Write a bundle in one step and return its digest; the same content is the same zip. Raises `ArenaError`."""
    first = (json.dumps(manifest.model_dump(mode="json"), sort_keys=True, indent=1) + "\n").encode()
    for name, content in (*files.items(), (MANIFEST, first)):
        if len(content) > _limit(name):
            raise ArenaError(
                f"the bundle's {name} has {len(content):,} bytes, and {_limit(name):,} is the most: submit the entry "
                "to a smaller suite, or name --repository and --commit instead of a wheel"
            )
    try:
        with (
            atomically(path) as partial,
            zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed,
        ):
            for name, content in ((MANIFEST, first), *sorted(files.items())):
                info = zipfile.ZipInfo(name)  # of 1980, so that the same content is the same file
                info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
                packed.writestr(info, content)
    except OSError as error:
        raise ArenaError(f"could not write the bundle {path} ({error.strerror}): choose another --out") from error
    return _sha256(first)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle and hold every file in it against the manifest, and the manifest against this arena.

    Raises `UsageError`, in one paragraph, for what is no bundle, damaged, altered, too large, or of other versions.
    """
    files = _unpack(path)
    manifest = _manifest(path, files)
    for name, said in manifest.files.items():
        if name not in files:
            raise UsageError(f"{path}: {name} is missing, which its manifest lists: {_AGAIN}")
        if said != File(sha256=_sha256(files[name]), bytes=len(files[name])):
            raise UsageError(f"{path}: {name} is not the file that its manifest has the digest of: {_AGAIN}")
    listed = {MANIFEST, *manifest.files}
    for name in (*files, RECORDS, SUITE, STATEMENT, PACKAGES, *filter(None, [manifest.code.wheel])):
        if name not in listed:
            raise UsageError(f"{path}: its manifest does not list {name}: {_AGAIN}")
    suite = _suite(path, files[SUITE])
    if (suite.id, digest(suite)) != (manifest.suite.id, manifest.suite.digest):
        raise UsageError(f"{path}: its {SUITE} is not the suite that its manifest names: {_AGAIN}")
    records = _records(path, files[RECORDS], manifest)
    if (manifest.stealth, manifest.cost) != means_of(records):
        raise UsageError(f"{path}: stealth and cost in its {MANIFEST} are not those of its records: {_AGAIN}")
    return Bundle(
        _sha256(files[MANIFEST]),
        manifest,
        suite,
        records,
        parse_statement(files[STATEMENT], f"{path}, {STATEMENT}"),
        files.get(manifest.code.wheel or ""),
    )


def _unpack(path: Path) -> dict[str, bytes]:
    """The files of a zip by name, each within its limit."""
    if not is_file(path):
        raise UsageError(f"there is no file {path}: name a bundle that `arena submit` made")
    if path.stat().st_size > sum(LIMITS.values()):
        raise UsageError(f"{path} is larger than any bundle can be: name one that `arena submit` made")
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as packed:
            entries = packed.infolist()
            if len(entries) > len(LIMITS):
                raise UsageError(f"{path} has {len(entries)} files, and a bundle has at most {len(LIMITS)}: {_AGAIN}")
            for info in entries:
                name, limit = info.filename, _limit(info.filename)
                shown = shortened(repr(name), 100)
                mode = info.external_attr >> 16
                if not limit or info.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
                    raise UsageError(f"{path}: {shown} does not belong into a bundle: {_AGAIN}")
                if name in found:
                    raise UsageError(f"{path}: {shown} is there twice: {_AGAIN}")
                with packed.open(info) as file:
                    found[name] = file.read(limit + 1)
                if len(found[name]) > limit:
                    raise UsageError(f"{path}: {shown} has more than {limit:,} bytes when unpacked: {_AGAIN}")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UsageError(f"{path} is no whole zip file ({shortened(str(error), 200)}): {_AGAIN}") from error
    if MANIFEST not in found:
        raise UsageError(f"{path} has no {MANIFEST}, so it is no bundle: name one that `arena submit` made")
    return found


def _limit(name: str) -> int:
    """Bytes that a file may have; 0 of one that no bundle has."""
    return LIMITS["wheel"] if _WHEEL.fullmatch(name) else 0 if name == "wheel" else LIMITS.get(name, 0)


def _manifest(path: Path, files: Mapping[str, bytes]) -> Manifest:
    raw = _json(files[MANIFEST])
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: its {MANIFEST} is not a JSON object: {_AGAIN}")
    here = {
        "bundle_version": BUNDLE_VERSION,
        "protocol_version": PROTOCOL_VERSION,
        "identity_version": IDENTITY_VERSION,
        "record_version": SCHEMA_VERSION,
    }
    for name, version in here.items():
        if name in raw and raw[name] != version:
            said = shortened(json.dumps(raw[name]), 40)
            raise UsageError(
                f"{path}: it is of {name.replace('_', ' ')} {said}, and this arena has {version}: take an arena of "
                "that version, or make the bundle anew with this one"
            )
    try:
        return Manifest.model_validate_json(files[MANIFEST])
    except ValidationError as error:
        raise UsageError(f"{path}, {MANIFEST}: {shortened(problem(error), 400)}: {_AGAIN}") from error


def _suite(path: Path, content: bytes) -> Suite:
    try:
        return Suite.model_validate_json(content)
    except ValidationError as error:
        raise UsageError(f"{path}, {SUITE}: {shortened(problem(error), 400)}: {_AGAIN}") from error


def _records(path: Path, content: bytes, manifest: Manifest) -> tuple[Record, ...]:
    """Records that are done, of the manifest's suite, each cell once. That a name follows from what its record asks is
    part of what a record is."""
    found: dict[str, Record] = {}
    with bulk():
        for number, line in enumerate(content.splitlines(), start=1):
            where = f"{path}, {RECORDS}, line {number}"
            try:
                record = Record.model_validate_json(line)
            except ValidationError as error:
                raise UsageError(f"{where}: {shortened(problem(error), 400)}: {_AGAIN}") from error
            if record.suite != manifest.suite:
                raise UsageError(f"{where}: it is a record of another suite than the manifest names: {_AGAIN}")
            if record.status != "done":
                raise UsageError(f"{where}: it is of a cell that failed, and an entry is whole or not there: {_AGAIN}")
            if record.cell in found:
                raise UsageError(f"{where}: the cell {record.cell[:12]} is there twice: {_AGAIN}")
            found[record.cell] = record
    return tuple(found.values())


def is_bundle(path: Path) -> bool:
    """Whether a path names a bundle rather than a suite: by its ending, or by what the file begins with."""
    if path.suffix == ".zip":
        return True
    if not is_file(path):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def means_of(records: Sequence[Record]) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """What a manifest says of records: stealth, and seconds a sample by stage, means over those that have them."""
    return _means([record.stealth or {} for record in records]), _means([_seconds(record) for record in records])


def _means(measured: Iterable[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of every number, over those that have it."""
    found: dict[str, list[float]] = {}
    for one in measured:
        for name, value in one.items():
            found.setdefault(name, []).extend([] if value is None else [value])
    return {name: fmean(values) if values else None for name, values in sorted(found.items())}


def _seconds(record: Record) -> dict[str, float | None]:
    stages: dict[str, StageCost | None] = {
        "protect": record.cost.protect,
        "purify": record.cost.purify,
        "finetune": record.cost.finetune,
    }
    return {name: None if cost is None else cost.seconds_per_sample for name, cost in stages.items()}
