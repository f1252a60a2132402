"""What is written of a stress test: numbers that agree in every form, and nothing in a label that acts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from synthetic import QUICK, quick

from arena.errors import ArenaError
from arena.stress.compare import compare
from arena.stress.report import as_json, as_junit, as_markdown, summary, workflow_commands, write
from arena.stress.requirements import parse
from arena.stress.run import Outcome
from arena.stress.verdicts import judge
from leaderboards.tables.board import build

HOSTILE = "x\n::error::gone|<img src=x>[a](b)`\x1b[31m\u202e@all]]>*"


def outcome() -> Outcome:
    board = build(quick())
    texts = ("protection>=0.3", "psnr>=32", "ms-ssim>=0.5")
    verdicts = tuple(judge(parse(text), board, "em", 3, line) for line, text in enumerate(texts, 5))
    before, after = quick(seeds=4), quick({**QUICK, ("em", "jpeg"): 0.75}, seeds=4)
    moved = compare(before, after, after, "em", "em", "old.jsonl")
    return Outcome("em", verdicts, "quick", "5" * 64, "em", Path("r.jsonl"), Path("arena-stress.yaml"), moved)


def test_every_form_says_the_same() -> None:
    found = outcome()
    content = as_json(found)
    assert content["schema_version"] == 1 and content["status"] == "failed" and content["exit_code"] == 1
    protection, psnr, ms_ssim = content["requirements"]
    assert (
        protection["requirement"] == "protection>=0.3@low" and protection["status"] == "met" and protection["line"] == 5
    )
    worst = protection["worst"]
    assert worst["low"] < worst["value"] < worst["high"] and worst["seeds"] == 3 and worst["undefined"] is None
    assert (psnr["status"], psnr["unit"], psnr["worst"]["value"], psnr["worst"]["low"]) == ("failed", "dB", 31.5, None)
    assert ms_ssim["status"] == "undecided" and ms_ssim["worst"]["undefined"] == "not measured on these data"
    assert {cell["status"] for cell in content["compare"]["cells"]} == {"same", "lost"}
    json.dumps(content, allow_nan=False)
    suite = ElementTree.fromstring(as_junit(found)).find("testsuite")
    assert suite is not None
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["3", "1", "1", "0"]
    shown = f"{worst['value']:.3f} [{worst['low']:.3f}, {worst['high']:.3f}]"
    page, lines = as_markdown(found), "\n".join(summary(found))
    assert shown in (suite[0].findtext("system-out") or "") and shown in lines and shown.replace("[", "&#91;") in page
    assert "❌ failed | psnr>=32 | 31.500 |" in page and "| lost | tiny-llava · glyphs · lora · jpeg" in page
    assert "failed: 1 met, 1 failed, 1 undecided; records: r.jsonl" in lines


def test_annotations_name_file_and_line() -> None:
    first, second = workflow_commands(outcome())
    assert first.startswith("::error file=arena-stress.yaml,line=6,title=arena stress%3A psnr>=32::failed: 31.500 dB")
    assert second.startswith("::error file=arena-stress.yaml,line=7,title=arena stress%3A ms-ssim>=0.5::undecided: ")
    (alone, _) = workflow_commands(replace(outcome(), file=None))
    assert alone.startswith("::error title=arena stress%3A psnr>=32::")


def test_nothing_in_a_label_acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = outcome()
    verdicts = tuple(replace(verdict, name=HOSTILE, why=HOSTILE) for verdict in found.verdicts)
    found = replace(found, target=HOSTILE, entry=HOSTILE, verdicts=verdicts, notes=(HOSTILE,), failures=(HOSTILE,))
    assert all("\n" not in line and "\x1b" not in line and not line.startswith("::") for line in summary(found))
    for command in workflow_commands(found):
        assert command.count("\n") == 0 and "\x1b" not in command and command.startswith("::error file=")
        assert command.split("::")[1].count(",") == 2  # no property more
    page = as_markdown(found)
    assert [part for part in ("<img", "[a](", "\x1b", "\u202e", "@all") if part in page] == []
    rows = [line for line in page.split("\n") if line.startswith("|")]
    assert all(row.count("|") in (5, 6) for row in rows)
    suite = ElementTree.fromstring(as_junit(found))
    assert "\x1b" not in ElementTree.tostring(suite, encoding="unicode")
    summary_file = tmp_path / "summary.md"
    summary_file.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary_file))
    write(found, None, None, tmp_path / "o.json")
    assert summary_file.read_text(encoding="utf-8") == f"before\n{page}\n"
    assert json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))["target"] == HOSTILE


def test_files_of_others_are_left(tmp_path: Path) -> None:
    found, mine = outcome(), tmp_path / "mine"
    mine.write_text("mine", encoding="utf-8")
    for files in ((mine, None, None), (None, mine, None), (None, None, mine)):
        with pytest.raises(ArenaError, match="it is left as it is"):
            write(found, *files)
        assert mine.read_text(encoding="utf-8") == "mine"
    ours = (tmp_path / "j.xml", tmp_path / "m.md", tmp_path / "o.json")
    write(found, *ours)
    write(found, *ours)  # over what it wrote itself
    assert as_junit(found) == ours[0].read_bytes() and as_markdown(found) == ours[1].read_text(encoding="utf-8")
