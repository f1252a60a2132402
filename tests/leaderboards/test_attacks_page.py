"""The page about attacks: what it says of records whose truth is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import record

from arena.errors import ArenaError, UsageError
from arena.records.files import append_record
from arena.suites.schema import digest
from arena.suites.shipped import find_suite
from leaderboards.pages import write_evidence

ACCURACIES = {
    ("none", "none"): 0.9,
    ("none", "jpeg"): 0.7,
    ("none", "grayscale"): 0.85,
    ("none", "punct"): 0.9,
    ("em", "none"): 0.3,
    ("em", "jpeg"): 0.6,
    ("em", "grayscale"): 0.1,
    ("mem", "none"): 0.2,
    ("mem", "punct"): 0.6,
    ("mmguard-bph", "none"): 0.2,
    ("mmguard-bph", "punct"): 0.2,
}


@pytest.fixture
def page(tmp_path: Path) -> str:
    suite = {"id": "attacks", "digest": digest(find_suite("attacks"))}
    for (defense, attack), accuracy in ACCURACIES.items():
        for seed in range(3):
            one = record(accuracy, defense, attack, seed, suite=suite)
            append_record(tmp_path / "results" / "attacks.jsonl", one)
    return write_evidence(tmp_path / "attacks.md").read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    return page[page.index(f"### {title}") :].split("\n### ")[0]


def row(text: str, *cells: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("| " + " | ".join(cells)))


def test_costs_and_leavings_are_those_of_the_data(page: str) -> None:
    assert "70.0" in row(section(page, "Clean data"), "jpeg") and "+20.0" in row(section(page, "Clean data"), "jpeg")
    em = row(section(page, "em, white-box"), "jpeg")
    assert [cell.split()[0] for cell in em.split("|")[2:6]] == ["60.0", "+30.0", "10.0", "17"]
    bare = row(section(page, "em, white-box"), "none").split("|")
    assert not bare[3].strip() and not bare[5].strip()


def test_robust_protection_is_against_the_best_attack(page: str) -> None:
    robust = section(page, "Robust protection")
    assert "jpeg" in row(robust, "2", "em") and "punct" in row(robust, "2", "mem")
    assert "none" in row(robust, "1", "mmguard-bph", "0 %").split("|")[5]


def test_signs_meet_what_was_published(page: str) -> None:
    claims = section(page, "What was published")
    assert row(claims, "jpeg", "em").endswith("| agrees |")
    assert row(claims, "grayscale", "em").endswith("| disagrees |")
    assert row(claims, "punct", "mem").endswith("| disagrees |")
    assert row(claims, "punct", "mmguard-bph").endswith("| agrees |")
    assert "diffpure" not in claims  # what was not run is not judged


def test_page_needs_its_records_and_its_name(tmp_path: Path) -> None:
    with pytest.raises(ArenaError, match=r"attacks.jsonl is missing: `arena run attacks` makes it"):
        write_evidence(tmp_path / "attacks.md")
    with pytest.raises(UsageError, match=r"no page is called 'other.md'"):
        write_evidence(tmp_path / "other.md")
