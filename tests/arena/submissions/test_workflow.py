"""The job that verifies bundles in a pull request, its steps run by bash; and the forms beside it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from submission_tools import CODE, submit, succeed
from suites import toy_suite

ROOT = Path(__file__).parents[3]
WORKFLOW = ROOT / ".github" / "workflows" / "verify-submission.yml"


def workflow() -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return found


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workflow()["jobs"]["verify"]["steps"]
    return [step for step in found if "run" in step]


def git(*words: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *settings, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def runner(tmp_path: Path, toys: Path) -> dict[str, str]:
    """The environment of the steps: this arena, the toys, and a pip that only notes what it is asked for."""
    tools = tmp_path / "tools"
    tools.mkdir()
    scripts = {
        "python": f'[ "$1 $2" = "-m pip" ] && {{ echo "$@" >> {tmp_path}/pip.log; exit; }}; exec {sys.executable} "$@"',
        "arena": f'exec {sys.executable} -c "from arena.cli.app import main; main()" "$@"',
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
        (tools / name).chmod(0o755 | stat.S_IXUSR)
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "toys")))
    kept = {name: os.environ[name] for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME") if name in os.environ}
    return {**kept, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path, "LANG": "C.UTF-8"}


def pull_request(*bundles: bytes) -> str:
    """A repository whose head adds bundles; returns the commit before."""
    git("init", "-q")
    Path("README").write_text("here", encoding="utf-8")
    git("add", "README")
    git("commit", "-qm", "before")
    base = git("rev-parse", "HEAD")
    folder = Path("leaderboards/submissions")
    folder.mkdir(parents=True)
    for number, content in enumerate(bundles):
        folder.joinpath(f"b {number}.zip").write_bytes(content)
    git("add", "leaderboards")
    git("commit", "-qm", "after")
    return base


def run_steps(environment: dict[str, str], base: str) -> subprocess.CompletedProcess[str]:
    """All steps as the runner does, until one fails; returns the last."""
    for step in steps():
        own = {
            name: value.replace("${{ github.event.pull_request.base.sha }}", base)
            for name, value in step.get("env", {}).items()
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env={**environment, **own},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            break
    return done


def toy_bundle() -> bytes:
    """A bundle whose cells the toys compute in processes of their own."""
    suite = toy_suite(id="toy-ci", defenses=["none"], attacks=["none"], seeds=[0])
    Path("ci.yaml").write_text(suite.model_dump_json(), encoding="utf-8")
    words = ("--entry", "toy-noise", "--statement", "said.yaml", *CODE, "--out", "ci.zip")
    succeed("submit", "ci.yaml", *words)
    return Path("ci.zip").read_bytes()


def test_the_steps_verify_a_bundle(runner: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import toys

    toys.install()  # in the place of the learner of these tests
    monkeypatch.setattr("arena.engine.stages.FineTune.run", toys.fine_tuned)
    monkeypatch.setattr("arena.engine.stages.Score.run", toys.scored)
    bundle = toy_bundle()
    base = pull_request(bundle)
    done = run_steps(runner, base)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed: 1 of 1 cells of defense toy-noise" in done.stdout
    (written,) = Path("build/verified").iterdir()
    assert written.name == "b 0.zip.verified.json" and json.loads(written.read_bytes())["checks"]
    asked = (tmp_path / "pip.log").read_text(encoding="utf-8").splitlines()
    assert asked == [
        "-m pip install -c constraints.txt -e .",
        f"-m pip install -c constraints.txt git+https://example.org/doubtful@{'c' * 40}",
    ]


def test_the_steps_fail_where_a_bundle_is_bad(runner: dict[str, str]) -> None:
    base = pull_request(b"PK\x03\x04")
    done = run_steps(runner, base)
    assert done.returncode != 0 and "b 0.zip is no whole zip file" in done.stderr


def test_the_steps_fail_where_the_plugin_is_not_what_was_installed(runner: dict[str, str]) -> None:
    base = pull_request(submit("remember").read_bytes())  # of a package that the runner does not have
    done = run_steps(runner, base)
    assert done.returncode == 3 and "undecided: defense 'remember' is not installed" in done.stderr


def test_the_job_has_no_secrets_and_reads_only() -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    assert workflow()["permissions"] == {"contents": "read"} and set(workflow()[True]) == {"pull_request"}
    assert "secrets." not in text and "pull_request_target" not in text
    for step in steps():  # what a fork chooses never becomes part of a script
        assert "${{" not in step["run"]


def test_the_form_is_one_that_github_takes() -> None:
    """Its keys are those of GitHub's schema for forms; ids and labels are distinct."""
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "submission.yml").read_text(encoding="utf-8"))
    assert set(form) == {"name", "description", "title", "labels", "body"}
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert {part["type"] for part in asked} <= {"input", "textarea", "dropdown", "checkboxes"}
    assert len({part["id"] for part in asked}) == len({part["attributes"]["label"] for part in asked}) == len(asked)


def test_the_guide_names_commands_and_files_that_are_there() -> None:
    guide = (ROOT / "leaderboards" / "SUBMITTING.md").read_text(encoding="utf-8")
    for word in ("submit --template", "verify", "accept-submission", "audit --bundle"):
        assert f"arena {word}" in guide
    from arena.submissions import bundle

    for name in (bundle.MANIFEST, bundle.RECORDS, bundle.SUITE, bundle.STATEMENT, bundle.PACKAGES):
        assert f"| `{name}` |" in guide
