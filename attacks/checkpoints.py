"""What identifies a checkpoint that an attack's settings name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from arena.hub_commit import resolve
from arena.lvlm.checkpoints import folder_digest


def pinned(checkpoint: str) -> str:
    """A folder as it is, a hub id with its commit, as `fingerprint` says it."""
    return checkpoint if Path(checkpoint).is_dir() else fingerprint(checkpoint)


def fingerprint(checkpoint: str) -> str:
    """A digest of a folder's files, those of a pipeline's parts in folders of their own too; of a hub id, which may end
    in ``@`` and a branch, tag or commit, id and commit.

    Raises `ArenaError` for a folder without a checkpoint, `UnresolvedRevision` where the hub cannot say the commit.
    """
    if (folder := Path(checkpoint)).is_dir():
        parts = sorted({folder, *(file.parent for file in folder.glob("*/*.json"))})
        return hashlib.sha256("".join(map(folder_digest, parts)).encode()).hexdigest()
    name, _, revision = checkpoint.partition("@")
    return f"{name}@{resolve(name, revision or 'main')}"
