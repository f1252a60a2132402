"""What identifies a checkpoint that an attack's settings name."""

from __future__ import annotations

from pathlib import Path

from arena.lvlm.sources import folder_digest


def fingerprint(checkpoint: str) -> str:
    """A digest of a folder's files; of a hub id, which may end in ``@`` and a branch, tag or commit, id and revision.

    Raises `ArenaError` for a folder without a checkpoint.
    """
    if (folder := Path(checkpoint)).is_dir():
        return folder_digest(folder)
    name, _, revision = checkpoint.partition("@")
    return f"{name}@{revision or 'main'}"
