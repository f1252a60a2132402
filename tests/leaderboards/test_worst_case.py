"""What an oracle chooses, what an attacker can choose, and who has the data for it."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import ITEMS, correct, declared, plugin, quick, record

from arena.cli.boards import show_board
from arena.records.schema import AttackRef, Record
from arena.score.attacked import Attacked, Robust
from arena.score.statistics import Answers, Estimate
from leaderboards.site.listings import gains, noise
from leaderboards.site.numbers import rows_of
from leaderboards.site.render import html, markdown
from leaderboards.site.views import compose
from leaderboards.tables.board import Board, build

CHOOSER = "autopurify"
WHY = "its model was trained on clean pictures of this kind"


def chosen(em: float = 0.45, lsp: float = 0.76) -> list[Record]:
    """Of an attack that chooses itself, on every entry; that of em is not the best there is."""
    own = {"none": 0.88, "random": 0.88, "em": em, "lsp": lsp}
    return [declared(record(p, d, CHOOSER, s), chooses=True) for d, p in own.items() for s in range(3)]


def best(board: Board, defense: str, **where: object) -> pd.Series:
    rows = board.ranking[board.ranking["defense"] == defense]
    for name, value in where.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def page(board: Board) -> str:
    return markdown(compose(board))


def test_without_an_attack_that_chooses_the_worst_case_is_ranked_by_and_called_an_oracle() -> None:
    board = build(quick())
    row = best(board, "em")
    assert row["chooser"] is None
    assert row["robust_protection"] == row["worst_case_protection"] == pytest.approx((0.9 - 0.55) / 0.8)
    assert "| group | defense | knowledge | worst case (oracle) | best attack |" in page(board)
    assert "robust protection" not in page(board).lower() and "worst case (oracle)" in html(compose(board))
    assert re.search(
        r"em denies \d+ % .* of the gain in the worst case; the best attack on it is jpeg, lora\.", page(board)
    )


def test_an_attack_that_chooses_itself_is_ranked_by_with_the_worst_case_beside_it() -> None:
    board = build(quick() + chosen())
    row = best(board, "em")
    assert (row["chooser"], row["best_attack"]) == (CHOOSER, "jpeg")
    assert row["robust_protection"] == pytest.approx((0.9 - 0.45) / 0.8)
    assert row["worst_case_protection"] == pytest.approx((0.9 - 0.55) / 0.8)
    assert row["robust_accuracy"] == pytest.approx(0.45)
    assert row["robust_retention"] == pytest.approx((0.9 - 0.45) / (0.9 - 0.25))
    text = page(board)
    assert (
        f"| group | defense | knowledge | robust protection ({CHOOSER}) | worst case (oracle) | regret | best attack |"
        in text
    )
    assert re.search(
        rf"em denies 56 % .* to an attacker who chooses by {CHOOSER}; in the worst case 44 % .* jpeg, lora", text
    )
    assert f"robust protection ({CHOOSER})</th><th>worst case (oracle)</th><th>regret</th>" in html(compose(board))


def test_regret_is_what_the_choice_is_short_of_the_best_attack() -> None:
    row = best(build(quick() + chosen()), "em")
    assert row["regret"] == pytest.approx(0.55 - 0.45)  # jpeg gives back most of em
    perfect = best(build(quick() + chosen(em=0.60)), "em")
    assert perfect["regret"] == 0 and perfect["best_attack"] == CHOOSER
    assert best(build(quick()), "em")["regret_undefined"] == "no attack that chooses was tried"


def test_a_board_takes_the_luck_of_the_best_into_account() -> None:
    """Of two attacks each is right where the other is not, so that neither is chosen where it then counts."""
    even = np.arange(ITEMS) % 2 == 0
    bits = {"grayscale": even, "jpeg": ~even}
    alike = [record(0, "em", attack, s, bits=own) for attack, own in bits.items() for s in range(3)]
    others = [r for r in quick() if (r.defense.id, r.attack.id) not in {("em", "grayscale"), ("em", "jpeg")}]
    row = best(build(others + alike + chosen()), "em")
    assert row["regret"] - row["regret_low"] > row["regret_high"] - row["regret"] + 0.1


def test_the_interval_of_regret_reaches_further_down_by_the_luck_of_the_best() -> None:
    top, own = (Answers(np.stack([correct(p, (s, round(100 * p))) for s in range(3)])) for p in (0.55, 0.45))
    worst, chosen_one = (replace(Attacked.without(""), answers=answers) for answers in (top, own))
    plain, lucky = (Robust("em", 0.0, Estimate(), replace(worst, luck=x), chosen_one).regret for x in (0.0, 0.03))
    assert plain.low is not None and lucky.low == pytest.approx(plain.low - 0.03)
    assert (plain.value, plain.high) == (lucky.value, lucky.high)


def test_ranks_are_of_what_the_attacker_chooses() -> None:
    """In the worst case em is first, under what attackers choose lsp."""
    table = {("none", "none"): 0.9, ("none", "jpeg"): 0.9, ("em", "none"): 0.3, ("em", "jpeg"): 0.4}
    records = quick(table | {("lsp", "none"): 0.3, ("lsp", "jpeg"): 0.7})
    assert list(build(records).ranking["defense"])[:2] == ["em", "lsp"]
    own = {"none": 0.9, "em": 0.4, "lsp": 0.3}
    records += [declared(record(p, d, CHOOSER, s), chooses=True) for d, p in own.items() for s in range(3)]
    board = build(records)
    assert list(board.ranking["defense"])[:2] == ["lsp", "em"] and list(board.ranking["group"])[:2] == [1, 2]


def test_a_failed_attack_withholds_both_and_ranks_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the attack that chooses itself is there, and where that is what failed."""
    for failing in ("jpeg", CHOOSER):
        records = [r for r in quick() + chosen() if (r.defense.id, r.attack.id) != ("em", failing)]
        records += [declared(record(0, "em", failing, s, error="x"), chooses=failing == CHOOSER) for s in range(3)]
        board = build(records)
        row = best(board, "em")
        assert row["robust_protection_undefined"] == row["worst_case_protection_undefined"]
        assert row["robust_protection_undefined"] == "withheld: 1 of 4 attacks failed on it" == row["regret_undefined"]
        assert pd.isna(row["chooser"]) and pd.isna(row["group"])
        assert list(board.ranking["defense"])[-1] == "em"
        cells = board.cells[board.cells["defense"] == "em"]
        assert cells["worst_case_protection"].isna().all() and cells["robust_protection"].isna().all()
    show_board(records, tmp_path, tmp_path, "b")
    assert "lsp denies" in " ".join(capsys.readouterr().out.split())


