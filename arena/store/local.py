"""Content-addressed artifacts: folders of files named by the digest of what went into them.

A store is a folder, or any fsspec URL with a local mirror in front, and needs nothing outside of it. Below it
``<key[:2]>/<key>/manifest.json`` says what an artifact holds; it is written last and the folder is renamed into place,
so a half-written artifact is never seen. ``partial`` and ``stages`` have what is being made, ``workspaces`` what a
stage keeps for when it is killed, ``locks`` who is at work, ``corrupt`` what was found damaged, ``pending`` what is
still to be sent.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arena.environment import Meter
from arena.files import write_atomically
from arena.paths import cache_directory
from arena.store.folder import Folder
from arena.store.locks import Held, Locks
from arena.store.manifest import MANIFEST, Manifest, content_digest, describe_files
from arena.store.mirror import Mirror
from arena.store.probe import LARGE, SMALL, nearly_full, speaks_of_disk, write_some
from arena.store.remote import Remote
from arena.store.trouble import OTHER, MissingArtifact, StoreError, WrongStore, guarded, trouble

__all__ = ["MissingArtifact", "Store", "StoreError", "WrongStore", "default_root"]

SCHEMA_VERSION = 1
_MARK = "store.json"
_POLL = 0.2
"""Seconds between two looks at a lock that another run holds."""

log = logging.getLogger("arena.store.local")


def default_root() -> str:
    """``ARENA_STORE``, else the user's cache directory."""
    if chosen := os.environ.get("ARENA_STORE"):
        return chosen
    return str(cache_directory() / "store")


