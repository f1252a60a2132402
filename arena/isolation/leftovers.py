"""Removing folders that a plugin wrote to, whatever it made of them."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path


def remove(folder: Path) -> None:
    """Remove a folder, as far as it can be removed; raises nothing."""
    with suppress(RecursionError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.is_symlink() or not folder.exists():
        return
    for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):  # not to be entered, or folders in folders without end
        with suppress(OSError):
            subprocess.run([*command, "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
