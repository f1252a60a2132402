"""Text of records is shown as it is: it breaks out of no page, table, terminal or spreadsheet."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from synthetic import QUICK, quick, record

from leaderboards.site.render import environment
from leaderboards.site.text import csv_text, wrapped
from leaderboards.tables.board import Board, Verification, Withdrawn, build, summary, write


def drop(board: Board, defense: str) -> float:
    cells = board.cells
    return cells.loc[(cells["defense"] == defense) & (cells["attack"] == "none"), "drop"].item()


class Page(HTMLParser):
    """Collects what a page would load, its text, and whether tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag in ("script", "link", "iframe", "img"):
            self.loads.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_page_is_self_contained_and_escapes_labels(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>|x"
    records = quick({**QUICK, (evil, "none"): 0.4, (evil, "jpeg"): 0.6})
    files = {p.suffix: p for p in write(build(records), tmp_path, "board")}
    page = Page()
    html = files[".html"].read_text(encoding="utf-8")
    page.feed(html)
    assert page.open == []
    assert page.loads == []
    assert "url(" not in html and "@import" not in html
    assert evil in "".join(page.text)
    markdown = files[".md"].read_text(encoding="utf-8")
    assert "<script>" not in markdown
    tables = [line for line in markdown.splitlines() if "alert" in line and line.startswith("|")]
    assert len(tables) >= 3


def test_terminal_summary_shows_the_ranking_and_no_markup() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(summary(build(quick({**QUICK, ("d[bold](q=[1])", "none"): 0.4}))))
    text = console.export_text()
    assert "d[bold](q=[1])" in text
    assert f"{100 * (0.9 - 0.55) / 0.8:.0f} % (" in text


def test_terminal_summary_lets_no_escape_sequence_through() -> None:
    evil = "red\x1b[31m\x07\u202eline\x85two"
    file = io.StringIO()
    console = Console(width=240, file=file, force_terminal=False)
    console.print(summary(build(quick({**QUICK, (evil, "none"): 0.4}, model=evil))))
    printed = file.getvalue()
    assert "red\\x1b[31m\\x07\\u202eline" in printed
    assert not {"\x1b", "\x07", "\u202e", "\x85"} & set(printed)


EVIL = "x`|</td><b>&\x1b[31m\x00\u202e $x$ *s* [a](b)\n# t"


def test_no_text_of_a_record_breaks_out_of_a_page(tmp_path: Path) -> None:
    records = quick({**QUICK, (EVIL, "none"): 0.4, (EVIL, EVIL): 0.6, ("none", EVIL): 0.7}, model=EVIL, recipe=EVIL)
    records.append(record(0, "sem", "none", 0, model=EVIL, recipe=EVIL, error=EVIL, suite={"id": EVIL, "digest": EVIL}))
    same = [r.model_copy(update={"suite": records[-1].suite}) for r in records]
    board = build(same, [Verification(EVIL, EVIL)], [Withdrawn(EVIL, EVIL, EVIL)])
    files = {p.suffix: p.read_bytes().decode() for p in write(board, tmp_path, "b") if p.suffix in (".md", ".html")}
    page = Page()
    page.feed(files[".html"])
    assert page.open == [] and page.loads == []
    assert "</td><b>" not in files[".html"] and "</td><b>" in "".join(page.text)
    assert "<b>" not in files[".md"] and "\n# t" not in files[".md"]
    for text in files.values():
        assert not {"\x1b", "\x00", "\u202e"} & set(text)
    for mark in ("`", "|", "*s*", "[a]", "$x$"):
        escaped = "".join(f"\\{c}" if c in "`|*[]$" else c for c in mark)
        assert escaped in files[".md"]
        if not mark.startswith("|"):
            assert mark not in files[".md"].replace(escaped, "")


@pytest.mark.parametrize("label", ["- item", "+ item", "3. item", "3) item"])
def test_a_label_at_the_start_of_a_line_begins_no_list(label: str) -> None:
    shown = environment().from_string("{{ label | md }}").render(label=label)
    assert shown.replace("\\", "", 1) == label and "\\" in shown[: shown.index(" ")]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", " =", "\n-", "\uff1d"])
def test_labels_that_spreadsheets_would_compute_are_neutralised_in_csv(start: str, tmp_path: Path) -> None:
    label = f"{start}HYPERLINK(1)"
    board = build(quick({**QUICK, (label, "none"): 0.95}))
    files = {p.suffix: p for p in write(board, tmp_path, "b")}
    csv = pd.read_csv(files[".csv"])
    assert f"'{label}" in set(csv["defense"]) and label not in set(csv["defense"])
    assert drop(board, label) < 0
    assert csv.loc[csv["defense"] == f"'{label}", "drop"].item() == pytest.approx(drop(board, label))
    assert label in set(pd.read_parquet(files[".parquet"])["defense"])


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("em", "em"),
        ("em(step=-1)", "em(step=-1)"),
        ("-1+x", "'-1+x"),
        ("\r=1", "'\\r=1"),
        ("\u202e=1", "\\u202e=1"),
        ("a\x1b]8;;http://x\x07b", "a\\x1b]8;;http://x\\x07b"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_a_text_in_a_cell_of_csv(text: str, cell: str) -> None:
    assert csv_text(text) == cell


def test_no_control_or_direction_reaches_the_csv_and_numbers_stay_numbers(tmp_path: Path) -> None:
    records = quick({**QUICK, ("none", "none"): 0.5, ("none", "jpeg"): 0.5, (EVIL, "none"): 0.9}, model=EVIL)
    board = build(records)
    content = next(p for p in write(board, tmp_path, "b") if p.suffix == ".csv").read_bytes().decode()
    assert not {"\x1b", "\x00", "\u202e"} & set(content) and "\\x1b[31m\\x00\\u202e" in content
    drops = pd.read_csv(io.StringIO(content))["drop"]
    assert drops.dtype == float and drops.min() < 0


def test_prose_of_a_page_is_wrapped_and_tables_are_not() -> None:
    row, long = "| " + "x" * 150 + " |", "- " + "word " * 50
    page = f"# {'title ' * 30}\n\nshort lines\nstay\n\n{long}\n  goes on\n- next\n\n{row}\n"
    lines = wrapped(page).split("\n")
    assert [line for line in lines if len(line) > 120] == [f"# {'title ' * 30}", row]
    assert lines[2:4] == ["short lines", "stay"] and lines[-2:] == [row, ""]
    item = lines[lines.index("") + 4 : lines.index("- next")]
    assert item[0].startswith("- word") and all(line.startswith("  word") for line in item[1:])
    assert " ".join(" ".join(item).split()) == " ".join(f"{long} goes on".split())
