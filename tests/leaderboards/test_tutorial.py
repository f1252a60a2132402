"""The tutorial, done as it is written, in a fresh environment and an empty folder."""

from __future__ import annotations

import os
import re
import site
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "leaderboards" / "TUTORIAL.md"

BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"Put this into\s+`(?P<name>[\w./-]+)`:\s*$")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment that has what this one has, and into which a package can be installed without touching it."""
    made = tmp_path / "venv"
    venv.create(made, symlinks=True)
    (packages,) = (made / "lib").glob("python*/site-packages")
    lines = [f"import site; site.addsitedir({place!r})\n" for place in site.getsitepackages()]
    (packages / "those-of-the-tests.pth").write_text("".join(lines), encoding="utf-8")
    programs = made / "bin"
    for name, main in (
        ("arena", "from arena.cli.app import main; main()"),
        ("pip", "from pip._internal.cli.main import main; sys.exit(main())"),
        ("pytest", "import pytest; sys.exit(pytest.console_main())"),
    ):
        (programs / name).write_text(f"#!{programs / 'python'}\nimport sys\n{main}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_BUILD_ISOLATION": "0",  # which is how pip spells it: build with the setuptools that is here
        "PIP_NO_INDEX": "1",
        "ARENA_STORE": str(tmp_path / "store"),
    }


def test_it_does_what_it_says(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    said = {}
    text = TUTORIAL.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if block["language"] != "sh":
            named = NAMED.search(text[: block.start()])
            assert named is not None, f"where does this go?\n{block['text']}"
            (folder / named["name"]).write_text(block["text"], encoding="utf-8")
            continue
        for command in block["text"].splitlines():
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            said[command] = done.stdout
    assert "attack/smooth" in said["arena check smooth"] and " 0 failed" in said["arena check smooth"]
    assert "smooth" in said["arena run board.yaml"] and (folder / "results" / "my-board.html").is_file()
    assert said["arena stress"].splitlines()[-1].startswith("met: 3 met")
    last = said[next(command for command in said if "robust-protection" in command)].splitlines()
    assert last[-1] == "exit code 1"
