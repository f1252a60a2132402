"""Content-addressed artifacts: folders of files named by the digest of what went into them.

A store is a folder, or any fsspec URL with a local mirror in front. ``<key[:2]>/<key>/manifest.json`` says what an
artifact holds; it is written last and the folder is renamed into place, so a half-written artifact is never seen.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout
from pydantic import ValidationError

from arena.environment import Meter
from arena.errors import ArenaError
from arena.files import write_atomically
from arena.store.manifest import MANIFEST, Manifest, content_digest, describe_files, digest_file, place
from arena.store.remote import Remote

SCHEMA_VERSION = 1
_MARK = "store.json"
_WRITTEN_ELSEWHERE = (errno.EEXIST, errno.ENOTEMPTY)

log = logging.getLogger("arena.store.local")


class StoreError(ArenaError):
    """The store itself cannot be used (full, unwritable, another schema version): it ends the run, not a cell."""


class MissingArtifact(ArenaError):
    """An artifact that was there when the plan was made is gone or corrupt; `key` names it."""

    def __init__(self, key: str) -> None:
        super().__init__(f"store: artifact {key[:12]} is missing or corrupt; run again to compute it anew")
        self.key = key

    def __reduce__(self) -> tuple[type[MissingArtifact], tuple[str]]:
        return type(self), (self.key,)


def default_root() -> str:
    """``ARENA_STORE``, else the user's cache directory."""
    if chosen := os.environ.get("ARENA_STORE"):
        return chosen
    return str(_cache_directory() / "store")


def _cache_directory() -> Path:
    return platformdirs.user_cache_path("mmguard-arena", appauthor=False)


