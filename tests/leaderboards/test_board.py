"""Boards from made-up records: what they refuse, say, and print."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from synthetic import QUICK, quick, record

from arena.errors import ArenaError
from leaderboards.tables.board import Board, Verification, Withdrawn, build, write


def row(board: Board, defense: str, attack: str, **more: object) -> pd.Series:
    cells = board.cells
    for name, value in {"defense": defense, "attack": attack, **more}.items():
        cells = cells[cells[name] == value]
    assert len(cells) == 1
    return cells.iloc[0]


@pytest.fixture(scope="module")
def board() -> Board:
    return build(quick())


def test_cells_carry_the_scores(board: Board) -> None:
    cell = row(board, "em", "jpeg")
    assert len(board.cells) == len(QUICK)
    assert cell["accuracy"] == pytest.approx(0.55)
    assert cell["drop"] == pytest.approx(0.35)
    assert cell["paired_drop"] == pytest.approx(0.25)
    assert cell["retention"] == pytest.approx(0.25 / 0.65)
    assert cell["retention_low"] < cell["retention"] < cell["retention_high"]
    assert (cell["seeds"], cell["failed"], cell["image_budget"]) == (3, 0, 8.0)
    assert cell["stealth_psnr"] == pytest.approx(31.5)
    assert cell["protect_seconds_per_sample"] == pytest.approx(0.05)
    assert cell["diagnostic_eta"] == pytest.approx(0.25)
    assert row(board, "random", "jpeg")["retention_undefined"] == "no protection to retain"
    assert pd.isna(row(board, "random", "jpeg")["retention"])


def test_ranking_is_by_what_the_attacker_leaves(board: Board) -> None:
    ranking = board.ranking.set_index("defense")
    assert list(ranking.index[:2]) == ["em", "lsp"]
    assert ranking.loc["em", "best_attack"] == "jpeg"
    assert ranking.loc["em", "robust_protection"] == pytest.approx((0.9 - 0.55) / 0.8)
    assert ranking.loc["em", "group"] == 1
    assert ranking.loc["lsp", "group"] == 2 and ranking.loc[["random", "none"], "group"].isna().all()
    assert 0.02 < board.power.loc[0, "minimum_detectable_difference"] < 0.2
    assert board.notes == ()


def test_each_budget_has_its_ranking_with_the_clean_control() -> None:
    weak = {("random", "none"): 0.9, ("em", "none"): 0.6}
    ranking = build(quick() + quick(weak, image=4.0) + quick({("none", "none"): 0.9}, image=4.0)).ranking
    # The clean control changes nothing: its records under another budget are the same cells, which must agree.
    assert set(ranking["image_budget"]) == {4.0, 8.0}
    for _, rows in ranking.groupby("image_budget"):
        assert "none" in set(rows["defense"])


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("suite", {"digest": "6" * 64}, r"mixed suite digests: 5+ \(36 records\), 6+ \(1 record\)"),
        ("dataset", {"samples": "other"}, r"glyphs: mixed dataset fingerprints: f+ .*other"),
        ("model", {"fingerprint": "other"}, r"tiny-llava: mixed model fingerprints: m+ .*other"),
    ],
)
def test_what_must_not_be_mixed_is_refused(part: str, change: dict[str, str], message: str) -> None:
    other = record(0.3, "em", "none", 9)
    other = other.model_copy(update={part: getattr(other, part).model_copy(update=change)})
    with pytest.raises(ArenaError, match=message):
        build([*quick(), other])


def test_mixed_schema_versions_are_refused() -> None:
    newer = record(0.3, "em", "none", 9).model_copy(update={"schema_version": 3})
    with pytest.raises(ArenaError, match=r"mixed schema versions: 2 .*, 3"):
        build([*quick(), newer])


def test_no_records_is_an_error() -> None:
    with pytest.raises(ArenaError, match="run the suite first"):
        build([])


def test_two_settings_of_one_dataset_are_two_contests() -> None:
    larger = record().dataset.model_copy(update={"config": {"size": 64}, "samples": "other"})
    ranking = build([*quick(), *(r.model_copy(update={"dataset": larger}) for r in quick())]).ranking
    assert set(ranking["dataset"]) == {"glyphs", "glyphs(size=64)"}


def test_of_equal_duplicates_the_latest_counts_and_unequal_ones_are_refused() -> None:
    records = quick()
    again = record(QUICK["em", "jpeg"], "em", "jpeg", 0, created="2026-02-02T00:00:00+00:00")
    slower = again.model_copy(update={"peak_accuracy": 1.0})
    assert build([slower, *records]).created == "2026-02-02T00:00:00+00:00"
    peak = row(build([slower, *records]), "em", "jpeg")["peak_accuracy"]
    assert peak > row(build(records), "em", "jpeg")["peak_accuracy"]
    changed = record(0.2, "em", "jpeg", 0, created="2026-02-02T00:00:00+00:00")
    changed = changed.model_copy(update={"cell": "beef"})
    with pytest.raises(ArenaError, match=r"two results for em x jpeg x lora, seed 0.*cell beef"):
        build([*records, changed])


def test_failed_seeds_are_left_out_and_told(tmp_path: Path) -> None:
    records = [r for r in quick() if not (r.defense.id == "em" and r.seed == 2)]
    records += [record(0, "em", a, 2, error="MemoryError: 3 GB\nmore") for a in ("none", "jpeg", "grayscale")]
    records += [record(0, "sem", "none", s, error="ValueError: <b>bad</b>") for s in range(3)]
    board = build(records)
    assert (row(board, "em", "jpeg")["seeds"], row(board, "em", "jpeg")["failed"]) == (2, 1)
    assert row(board, "em", "jpeg")["drop_seeds"] == 2
    assert pd.isna(row(board, "sem", "none")["accuracy"])
    assert list(board.failures["error"].unique()) == ["MemoryError: 3 GB", "ValueError: <b>bad</b>"]
    html = next(p for p in write(board, tmp_path, "b") if p.suffix == ".html").read_text(encoding="utf-8")
    assert "ValueError: &lt;b&gt;bad&lt;/b&gt;" in html
    assert "withheld: 1 of 3 attacks failed on it, 2 have no record" in html
    # A success counts whether it came before the failure or after it.
    retried = record(QUICK["em", "jpeg"], "em", "jpeg", 2, created="2026-02-02T00:00:00+00:00")
    assert row(build([*records, retried]), "em", "jpeg")["seeds"] == 3


def test_missing_controls_are_said() -> None:
    text = " ".join(build([record(0.3, "em", "jpeg", s, zero_shot=None) for s in range(2)]).notes)
    for said in ("defense `none`", "defense `random`", "attack `none`", "no zero-shot", "2 seeds, of at least 3"):
        assert said in text


def test_markdown_tables_are_rectangular(board: Board, tmp_path: Path) -> None:
    lines = next(p for p in write(board, tmp_path, "b") if p.suffix == ".md").read_text(encoding="utf-8").splitlines()
    tables: list[list[int]] = [[]]
    for line in lines:
        if line.startswith("|"):
            tables[-1].append(line.replace("\\|", "").count("|"))
        elif tables[-1]:
            tables.append([])
    assert sum(len(t) > 2 for t in tables) >= 7
    assert all(len(set(t)) == 1 for t in tables if t)


def test_undefined_cells_are_marked_on_the_page(board: Board, tmp_path: Path) -> None:
    files = {
        p.suffix: p.read_text(encoding="utf-8") for p in write(board, tmp_path, "b") if p.suffix in (".md", ".html")
    }
    assert '<td class="hatched"><small>no protection to retain</small></td>' in files[".html"]
    assert "| random | control | 0.0 (" in files[".md"]
    retention = f"{100 * row(board, 'em', 'jpeg')['retention']:.0f} %"
    assert f"<b>{retention}</b>" in files[".html"] and f"| {retention} (" in files[".md"]


def test_rebuild_is_byte_identical_in_any_order(tmp_path: Path) -> None:
    records = quick() + quick(dataset="digits", zero_shot=0.4)
    shuffled = random.Random(0).sample(records, len(records))
    first = write(build(records), tmp_path / "a", "board")
    second = write(build(shuffled), tmp_path / "b", "board")
    assert [p.name for p in first] == ["board.md", "board.csv", "board.parquet", "board.html"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(p.name for p in first)


def test_parquet_and_csv_hold_the_same_cells(board: Board, tmp_path: Path) -> None:
    files = {p.suffix: p for p in write(board, tmp_path, "b")}
    parquet, csv = pd.read_parquet(files[".parquet"]), pd.read_csv(files[".csv"], keep_default_na=False, na_values=[""])
    assert list(parquet.columns) == list(csv.columns)
    assert parquet["accuracy"].to_list() == pytest.approx(csv["accuracy"].to_list())
    assert parquet["attack"].to_list() == csv["attack"].to_list()


def test_unwritable_folder_is_an_error_that_leaves_the_old_file(board: Board, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here", encoding="utf-8")
    with pytest.raises(ArenaError, match=r"could not write .*folder can be written and has space"):
        write(board, tmp_path / "file", "board")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "here"


@pytest.mark.parametrize("suffix", ["md", "csv", "parquet", "html"])
def test_a_file_of_somebody_else_is_not_written_over(board: Board, tmp_path: Path, suffix: str) -> None:
    mine = tmp_path / f"b.{suffix}"
    mine.write_text("my notes", encoding="utf-8")
    with pytest.raises(ArenaError, match=rf"b\.{suffix} is there and is not a board: it is left as it is"):
        write(board, tmp_path, "b")
    assert [p.name for p in tmp_path.iterdir()] == [mine.name] and mine.read_text(encoding="utf-8") == "my notes"
    mine.unlink()
    assert write(board, tmp_path, "b") == write(board, tmp_path, "b")


def test_verifications_and_withdrawn_entries_are_shown_where_there_are_any(tmp_path: Path) -> None:
    facts = [Verification("re-run", "12 of 36 cells: equal"), Verification("machine", "2 cores")]
    gone = [Withdrawn("sem", "2", "trains on | test"), Withdrawn("lsp", "1", "wrong budget")]
    plain, more = build(quick()), build(quick(), facts, gone)
    old = {p.suffix: p.read_bytes().decode() for p in write(plain, tmp_path / "a", "b") if p.suffix != ".parquet"}
    new = {p.suffix: p.read_bytes().decode() for p in write(more, tmp_path / "b", "b") if p.suffix != ".parquet"}
    assert "Withdrawn" not in old[".md"] + old[".html"] and "Verification" not in old[".md"] + old[".html"]
    assert "## Verification\n\n- **re-run**: 12 of 36 cells: equal\n- **machine**: 2 cores\n" in new[".md"]
    table = "| plugin | version | reason |\n|---|---|---|\n| lsp | 1 | wrong budget |\n| sem | 2 | trains on \\| test |"
    assert f"## Withdrawn\n\n{table}" in new[".md"]
    assert "<dt>re-run</dt><dd>12 of 36 cells: equal</dd>" in new[".html"]
    assert "<td>lsp</td><td>1</td><td>wrong budget</td>" in new[".html"]
    assert new[".csv"] == old[".csv"]
    assert [line for line in old[".md"].splitlines() if line not in new[".md"].splitlines()] == []


def test_building_a_board_loads_no_torch() -> None:
    code = (
        "import sys, leaderboards.tables.board, leaderboards.site.render, leaderboards.site.views\n"
        "heavy = {'torch', 'transformers', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
