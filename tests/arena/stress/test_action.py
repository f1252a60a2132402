"""The GitHub action: its files are what GitHub reads, and its steps, run here on a small repository, do their work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from stress_toys import write_suite

ROOT = Path(__file__).parents[3]
ACTION = ROOT / ".github" / "actions" / "arena-stress" / "action.yml"
EXAMPLE = ROOT / "leaderboards" / "examples" / "arena-stress.yml"

DEFENSE = '''\
"""A protection of our own: every picture is made brighter."""

import numpy as np
from PIL import Image

from arena.plugins.base import ImageDefense

STEP = 8


class Brighter(ImageDefense):
    def perturb(self, samples, world):
        return [Image.fromarray(np.asarray(sample.image) + np.uint8(STEP)) for sample in samples]
'''
REQUIREMENTS = """\
target: brighter
suite: bright.yaml
requirements:
  - protection>=0.1
  - psnr>=20
"""


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# What GitHub reads


@pytest.mark.parametrize(("schema", "path"), [("github-actions", ACTION), ("github-workflows", EXAMPLE)])
def test_files_are_of_githubs_schemas(schema: str, path: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema, of the extra dev, is not installed")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    """The workflow uses the action by its place here, so that its inputs are checked as well; scripts of the action are
    put into a workflow, since actionlint reads no actions."""
    if (actionlint := shutil.which("actionlint")) is None:
        pytest.skip("actionlint is not installed")
    workflows = tmp_path / ".github" / "workflows"
    workflows.mkdir(parents=True)
    shutil.copytree(ACTION.parents[1], tmp_path / ".github" / "actions")
    text = EXAMPLE.read_text(encoding="utf-8")
    ours = re.sub(r"OWNER/mmguard-arena/(\S+)@main", r"./\1", text)
    assert ours != text
    (workflows / "example.yml").write_text(ours, encoding="utf-8")
    action = read(ACTION)
    steps = [
        {k: v for k, v in step.items() if k not in ("if", "working-directory")} for step in action["runs"]["steps"]
    ]
    job = {"runs-on": "ubuntu-latest", "steps": steps}
    inputs = {name: {"description": about["description"], "type": "string"} for name, about in action["inputs"].items()}
    flow = {"name": "steps", "on": {"workflow_call": {"inputs": inputs}}, "jobs": {"steps": job}}
    (workflows / "steps.yml").write_text(yaml.safe_dump(flow), encoding="utf-8")
    files = [str(path) for path in workflows.iterdir()]
    done = subprocess.run([actionlint, *files], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_scripts_take_inputs_from_the_environment_alone() -> None:
    """An input that stands in a script is run as code."""
    for step in read(ACTION)["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert step.get("shell") == ("bash" if "run" in step else None)


def test_the_example_gives_inputs_that_there_are() -> None:
    (job,) = read(EXAMPLE)["jobs"].values()
    (step,) = (step for step in job["steps"] if "arena-stress" in step["uses"])
    assert set(step["with"]) <= set(read(ACTION)["inputs"])


# Its steps


class Repository:
    """A git repository with a defense, and a pull request that changes it."""

    def __init__(self, folder: Path, runner: Path) -> None:
        self.folder, self.runner = folder, runner
        information = folder / "brighter-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: brighter\nVersion: 1.0\n")
        points = "[mmguard_arena.defenses]\nbrighter = brighter:Brighter\n"
        (information / "entry_points.txt").write_text(points, encoding="utf-8")
        (information / "top_level.txt").write_text("brighter\n", encoding="utf-8")
        (folder / "brighter.py").write_text(DEFENSE, encoding="utf-8")
        (folder / "arena-stress.yaml").write_text(REQUIREMENTS, encoding="utf-8")
        write_suite(folder / "bright.yaml")
        programs = runner / "bin"
        programs.mkdir(parents=True)
        main = "import toys; toys.install(); from arena.cli.app import main; main()"
        (programs / "arena").write_text(f'#!/bin/bash\nexec "{sys.executable}" -c "{main}" "$@"\n', encoding="utf-8")
        (programs / "arena").chmod(0o755)
        self.git("init", "--quiet", "--initial-branch", "main")
        self.commit()

    def git(self, *words: str) -> None:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *words], cwd=self.folder, check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "--all", ":!build")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a change")

    def pull_request(self, *changes: tuple[str, str]) -> None:
        """A branch from main, on which texts in the defense are replaced."""
        self.git("checkout", "--quiet", "--force", "-B", "change", "main")
        path = self.folder / "brighter.py"
        text = path.read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        self.commit()

    def run(self, **given: str) -> subprocess.CompletedProcess[str]:
        """Run the scripts of the action's steps, as a job of the example does, until one fails."""
        action = read(ACTION)
        inputs = {name: about["default"] for name, about in action["inputs"].items()} | given
        for name in ("summary", "output"):
            (self.runner / name).write_text("", encoding="utf-8")
        done = None
        for step in (step for step in action["runs"]["steps"] if "run" in step):
            condition = re.fullmatch(r"inputs\.(\S+) != ''", step.get("if", "inputs.file != ''"))
            assert condition is not None
            if inputs[condition[1]] == "":
                continue
            done = self._script(step["run"], {k: self._value(v, inputs) for k, v in step["env"].items()})
            if done.returncode:
                break
        assert done is not None
        return done

    def _value(self, text: str, inputs: Mapping[str, str]) -> str:
        text = text.replace("${{ runner.temp }}", str(self.runner))
        return re.sub(r"\$\{\{ inputs\.(\S+) \}\}", lambda found: inputs[found[1]], text)

    def _script(self, script: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(ROOT), str(self.folder), os.environ["PYTHONPATH"]])
        environment = os.environ | variables | {
            "PATH": f"{self.runner / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": paths,
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(self.runner / "summary"),
            "GITHUB_OUTPUT": str(self.runner / "output"),
        }  # fmt: skip
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300)

    def written(self, name: str) -> str:
        return (self.runner / name).read_text(encoding="utf-8")


