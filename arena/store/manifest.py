"""What an artifact of the store is: its manifest, and the digests that name it and guard its files."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from arena.errors import ArenaError

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
    """What an artifact is, what went into it, and what it cost.

    `digest` is over `files`, `seal` over all the rest too; a manifest without a seal is from before there were seals.
    """

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
    seal: str = ""

    @field_validator("files")
    @classmethod
    def _below_the_artifact(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"file name {name!r} leads out of the artifact")
        return files

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.digest != content_digest(self.files):
            raise ValueError("its digest is not that of its files")
        if self.seal and self.seal != self._seal():
            raise ValueError("it is not what was sealed")
        return self

    def sealed(self) -> Self:
        """The same, with its seal."""
        return self.model_copy(update={"seal": self._seal()})

    def _seal(self) -> str:
        text = json.dumps(self.model_dump(mode="json", exclude={"seal"}), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(text: bytes, key: str) -> Manifest:
    """The manifest of artifact `key`. Raises `ValueError` saying why it is none."""
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, message = ".".join(map(str, first["loc"])), str(first["msg"]).removeprefix("Value error, ")
        raise ValueError(f"{where}: {message}" if where else message) from error
    if manifest.key != key:
        raise ValueError(f"it is that of another artifact, {manifest.key[:12]}")
    return manifest


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Size and digest of every file below `folder`, by relative path.

    Raises `ArenaError` for what an artifact cannot have, since it would be another thing elsewhere or later: links,
    devices, sockets and pipes, names that are no text, files that cannot be read, and a file named as the manifest.
    """
    found = {}
    try:
        for path in _walk(folder):
            name = path.relative_to(folder).as_posix()
            found[name] = FileEntry(size=path.stat().st_size, sha256=digest_file(path))
    except PermissionError as error:
        raise ArenaError(
            f"artifact: {_shown(error.filename, folder)} cannot be read: leave the files you write readable"
        ) from error
    if MANIFEST in found:
        raise ArenaError(f"artifact: {MANIFEST!r} is the name of the store's own file: give yours another name")
    return dict(sorted(found.items()))


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, each a plain one."""
    waiting = [folder]
    while waiting:
        for entry in os.scandir(waiting.pop()):
            mode, name = entry.stat(follow_symlinks=False).st_mode, _shown(entry.path, folder)
            try:
                entry.path.encode()
            except UnicodeEncodeError as error:
                raise ArenaError(f"artifact: the name {name} is not UTF-8: give the file another one") from error
            if stat.S_ISDIR(mode):
                waiting.append(Path(entry.path))
            elif stat.S_ISREG(mode):
                yield Path(entry.path)
            else:
                kind = "a link" if stat.S_ISLNK(mode) else "no plain file"
                raise ArenaError(f"artifact: {name} is {kind}: an artifact has files and folders alone, write a copy")


def _shown(path: str, folder: Path) -> str:
    return ascii(os.path.relpath(path, folder))


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
