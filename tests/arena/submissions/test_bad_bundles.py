"""Whatever is wrong with a bundle is one paragraph with the remedy; it exits with 2, or 3, and nothing is written."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from submission_tools import command, forged, snapshot, submit, unpacked

from arena.errors import UsageError
from arena.plugins.registry import Entry
from arena.submissions.bundle import LIMITS, read_bundle

Files = dict[str, bytes]


def rezip(bundle: Path, files: Files) -> None:
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)


def said(bundle: Path) -> str:
    """What verifying a bad bundle says."""
    before = snapshot(Path())
    done = command("verify", str(bundle))
    assert isinstance(done.exception, UsageError), (done.output, done.exception)
    assert snapshot(Path()) == before
    message = str(done.exception)
    assert "\n" not in message and len(message) < 1000
    return message


def altered(files: Files, name: str, old: bytes, new: bytes) -> None:
    assert old in files[name]
    files[name] = files[name].replace(old, new, 1)


def without(files: Files, name: str) -> None:
    del files[name]


def versioned(files: Files, name: str) -> None:
    files["manifest.json"] = json.dumps(json.loads(files["manifest.json"]) | {name: 99}).encode()


def padded(files: Files, name: str, size: int) -> None:
    files[name] = files[name] + b" " * size


ALTERED: dict[str, tuple[Callable[[Files], None], str]] = {
    "records": (
        lambda f: altered(f, "records.jsonl", b'"accuracy":', b'"accuracy": '),
        "records.jsonl is not the file that its manifest has the digest of",
    ),
    "statement": (lambda f: altered(f, "statement.yaml", b"Ann", b"Eve"), "statement.yaml is not the file"),
    "no records": (lambda f: without(f, "records.jsonl"), "records.jsonl is missing"),
    "no manifest": (lambda f: without(f, "manifest.json"), "has no manifest.json, so it is no bundle"),
    "manifest": (lambda f: f.update({"manifest.json": b"[" * 100_000}), "manifest.json is not a JSON object"),
    "field": (lambda f: altered(f, "manifest.json", b'"cost"', b'"price"'), "manifest.json: "),
    "unlisted": (lambda f: f.update({"x-1-py3-none-any.whl": b""}), "does not list x-1-py3-none-any.whl"),
    "protocol": (lambda f: versioned(f, "protocol_version"), "it is of protocol version 99, and this arena has 2"),
    "identity": (lambda f: versioned(f, "identity_version"), "it is of identity version 99, and this arena has 1"),
    "schema": (lambda f: versioned(f, "record_version"), "it is of record version 99, and this arena has 2"),
    "format": (lambda f: versioned(f, "bundle_version"), "it is of bundle version 99, and this arena has 1"),
    "escape": (lambda f: f.update({"../evil.py": b"x"}), "'../evil.py' does not belong into a bundle"),
    "absolute": (lambda f: f.update({"/etc/evil": b"x"}), "'/etc/evil' does not belong into a bundle"),
    "folder": (lambda f: f.update({"records.jsonl/": b""}), "'records.jsonl/' does not belong into a bundle"),
    "hostile name": (lambda f: f.update({"\x1b[31m": b""}), r"'\x1b[31m' does not belong into a bundle"),
    "bomb": (lambda f: padded(f, "manifest.json", 50 * 2**20), "has more than 1,048,576 bytes when unpacked"),
    "large statement": (lambda f: padded(f, "statement.yaml", LIMITS["statement.yaml"]), "has more than 65,536 bytes"),
}


@pytest.mark.parametrize("case", ALTERED)
def test_what_was_altered_is_named(case: str) -> None:
    bundle = submit("remember")
    files = unpacked(bundle)
    change, message = ALTERED[case]
    change(files)
    rezip(bundle, files)
    assert message in said(bundle)


def test_a_link_is_refused() -> None:
    bundle = submit("remember")
    files = unpacked(bundle)
    with zipfile.ZipFile(bundle, "w") as packed:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            link = name == "statement.yaml"
            info.create_system, info.external_attr = 3, (stat.S_IFLNK if link else stat.S_IFREG) << 16
            packed.writestr(info, b"/etc/passwd" if link else content)
    assert "'statement.yaml' does not belong into a bundle" in said(bundle)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused() -> None:
    bundle = submit("remember")
    with zipfile.ZipFile(bundle, "a") as packed:
        packed.writestr("records.jsonl", b"")
    assert "'records.jsonl' is there twice" in said(bundle)


@pytest.mark.parametrize("size", [0, 10, 2000])
def test_a_zip_that_is_cut_off_is_refused(size: int) -> None:
    bundle = submit("remember")
    bundle.write_bytes(bundle.read_bytes()[:size])
    assert "is no whole zip file" in said(bundle)


def test_a_damaged_byte_is_found() -> None:
    bundle = submit("remember")
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 0xFF
    bundle.write_bytes(content)
    assert "is no whole zip file" in said(bundle) or "digest" in said(bundle)


def test_what_is_no_bundle_is_said() -> None:
    assert "there is no file gone.zip" in said(Path("gone.zip"))
    done = command("verify", "a.zip", "s.yaml")
    assert isinstance(done.exception, UsageError) and "name one bundle, or suites" in str(done.exception)
    done = command("verify", "s.yaml", "--out", "x")
    assert isinstance(done.exception, UsageError) and "--out and --code are for a bundle" in str(done.exception)


def suite_of(record: dict[str, Any], digest: str) -> None:
    record["suite"]["digest"] = digest


FORGED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "name": (lambda r: r.update(seed=7), "is not what its fields ask for"),
    "accuracy": (lambda r: r["outcome"].update(accuracy=0.123), "is not the mean of the item bits"),
    "suite": (lambda r: suite_of(r, "5" * 64), "a record of another suite than the manifest names"),
    "failed": (
        lambda r: r.update(status="failed", outcome=None, failure={"stage": "s", "error": "e", "traceback": "t"}),
        "an entry is whole or not there",
    ),
    "source": (lambda r: r["defense"].update(source_digest="5" * 64), "made by other code than its manifest says"),
    "field": (lambda r: r.update(extra=1), "line 1: extra: Extra inputs are not permitted"),
}


@pytest.mark.parametrize("case", FORGED)
def test_records_that_are_not_the_entrys_are_refused(case: str) -> None:
    bundle = submit("remember")
    change, message = FORGED[case]
    forged(bundle, change)
    assert message in said(bundle)


def test_cells_of_another_entry_are_refused() -> None:
    other = unpacked(submit("unsorted", out="other.zip"))
    bundle = submit("remember")
    files = unpacked(bundle)
    lines = other["records.jsonl"].splitlines() + files["records.jsonl"].splitlines()[1:]

    def change(record: dict[str, Any]) -> None:
        record.clear()
        record.update(json.loads(lines.pop(0)))

    forged(bundle, change)
    assert "lacks 6 of the 6 cells" in said(bundle) or "is there twice" in said(bundle)


def test_a_suite_that_nobody_can_plan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.submissions.check._MOST", 1)
    assert "has more than 1 cells" in said(submit("remember"))


def test_means_that_are_not_those_of_the_records_are_refused() -> None:
    bundle = submit("remember")
    files = unpacked(bundle)
    manifest = json.loads(files["manifest.json"])
    manifest["stealth"]["psnr"] = 99.0
    files["manifest.json"] = json.dumps(manifest).encode()
    rezip(bundle, files)
    assert "stealth and cost in its manifest.json are not those of its records" in said(bundle)


def test_another_suite_under_a_shipped_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import arena.submissions.check

    bundle = submit("remember")
    suite = json.loads(Path("s.yaml").read_text(encoding="utf-8"))
    Path("other.yaml").write_text(json.dumps(suite | {"seeds": [0]}), encoding="utf-8")
    find = arena.submissions.check.find_suite
    monkeypatch.setattr(arena.submissions.check, "shipped_suites", lambda: ["s"])
    monkeypatch.setattr(arena.submissions.check, "find_suite", lambda name: find("other.yaml"))
    assert "a suite 's' that is not the one here, which has changed since" in said(bundle)


# Exit code 3


def test_a_plugin_that_is_not_installed_cannot_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = submit("remember")
    real = Entry.source_digest
    monkeypatch.setattr(Entry, "source_digest", lambda e: "5" * 64 if e.id == "remember" else real(e))
    before = snapshot(Path())
    done = command("verify", str(bundle))
    assert done.exit_code == 3
    assert (
        "undecided: defense 'remember' is installed from doubtful 1.0 with other source (555555555555)" in done.output
    )
    assert f"`arena verify BUNDLE --code FOLDER`, read and install it (https://example.org/doubtful at {'c' * 40})" in (
        done.output
    )
    manifest = json.loads(unpacked(bundle)["manifest.json"])
    manifest["entry"]["parts"][0]["id"] = manifest["entry"]["use"]["id"] = "never-seen"
    forged(bundle, lambda r: None, entry=manifest["entry"])
    done = command("verify", str(bundle))
    assert done.exit_code == 3 and "defense 'never-seen' is not installed" in done.output
    bundle.unlink()
    del before["b.zip"]
    assert snapshot(Path()) == before


def test_main_prints_a_paragraph_and_exits_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")  # the tests' folders hide the package that is installed
    Path("bad.zip").write_bytes(b"PK\x03\x04")
    program = "import sys; sys.argv[1:] = ['verify', 'bad.zip']; from arena.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: bad.zip is no whole zip file")
    assert "Traceback" not in done.stderr and not done.stdout


def test_reading_keeps_what_was_written() -> None:
    bundle = read_bundle(submit("remember"))
    assert bundle.statement.author == "Ann Example" and len(bundle.records) == 6
    assert bundle.manifest.entry.label == "remember" and bundle.manifest.code.commit == "c" * 40
    assert bundle.manifest.stealth["psnr"] is not None and bundle.manifest.cost["finetune"] is not None
