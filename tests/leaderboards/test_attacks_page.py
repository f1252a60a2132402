"""The page about attacks: what it says of records whose truth is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import declared, record

from arena.errors import ArenaError
from arena.records.schema import Record
from leaderboards.pages.attacks import REASONS, AttacksPage, Claim, Verdict

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


def records() -> list[Record]:
    return [
        record(accuracy, defense, attack, seed)
        for (defense, attack), accuracy in ACCURACIES.items()
        for seed in range(3)
    ]


@pytest.fixture(scope="module")
def page() -> str:
    return AttacksPage().make({"attacks": records()}, None)


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


def test_robust_protection_is_against_the_best_attack_where_all_were_run(page: str) -> None:
    lacking = ("em", "punct"), *((d, a) for d in ("mem", "mmguard-bph") for a in ("jpeg", "grayscale"))
    rest = [record(0.2, defense, attack, seed) for defense, attack in lacking for seed in range(3)]
    robust = section(AttacksPage().make({"attacks": records() + rest}, None), "The worst case")
    assert "jpeg" in row(robust, "2", "em") and "punct" in row(robust, "2", "mem")
    assert "none" in row(robust, "1", "mmguard-bph", "0 %").split("|")[5]
    reason = "withheld: 2 of 4 attacks have no record"
    assert reason in row(section(page, "The worst case"), "\N{EN DASH}", "mem", "0 %")


def test_the_attackers_own_samples_alone_stand_beside_what_takes_them(page: str) -> None:
    assert "samples alone" not in page
    own = [
        record(accuracy, defense, attack, seed, auxiliary=0.2)
        for defense, attack, accuracy in (
            *((defense, "auxiliary-alone", 0.4) for defense in ("none", "em")),
            *(("none", "mix", 0.9), ("em", "mix", 0.7)),
        )
        for seed in range(3)
    ]
    text = AttacksPage().make({"attacks": records() + own}, None)
    (said,) = (line for line in text.replace("\n", " ").split(". ") if "clean samples alone" in line)
    assert "20 % as many" in said and "give 40.0 (" in said
    assert "auxiliary-alone" not in section(text, "Clean data") + section(text, "em, white-box")


def test_a_sign_is_that_of_a_corrected_p_value() -> None:
    restores, does_not = (Claim("jpeg", "em", restores, "somewhere") for restores in (True, False))
    words = {
        (c, v, p): Verdict(c, {"restored": v}, p).words
        for c in (restores, does_not)
        for v in (0.1, -0.1)
        for p in (0.01, 0.2)
    }
    assert [words[restores, v, p] for v, p in ((0.1, 0.01), (-0.1, 0.01), (0.1, 0.2))] == [
        "agrees",
        "disagrees",
        "cannot be told",
    ]
    assert [words[does_not, v, p] for v, p in ((0.1, 0.01), (-0.1, 0.01), (0.1, 0.2))] == [
        "disagrees",
        "agrees",
        "agrees",
    ]
    assert Verdict(restores, {"restored": None}, None).words == "no interval"
    known = Verdict(Claim("grayscale", "em", True, "somewhere"), {"restored": -0.1}, 0.01)
    assert known.words == f"disagrees: {REASONS['grayscale', 'em']}"


def test_nothing_is_judged_of_a_release_that_does_not_protect() -> None:
    accuracies = {("none", "none"): 0.9, ("none", "jpeg"): 0.7, ("lsp", "none"): 0.9, ("lsp", "jpeg"): 0.7}
    made = [record(accuracy, *what, seed) for what, accuracy in accuracies.items() for seed in range(5)]
    claims = section(AttacksPage().make({"attacks": made}, None), "What was published")
    assert row(claims, "jpeg", "lsp").endswith("| cannot be tried: it is not shown that the release protects here |")


def test_signs_meet_what_was_published(page: str) -> None:
    claims = section(page, "What was published")
    assert row(claims, "jpeg", "em").endswith("| agrees |")
    assert row(claims, "grayscale", "em").endswith(f"| disagrees: {REASONS['grayscale', 'em']} |")
    assert row(claims, "punct", "mem").endswith("| disagrees |")
    assert row(claims, "punct", "mmguard-bph").endswith("| agrees |")
    assert "diffpure" not in claims  # what was not run is not judged


def test_findings_are_filled_in_from_the_records(tmp_path: Path) -> None:
    file = tmp_path / "2026-01-attacks.md"
    file.write_text(
        "## What is seen\n\n"
        '{{ accuracy("em") }}, {{ accuracy("em", "jpeg") }}, {{ restored("em", "jpeg") }}, {{ cost("jpeg") }}, '
        '{{ span(accuracy(["em", "none"], "jpeg")) }}, {{ seeds("em", "jpeg") | join("/") }}, '
        '{{ restored("em", "grayscale") }}',
        encoding="utf-8",
    )
    page = AttacksPage().make({"attacks": records()}, file)
    assert "\n## What is seen\n\n30, 60, 30, 20, 60 to 70, 60/60, \N{MINUS SIGN}20\n" in page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('one\n{{ accuracy("emm", "jpeg") }}', r"line 2: no cell has defense 'emm'.*did you mean 'em'"),
        ('{{ accuracy("mem", "jpeg") }}', r"line 1: no cell has defense 'mem', attack 'jpeg'"),
        ('{{ accuracy("em", "jpeg", "lora") }}', r"line 1: accuracy: 3 values for defense, attack"),
        (
            '{{ accuracy("em", model="tiny-lava") }}',
            r"line 1: no cell has .*none has model 'tiny-lava'; did you mean 'tiny-llava'",
        ),
        ("{{ accuracy }", r"line 1: unexpected '}'"),
        ("{{ retention() }}", r"line 1: 'retention' is undefined"),
    ],
)
def test_a_wrong_placeholder_is_an_error_that_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "2026-01-attacks.md"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ArenaError, match=f"findings: .*2026-01-attacks.md, {message}"):
        AttacksPage().make({"attacks": records()}, file)


def test_more_attacks_stand_behind_the_others_each_compared_within_its_suite(tmp_path: Path) -> None:
    """A cell that both have is quoted once, and the worst case of the first is not that of the second."""
    accuracies = {("none", "none"): 0.9, ("none", "median"): 0.88, ("em", "none"): 0.3, ("em", "median"): 0.85}
    more = [
        record(accuracy, *what, seed, suite={"id": "others", "digest": "6" * 64})
        for what, accuracy in accuracies.items()
        for seed in range(3)
    ]
    file = tmp_path / "findings.md"
    file.write_text("No attack leaves {{ accuracy('em') }}, median {{ accuracy('em', 'median') }}.\n", encoding="utf-8")
    text = AttacksPage().make({"attacks": records(), "attacks-more": more}, file)
    assert "No attack leaves 30, median 85." in text
    first, second = text.split("\n## others: ")
    assert "| median |" not in first and "| jpeg |" not in second
    assert row(section(second, "The worst case"), "1", "em").split("|")[5].strip() == "median"
    assert "`records/made-up.jsonl` and `records/others.jsonl`" in text
    assert "\nothers: tiny-llava on glyphs: 120 test items" in text and "\ntiny-llava on glyphs: 120" in text


def test_what_an_attacker_chooses_stands_beside_the_best_that_there_is() -> None:
    own = {"none": 0.88, "em": 0.4}
    chosen = [declared(record(p, d, "autopurify", s), chooses=True) for d, p in own.items() for s in range(3)]
    rest = [r for r in records() if r.attack.label in ("none", "jpeg") and r.defense.label in own]
    text = AttacksPage().make({"attacks": rest + chosen}, None)
    heads, em = (row(section(text, "The worst case"), *cells).split("|") for cells in (("group",), ("1", "em")))
    cells = {head.strip(): cell.strip() for head, cell in zip(heads, em, strict=True)}
    assert cells["regret"].startswith("20.0 (") and cells["best attack"] == "jpeg"
    assert "\n- Regret: " in text and "Regret" not in AttacksPage().make({"attacks": rest}, None)