class Store:
    """Artifacts at `root`: a folder, or an fsspec URL (``s3://bucket/arena``) mirrored in the user's cache folder.

    Every method raises `StoreError` where disk or network do not do what is asked of them.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.url = str(root or default_root())
        remote = None
        with self._guarded():
            if "://" in self.url and not self.url.startswith("file://"):
                remote = Remote(self.url)
                self.folder = cache_directory() / "mirrors" / hashlib.sha256(self.url.encode()).hexdigest()[:16]
            else:
                self.folder = _local(self.url)
                self.url = str(self.folder)  # whatever directory a process that is told of it works in
            self._locks = Locks(self.folder / "locks")
            self._here = Folder(self.folder, self.url)
            self._mirror = None if remote is None else Mirror(remote, self._here, self._locks, self.url)
            self._swept = False
            self._check_schema()

    def get(self, key: str) -> Path | None:
        """The artifact's local folder, fetched once if it is remote; None where there is none or it is corrupt.

        Key, sizes and the manifest are checked here; `require` checks digests.
        """
        if self.manifest(key) is None:
            return self._here.path(key) if self._fetch(key) else None
        if self._mirror is not None and self._mirror.is_pending(key):
            self._mirror.send(key)
        return self._here.path(key)

    def require(self, key: str) -> Path:
        """The artifact's folder with every digest checked, for whoever reads it. Raises `MissingArtifact`."""
        path = self.get(key)
        if path is None or not (self.verify(key) or self._fetch(key)):
            raise MissingArtifact(key)
        return path

    def __contains__(self, key: str) -> bool:
        """Whether `get` would find it; fetches nothing."""
        return self.look(key) is not None

    def look(self, key: str) -> Manifest | None:
        """The manifest of an artifact wherever it is, without its files; None where there is none."""
        if (found := self.manifest(key)) is not None or self._mirror is None:
            return found
        return self._mirror.look(key)

    def manifest(self, key: str) -> Manifest | None:
        """The manifest of a local artifact whose files are there in full; a corrupt one is set aside."""
        return self._here.manifest(key)

    def verify(self, key: str) -> bool:
        """Whether every file of the local artifact has the digest its manifest says; a corrupt one is set aside."""
        return self._here.verify(key)

    def manifests(self) -> Iterator[Manifest]:
        """Every readable manifest of the local folder, in no order; what running-time estimates are made of."""
        return self._here.manifests()

    @contextmanager
    def put(
        self,
        key: str,
        kind: str,
        document: Mapping[str, Any],
        environment: Mapping[str, Any] | None = None,
        cost: tuple[float, float] | None = None,
    ) -> Iterator[Path]:
        """A temporary folder that becomes artifact `key` when the block ends without an error.

        `cost`, seconds and peak memory in MB, goes into the manifest, by default that of the block. Raises `StoreError`
        where the store cannot be written, also instead of an error of the block that this explains, see `unusable`;
        `ArenaError` for files that no artifact can have, see `describe_files`. Whatever goes wrong, nothing
        half-written stays behind.
        """
        with self._guarded():
            self._mark()
            partial = self._here.new_partial(key)
        try:
            with Meter() as meter, self.explaining():
                yield partial
            seconds, memory = cost or (meter.seconds, meter.peak_memory_mb)
            with self._guarded():
                files = describe_files(partial)
                manifest = Manifest(
                    schema_version=SCHEMA_VERSION,
                    key=key,
                    kind=kind,
                    document=dict(document),
                    files=files,
                    digest=content_digest(files),
                    seconds=seconds,
                    peak_memory_mb=memory,
                    environment=dict(environment or {}),
                    created=datetime.now(UTC).isoformat(timespec="seconds"),
                ).sealed()
                with (partial / MANIFEST).open("w", encoding="utf-8") as file:
                    file.write(manifest.model_dump_json(indent=1) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                if self._mirror is not None:
                    self._mirror.note(key)
                self._here.publish(partial, key)
                if self._mirror is not None:
                    self._mirror.send(key)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def unusable(self, error: BaseException | str | None = None) -> StoreError | None:
        """What is wrong with the store right now, where that explains the `error`, or its text, that a stage ended
        with; None where the store can be used, and the error is the stage's own.

        A plugin may raise anything, also `StoreError` or an error of a disk of its own, so what it raised proves
        nothing: a file is written into the store, a large one where the error speaks of a disk, and the free space is
        looked at. To be asked while the stage's files are still there, which `put` does of errors of its block:
        afterwards there may be room again. Whoever computes stages in other processes asks with the text of what they
        raised; a `StoreError` of theirs of which this finds nothing is their own doing.
        """
        disk = error is not None and speaks_of_disk(error)
        try:
            partial = self.folder / "partial"
            partial.mkdir(parents=True, exist_ok=True)
            write_some(partial, LARGE if disk else SMALL)
            if disk and nearly_full(partial):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
            if self._mirror is not None and isinstance(error, StoreError):
                self._mirror.remote.read(_MARK)
        except OSError as found:
            return trouble(self.url, found)
        except StoreError as found:
            return found
        return None

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """A block, such as a stage with its files, whose errors become the `StoreError` that explains them, if one
        does, see `unusable`."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, StoreError) and (found := self.unusable(error)) is not None:
                raise found from error
            raise

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Holds the right to compute `key` against other runs on this folder; waits while another holds it.

        A kernel lock: the death of its holder, however sudden, releases it. Where a file system has no locks, both runs
        compute and the first to finish wins, which is harmless.
        """
        with self._guarded():
            self._mark()
            self._sweep()
            if self._mirror is not None:
                self._mirror.send_pending()
            held = self._wait_for(key)
        try:
            if held.exclusive:  # what is there was left by a run that was killed
                self._here.remove_leftovers(key)
            else:
                log.info("no file locks at %s: two runs may compute the same artifact", self.url)
            yield
        finally:
            held.give()

    def workspace(self, key: str) -> Path:
        """A folder of the store for intermediate state of computing `key`, kept until `clear_workspace`. Its name does
        not tell the key."""
        path = self._workspace(key)
        with self._guarded():
            path.mkdir(parents=True, exist_ok=True)
        return path

    def clear_workspace(self, key: str) -> None:
        """Removes what `workspace` made."""
        shutil.rmtree(self._workspace(key), ignore_errors=True)

    def _workspace(self, key: str) -> Path:
        return self.folder / "workspaces" / hashlib.sha256(f"workspace\0{key}".encode()).hexdigest()[:32]

    def _fetch(self, key: str) -> bool:
        return self._mirror is not None and self._mirror.fetch(key)

    def _wait_for(self, key: str) -> Held:
        told = False
        while (held := self._locks.take(key)) is None:
            if not told:
                log.info("another run is computing %s; waiting for it", key[:12])
                told = True
            time.sleep(_POLL)
        return held

    def _sweep(self) -> None:
        """Remove, once, what runs that were killed left, and the locks by which they are known."""
        for name in () if self._swept else self._locks.names():
            if (held := self._locks.take(name)) is not None:
                if held.exclusive:
                    self._here.remove_leftovers(name)
                held.give()
        self._swept = True

    def _check_schema(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise WrongStore(f"store {self.url}: it cannot be written, it is a file; name a folder")
        for text in self._marks():
            try:
                found = json.loads(text)["schema_version"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise StoreError(
                    f"store {self.url}: its {_MARK} is damaged, or not an arena's; {OTHER}, or remove the file if the "
                    "folder is a store: its artifacts are checked one by one"
                ) from error
            if found != SCHEMA_VERSION:
                raise StoreError(
                    f"store {self.url}: it has schema version {found}, this arena reads {SCHEMA_VERSION}; name another "
                    "store (--store, ARENA_STORE) or remove this one, its artifacts can be computed anew"
                )

    def _marks(self) -> Iterator[bytes]:
        with suppress(FileNotFoundError):
            yield (self.folder / _MARK).read_bytes()
        if self._mirror is not None and (text := self._mirror.remote.read(_MARK)) is not None:
            yield text

    def _mark(self) -> None:
        """Writes the schema version into a new store."""
        if (self.folder / _MARK).exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema_version": SCHEMA_VERSION}) + "\n"
        if self._mirror is not None and self._mirror.remote.read(_MARK) is None:
            self._mirror.remote.write(_MARK, text.encode())
        write_atomically(self.folder / _MARK, text.encode())

    def _guarded(self) -> AbstractContextManager[None]:
        return guarded(self.url)


def _local(url: str) -> Path:
    try:
        return Path(url.removeprefix("file://")).expanduser().absolute()
    except RuntimeError as error:  # the home of somebody who is not known here
        raise WrongStore(f"store {url}: {error}; name a folder by its whole path") from error