def test_failed_cells_of_the_strongest_attack_do_not_win_the_board() -> None:
    """Two entries alike; one lacks its worst attack, in all seeds, in some, or has no record of it."""
    table = {("none", "none"): 0.9, ("none", "jpeg"): 0.9, ("random", "none"): 0.9, ("random", "jpeg"): 0.9}
    table |= {(d, a): p for d in ("em", "lsp") for a, p in (("none", 0.5), ("jpeg", 0.7))}
    whole = quick(table)
    assert list(build(whole).ranking["group"])[:2] == [1, 1]
    rest = [r for r in whole if (r.defense.id, r.attack.id) != ("em", "jpeg")]
    own = [r for r in whole if (r.defense.id, r.attack.id) == ("em", "jpeg")]
    failed = [record(0, "em", "jpeg", s, error="RuntimeError: out of memory") for s in range(3)]
    for lacking in (rest + failed, rest, rest + own[:1], rest + own[:1] + failed[1:]):
        board = build(lacking)
        assert list(board.ranking["defense"].iloc[[0, -1]]) == ["lsp", "em"]
        assert pd.isna(best(board, "em")["group"]) and pd.isna(best(board, "em")["worst_case_protection"])
        assert "lsp denies" in page(board) and "Not ranked, since cells failed or have no record: em." in page(board)