class Store:
    """Artifacts at `root`: a folder, or an fsspec URL (``s3://bucket/arena``) mirrored in the user's cache folder."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.url = str(root or default_root())
        self._remote: Remote | None = None
        if "://" in self.url and not self.url.startswith("file://"):
            self._remote = Remote(self.url)
            self.folder = _cache_directory() / "mirrors" / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        else:
            self.folder = Path(self.url.removeprefix("file://")).expanduser().absolute()
        self._check_schema()

    def get(self, key: str) -> Path | None:
        """The artifact's local folder, fetched once if it is remote; None where there is none or it is corrupt.

        Sizes are checked here; `verify` checks digests.
        """
        return self._path(key) if self.manifest(key) is not None or self._fetch(key) else None

    def require(self, key: str) -> Path:
        """The artifact's folder with every digest checked. Raises `MissingArtifact`."""
        path = self.get(key)
        if path is None or not self.verify(key):
            raise MissingArtifact(key)
        return path

    def __contains__(self, key: str) -> bool:
        """Whether `get` would find it; fetches nothing."""
        return self.look(key) is not None

    def look(self, key: str) -> Manifest | None:
        """The manifest of an artifact wherever it is, without its files; None where there is none."""
        if (found := self.manifest(key)) is not None or self._remote is None:
            return found
        try:
            text = self._remote.read(place(key, MANIFEST))
            return None if text is None else Manifest.model_validate_json(text)
        except ValidationError:
            return None

    def manifest(self, key: str) -> Manifest | None:
        """The manifest of a local artifact whose files are there in full; a corrupt one is set aside."""
        folder = self._path(key)
        try:
            manifest = Manifest.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            if folder.exists():
                self._set_aside(key, "it has no manifest")
            return None
        except (ValidationError, UnicodeDecodeError) as error:
            self._set_aside(key, f"its manifest is unreadable ({str(error).splitlines()[0]})")
            return None
        for name, entry in manifest.files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry.size:
                self._set_aside(key, f"{name} is missing or truncated")
                return None
        return manifest

    def verify(self, key: str) -> bool:
        """Whether every file of the local artifact has the digest its manifest says; a corrupt one is set aside."""
        manifest = self.manifest(key)
        if manifest is None:
            return False
        for name, entry in manifest.files.items():
            if digest_file(self._path(key) / name) != entry.sha256:
                self._set_aside(key, f"{name} has changed")
                return False
        return True

    def manifests(self) -> Iterator[Manifest]:
        """Every readable manifest of the local folder, in no order; what running-time estimates are made of."""
        for path in self.folder.glob(f"??/*/{MANIFEST}"):
            with suppress(OSError, ValueError):
                yield Manifest.model_validate_json(path.read_text(encoding="utf-8"))

    @contextmanager
    def put(
        self, key: str, kind: str, document: Mapping[str, Any], environment: Mapping[str, Any] | None = None
    ) -> Iterator[Path]:
        """A temporary folder that becomes artifact `key` when the block ends without an error.

        Seconds and peak memory of the block go into the manifest. Raises `StoreError` when the disk is full or not
        writable; whatever goes wrong, nothing half-written stays behind.
        """
        with self._guarded():
            partial_root = self.folder / "partial"
            self._mark()
            partial_root.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=partial_root))
        try:
            with self._guarded():
                with Meter() as meter:
                    yield partial
                files = describe_files(partial)
                manifest = Manifest(
                    schema_version=SCHEMA_VERSION,
                    key=key,
                    kind=kind,
                    document=dict(document),
                    files=files,
                    digest=content_digest(files),
                    seconds=meter.seconds,
                    peak_memory_mb=meter.peak_memory_mb,
                    environment=dict(environment or {}),
                    created=datetime.now(UTC).isoformat(timespec="seconds"),
                )
                with (partial / MANIFEST).open("w", encoding="utf-8") as file:
                    file.write(manifest.model_dump_json(indent=1) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                self._publish(partial, key)
                self._upload(key, manifest)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Holds the right to compute `key` against other runs on this folder; waits while another holds it.

        A kernel lock: the death of its holder, however sudden, releases it. Where a file system has no locks, both runs
        compute and the first to finish wins, which is harmless.
        """
        with self._guarded():
            self._mark()
            (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "locks" / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another run is computing %s; waiting for it", key[:12])
            lock.acquire(poll_interval=0.2)
        except NotImplementedError:
            log.info("no file locks at %s: two runs may compute the same artifact", self.url)
        else:  # nobody else is at it, so what is there was left by a run that was killed
            for leftover in (self.folder / "partial").glob(f"{key}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        try:
            yield
        finally:
            lock.release()

    def workspace(self, key: str) -> Path:
        """A folder outside the store for intermediate state of computing `key`, kept until `clear_workspace`."""
        mine = hashlib.sha256(f"{self.folder}\0{key}".encode()).hexdigest()
        path = _cache_directory() / "workspaces" / mine
        with self._guarded():
            path.mkdir(parents=True, exist_ok=True)
        return path

    def clear_workspace(self, key: str) -> None:
        """Removes what `workspace` made."""
        shutil.rmtree(self.workspace(key), ignore_errors=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _publish(self, partial: Path, key: str) -> None:
        final = self._path(key)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.rename(final)
        except OSError as error:
            if error.errno not in _WRITTEN_ELSEWHERE or self.manifest(key) is None:
                raise

    def _set_aside(self, key: str, why: str) -> None:
        aside = self.folder / "corrupt" / f"{key}-{time.time_ns()}"
        log.warning(
            "artifact %s is corrupt: %s. It is set aside at %s and will be computed anew.", key[:12], why, aside
        )
        aside.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            self._path(key).rename(aside)
        if self._remote is not None:
            self._remote.remove(place(key, MANIFEST))

    def _fetch(self, key: str) -> bool:
        """Mirror a remote artifact; whether it is here now."""
        if self._remote is None or (text := self._remote.read(place(key, MANIFEST))) is None:
            return False
        try:
            files = Manifest.model_validate_json(text).files
        except ValidationError:
            self._set_aside(key, "its remote manifest is unreadable")
            return False
        with self._guarded():
            (self.folder / "partial").mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=self.folder / "partial"))
            try:
                for name in files:
                    self._remote.fetch(place(key, name), partial / name)
                (partial / MANIFEST).write_bytes(text)
                self._publish(partial, key)
            except FileNotFoundError as error:
                self._set_aside(key, f"{error} at {self.url}")
                return False
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return self.manifest(key) is not None

    def _upload(self, key: str, manifest: Manifest) -> None:
        for name in [*manifest.files, MANIFEST] if self._remote is not None else ():
            assert self._remote is not None
            self._remote.send(self._path(key) / name, place(key, name))

    def _check_schema(self) -> None:
        for text in self._marks():
            try:
                found = json.loads(text)["schema_version"]
            except (ValueError, KeyError, TypeError):
                found = "an unknown one"
            if found != SCHEMA_VERSION:
                raise StoreError(
                    f"store {self.url}: it has schema version {found}, this arena reads {SCHEMA_VERSION}; name another "
                    "store (--store, ARENA_STORE) or remove this one, its artifacts can be computed anew"
                )

    def _marks(self) -> Iterator[bytes]:
        with suppress(FileNotFoundError, NotADirectoryError):
            yield (self.folder / _MARK).read_bytes()
        if self._remote is not None and (text := self._remote.read(_MARK)) is not None:
            yield text

    def _mark(self) -> None:
        """Writes the schema version into a new store."""
        if (self.folder / _MARK).exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema_version": SCHEMA_VERSION}) + "\n"
        write_atomically(self.folder / _MARK, text.encode())
        if self._remote is not None:
            self._remote.write(_MARK, text.encode())

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                remedy = (
                    "the disk is full; free some space or name another store (--store, ARENA_STORE), then run again"
                )
            elif error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST) and not self._writable():
                remedy = "it cannot be written; name another store (--store, ARENA_STORE)"
            else:
                raise
            raise StoreError(f"store {self.url}: {remedy}. What is finished is kept. ({error.strerror})") from error

    def _writable(self) -> bool:
        return self.folder.is_dir() and os.access(self.folder, os.W_OK)
