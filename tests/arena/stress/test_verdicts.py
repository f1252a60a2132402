"""Requirements held against boards of made-up records: met, failed, and every way in which nothing can be decided."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from synthetic import QUICK, quick, record

from arena.records.schema import Record
from arena.stress.requirements import parse
from arena.stress.verdicts import Verdict, judge, overall
from leaderboards.tables.board import build


def verdict(text: str, records: Sequence[Record], seeds: int = 3, entry: str = "em") -> Verdict:
    return judge(parse(text), build(records, asked=records), entry, seeds)


ROW = build(quick()).cells.query("defense == 'em' and attack == 'jpeg'").iloc[0]


@pytest.mark.parametrize(
    ("bound", "column"), [("low", "retention_low"), ("value", "retention"), ("high", "retention_high")]
)
@pytest.mark.parametrize("sign", [">=", "<="])
def test_the_bound_is_what_counts(sign: str, bound: str, column: str) -> None:
    measured = float(ROW[column])
    for by, met in ((-1e-6, sign == ">="), (1e-6, sign == "<=")):
        found = verdict(f"retention[jpeg]{sign}{measured + by:.9f}@{bound}", quick())
        assert found.status == ("met" if met else "failed")
        assert found.worst is not None and found.worst.where == "tiny-llava · glyphs · lora · jpeg · 8/255"
        assert f"{measured:.3f}" in found.why and found.worst.shown in found.why


def test_by_default_the_end_that_is_harder_to_reach() -> None:
    low, high = float(ROW.retention_low), float(ROW.retention_high)
    assert low < ROW.retention < high
    assert verdict(f"retention[jpeg]>={low + 0.001}", quick()).status == "failed"
    assert verdict(f"retention[jpeg]<={high - 0.001}", quick()).status == "failed"
    assert "lower end of the interval" in verdict(f"retention[jpeg]>={low - 0.001}", quick()).why


def test_every_row_must_meet_it_and_the_worst_is_named() -> None:
    found = verdict("protection[*]>=0.3@value", quick())
    assert len(found.measured) == 2 and found.status == "met" and found.worst is not None
    assert "jpeg" in found.worst.where and "the worst of 2" in found.why
    assert verdict("protection[*]>=0.6@value", quick()).status == "failed"
    two = [*quick(), *quick(model="tiny-qwen3-vl", table={**QUICK, ("em", "none"): 0.85})]
    bad = verdict("protection>=0.4", two)
    assert bad.status == "failed" and bad.worst is not None and "tiny-qwen3-vl" in bad.worst.where
    assert verdict("protection[model=tiny-llava]>=0.4", two).status == "met"


def test_robust_scores_are_of_all_attacks_together() -> None:
    row = build(quick()).ranking.query("defense == 'em'").iloc[0]
    assert verdict(f"robust-protection>={row.robust_protection - 0.001}@value", quick()).status == "met"
    assert verdict(f"robust-protection>={row.robust_protection + 0.001}@value", quick()).status == "failed"


def test_what_is_measured_on_files_has_no_interval() -> None:
    assert verdict("psnr>=31", quick()).status == "met"
    found = verdict("psnr>=32", quick())
    assert found.status == "failed" and found.why.startswith("31.500 dB (")


@pytest.mark.parametrize(
    ("text", "records", "seeds", "why"),
    [
        ("protection>=0.1", quick(seeds=2), 2, "too few seeds: 2, and an interval needs 3"),
        ("protection>=0.1", quick(seeds=1), 1, "fewer than 2 seeds"),
        ("protection>=0.1", quick(), 4, "withheld: 3 of 4 seeds have all cells"),
        ("psnr>=1", quick(), 4, "withheld: 3 of 4 seeds are done"),
        ("ms-ssim>=0.1", quick(), 3, "not measured on these data"),
        ("retention[jpeg]>=0.1", quick({**QUICK, ("em", "none"): 0.90}), 3, "no protection to retain"),
        ("protection>=0.1", quick(zero_shot=0.95), 3, "no gain"),
        ("protection[blur]>=0.1", quick(), 3, "withheld: there is no record of it"),
        (
            "robust-protection>=0.1",
            [r for r in quick() if (r.defense.id, r.attack.id, r.seed) != ("em", "jpeg", 2)],
            3,
            "withheld: 1 of 3 attacks",
        ),
        (
            "robust-protection>=0.1",
            [*quick(), *(record(0.2, "em", "blur", s, error="it broke" if s else None) for s in range(3))],
            3,
            "withheld: 1 of 4 attacks failed on it",
        ),
    ],
)
def test_what_cannot_be_decided_is_never_met(text: str, records: list[Record], seeds: int, why: str) -> None:
    whole = [*records, *quick()] if "1 of 3" in why else records  # what was asked is known
    found = judge(parse(text), build(records, asked=whole), "em", seeds)
    assert found.status == "undecided" and why in found.why


def test_without_a_board_nothing_is_decided() -> None:
    found = judge(parse("protection>=0"), None, "em", 3)
    assert found.status == "undecided" and "no record" in found.why


def test_a_row_that_fails_counts_before_one_that_is_open() -> None:
    records = [*quick(), *quick(model="tiny-qwen3-vl", seeds=1)]
    assert verdict("protection>=0.99", records).status == "failed"
    assert verdict("protection>=0.1", records).status == "undecided"


def test_the_whole_is_as_bad_as_its_parts() -> None:
    met, failed = verdict("psnr>=1", quick()), verdict("psnr>=99", quick())
    undecided = verdict("ms-ssim>=0", quick())
    assert overall([met]) == "met" and overall([met, undecided]) == "undecided"
    assert overall([undecided, failed, met]) == "failed"