def in_domain(table: dict[str, float]) -> list[Record]:
    return [declared(record(p, d, "diffpure", s), in_domain=WHY) for d, p in table.items() for s in range(3)]


def test_an_attack_made_with_clean_data_of_this_kind_is_not_that_of_an_attacker_without_any() -> None:
    board = build(quick() + in_domain({"none": 0.89, "random": 0.89, "em": 0.88, "lsp": 0.88}))
    without, with_data = (best(board, "em", in_domain=known) for known in (False, True))
    assert (without["best_attack"], with_data["best_attack"]) == ("jpeg", "diffpure")
    assert without["auxiliary"] == with_data["auxiliary"] == 0
    cells = board.cells[board.cells["attack"] == "diffpure"]
    assert cells["in_domain"].all() and (cells["auxiliary"] == 0).all()
    assert not board.cells[board.cells["attack"] != "diffpure"]["in_domain"].any()
    assert cells["retention"].notna().any()  # its controls are found
    text = page(board)
    assert f"| Made with clean data of this kind | diffpure: {WHY} |" in text
    assert "The attacker has no clean data of their own and chooses among 3 attacks." in text
    assert "The attacker has attacks made with clean data of this kind, no clean data of their own and chooses" in text
    assert "| diffpure (in-domain weights) |" in text
    assert "the best attack on it is diffpure" in text  # the headline is of the strongest attacker


def test_the_share_of_own_data_is_said_beside_what_attacks_were_made_with() -> None:
    mixed = [record(0.8, d, "mix", s, auxiliary=0.2) for d in ("none", "random", "em", "lsp") for s in range(3)]
    board = build(quick() + mixed + in_domain({"none": 0.89, "random": 0.89, "em": 0.88, "lsp": 0.88}))
    levels = board.ranking[board.ranking["defense"] == "em"][["auxiliary", "in_domain", "best_attack"]]
    assert levels.values.tolist() == [[0.0, False, "jpeg"], [0.2, False, "mix"], [0.2, True, "diffpure"]]


def test_records_from_before_say_nothing_of_it() -> None:
    old = record(attack="diffpure").model_dump(mode="json")
    del old["attack"]["in_domain"], old["attack"]["chooses"]
    read = Record.model_validate(old)
    assert read.attack.in_domain is None and not read.attack.chooses
    assert read.cell == record(attack="diffpure").cell == declared(read, in_domain=WHY).identity
    assert AttackRef(label="x", parts=[read.attack.parts[0]]).id == "diffpure"


def test_significance_is_that_of_the_table() -> None:
    """Twenty tasks of which one gains a little more than nothing by luck."""
    rng = random.Random(0)
    records = []
    for number in range(20):
        model, share = f"m{number}", 0.15 if number == 7 else 0.1
        for seed in range(5):
            bits = correct(share, (seed, number, rng.randrange(99)), ITEMS)
            records += [record(share, model=model, seed=seed, bits=bits)]
            records += [record(share, "random", model=model, seed=seed, bits=correct(share, (seed, 5, number), ITEMS))]
    cells = rows_of(build(records).cells)
    alone = [row for row in cells if row["model"] == "m7" and row["defense"] == "none"]
    assert alone[0]["gain_low"] > 0 and 0.0025 < alone[0]["gain_p"] < 0.05
    verdicts = {row[1]: row[-1] for row in gains(cells).rows}
    assert verdicts["m7"].startswith("not significant")
    assert {row[1]: row[-1] for row in gains(alone).rows}["m7"] == "significant"
    drops = {row[1]: row[-1] for row in noise(cells).rows}
    assert set(drops.values()) == {"protects nothing, as it should"}
    assert np.isfinite([row["drop_p"] for row in cells]).all()


def test_what_an_attack_declares_is_no_part_of_the_cell() -> None:
    parts = [plugin("jpeg")]
    plain = record(attack="jpeg")
    facts = {"label": "jpeg", "parts": parts, "chooses": True, "in_domain": WHY}
    assert AttackRef.model_validate(facts).chooses
    assert declared(plain, chooses=True, in_domain=WHY).identity == plain.identity