@pytest.fixture
def repository(tmp_path: Path, toys: Path) -> Repository:
    return Repository(tmp_path / "project", tmp_path / "runner")


def test_pull_requests_fail_where_they_should(repository: Repository) -> None:
    """One that does neither passes, one that weakens the protection fails although every requirement is met, one that
    breaks the budget fails."""
    (job,) = read(EXAMPLE)["jobs"].values()
    given = {"install": "", "python-version": "", "compare": "main"}
    assert job["steps"][1]["with"]["compare"] == "origin/${{ github.base_ref }}"
    repository.pull_request(("A protection of our own", "Our protection"), ("np.uint8(STEP)", "np.uint8([STEP][0])"))
    passed = repository.run(**given)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "exit-code=0" in repository.written("output") and "::error" not in passed.stdout
    assert "✅ met | compare | none of 2 cells against main lost protection" in repository.written("summary")
    repository.pull_request(("STEP = 8", "STEP = 3"))
    weaker = repository.run(**given)
    assert weaker.returncode == 1, weaker.stdout + weaker.stderr
    assert "met: protection>=0.1" in weaker.stdout and "2 of 2 cells against main lost protection" in weaker.stdout
    assert "| lost | toy-model · toy-bright · toy-recipe · none · 8/255 | 0.333 | 0.125 |" in repository.written(
        "summary"
    )
    assert "exit-code=1" in repository.written("output")
    repository.pull_request(("STEP = 8", "STEP = 9"))
    beyond = repository.run(**given)
    assert beyond.returncode == 1 and "|delta| = 9/255 > 8/255" in beyond.stdout
    assert "| ❌ failed | budget |" in repository.written("summary")
    assert "::error file=arena-stress.yaml,line=1,title=arena stress%3A budget::failed: " in beyond.stdout
    assert (repository.runner / "arena-stress" / "stress.xml").exists()


def test_inputs_are_words_and_no_code(repository: Repository) -> None:
    given = {"install": "", "python-version": "", "compare": ""}
    hostile = "$(touch owned); `touch owned`\nprotection>=0.1"
    found = repository.run(**given, require=hostile, target="brighter", suite="bright.yaml")
    assert found.returncode == 2 and "requirement '$(touch owned); `touch owned`' cannot be read" in found.stderr
    assert not (repository.folder / "owned").exists() and "exit-code=2" in repository.written("output")
    assert "::error title=arena stress::it cannot be asked" in found.stdout
    more = repository.run(**given, require="psnr>=20@value\n\npsnr>=99\n")
    assert more.returncode == 2 and "'psnr>=20@value' is there twice" in more.stderr


def test_packages_are_installed_word_by_word(repository: Repository) -> None:
    python = repository.runner / "bin" / "python"
    python.write_text('#!/bin/bash\nprintf "<%s>" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    install = next(step for step in read(ACTION)["runs"]["steps"] if step["name"] == "Install")
    done = repository._script(install["run"], {"INSTALL": "mmguard-arena -e ."})
    assert done.returncode == 0 and done.stdout == "<-m><pip><install><mmguard-arena><-e><.>"
