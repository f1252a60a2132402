"""What an artifact of the store is: its manifest, and the digests that name it and guard its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

MANIFEST = "manifest.json"


def place(key: str, name: str) -> str:
    """Where a file of an artifact is below the root of a store."""
    return f"{key[:2]}/{key}/{name}"


class FileEntry(BaseModel):
    """Size in bytes and SHA-256 of one file."""

    model_config = ConfigDict(extra="forbid")

    size: int
    sha256: str


class Manifest(BaseModel):
    """What an artifact is, what went into it, and what it cost."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int
    key: str
    kind: str
    document: dict[str, Any]
    files: dict[str, FileEntry]
    digest: str
    seconds: float
    peak_memory_mb: float
    environment: dict[str, Any]
    created: str

    @field_validator("files")
    @classmethod
    def _below_the_artifact(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"file name {name!r} leads out of the artifact")
        return files


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Size and digest of every file below `folder`, by relative path."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): FileEntry(size=path.stat().st_size, sha256=digest_file(path))
        for path in found
    }


def digest_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(files: Mapping[str, FileEntry]) -> str:
    """SHA-256 over the sorted names and digests of an artifact's files, hex."""
    text = "".join(f"{name}\0{entry.sha256}\0" for name, entry in sorted(files.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def content_of(manifest: Manifest, output: str) -> str:
    """SHA-256 over one output of an artifact, a file or a folder of it, hex; over all of it where `output` is empty."""
    if not output:
        return manifest.digest
    files = {name: entry for name, entry in manifest.files.items() if PurePosixPath(name).is_relative_to(output)}
    return content_digest(files)
