"""A folder of artifacts that stands for a remote one: fetches what it lacks, and sends what was made here."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from pathlib import Path

from arena.store.folder import Folder
from arena.store.locks import Locks
from arena.store.manifest import MANIFEST, Manifest, digest_file, place, read_manifest
from arena.store.remote import Remote
from arena.store.trouble import guarded

log = logging.getLogger("arena.store.local")


class Mirror:
    """The way between the artifacts `here` and those at `remote`, which messages call `url`.

    What is published here is noted as pending before, and until all of it was sent: a failed upload is done again.
    """

    def __init__(self, remote: Remote, here: Folder, locks: Locks, url: str) -> None:
        self.remote, self._here, self._locks, self._url = remote, here, locks, url

    def look(self, key: str) -> Manifest | None:
        """The manifest of a remote artifact, None where there is none or it is damaged."""
        text = self.remote.read(place(key, MANIFEST))
        with suppress(ValueError):
            return None if text is None else read_manifest(text, key)
        return None

    def fetch(self, key: str) -> bool:
        """Copy a remote artifact here; whether it is here now, every digest checked. A corrupt one is taken back."""
        if (text := self.remote.read(place(key, MANIFEST))) is None:
            return False
        try:
            files = read_manifest(text, key).files
        except ValueError as error:
            self._take_back(key, f"its manifest is unreadable ({error})")
            return False
        with guarded(self._url):
            partial = self._here.new_partial(f"fetch-{key}")
            try:
                for name, entry in files.items():
                    self.remote.fetch(place(key, name), partial / name)
                    if digest_file(partial / name) != entry.sha256:
                        self._take_back(key, f"{name} has changed")
                        return False
                (partial / MANIFEST).write_bytes(text)
                self._here.publish(partial, key)
            except FileNotFoundError as error:
                self._take_back(key, str(error))
                return False
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return self._here.manifest(key) is not None

    def is_pending(self, key: str) -> bool:
        """Whether an artifact that is here was not sent, or not all of it."""
        return self._note(key).exists()

    def note(self, key: str) -> None:
        """Say that an artifact is about to be published here, and is to be sent."""
        self._note(key).parent.mkdir(parents=True, exist_ok=True)
        self._note(key).touch()

    def send(self, key: str) -> None:
        """Send an artifact, its manifest last, unless another process is at it."""
        with guarded(self._url):
            if (held := self._locks.take(f"upload-{key}")) is None:
                return
            try:
                manifest = self._here.manifest(key)
                for name in () if manifest is None else (*manifest.files, MANIFEST):
                    self.remote.send(self._here.path(key) / name, place(key, name))
                self._note(key).unlink(missing_ok=True)
            finally:
                held.give()

    def send_pending(self) -> None:
        """Send all that could not be sent before."""
        for note in (self._here.root / "pending").glob("*"):
            self.send(note.name)

    def _note(self, key: str) -> Path:
        return self._here.root / "pending" / key

    def _take_back(self, key: str, why: str) -> None:
        log.warning("artifact %s at %s is corrupt: %s. It will be computed anew.", key[:12], self._url, why)
        self.remote.remove(place(key, MANIFEST))
