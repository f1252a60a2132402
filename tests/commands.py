"""The command `arena` in this process, which has the libraries loaded, and a server for the stages' processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from arena.cli.app import main


def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What a process of its own would have left, in the working directory as it is."""
    capsys.readouterr()
    with monkeypatch.context() as here, pytest.raises(SystemExit) as left:
        here.setattr(sys, "argv", ["arena", *words])
        for name, value in {"COLUMNS": "200", **environment}.items():
            here.setenv(name, value)
        main()
    return subprocess.CompletedProcess(sys.argv, int(str(left.value.code or 0)), *capsys.readouterr())
