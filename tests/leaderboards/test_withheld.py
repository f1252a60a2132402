"""What depends on all attacks is not said of an entry of which a cell failed or has no record, on any output."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest
from rich.console import Console
from synthetic import QUICK, quick, record, recorded_of

from arena.cli.boards import make_board, show_board
from arena.records.schema import Asked, Record
from arena.suites.schema import Suite
from leaderboards.pages.attacks import page as attacks_page
from leaderboards.site.numbers import DASH
from leaderboards.tables.board import Board, build, summary, write

ATTACKS = ("none", "grayscale", "jpeg")
FAILED = "withheld: 1 of 3 attacks failed on it"
MISSING = "withheld: 1 of 3 attacks has no record"
BOTH = "withheld: 1 of 3 attacks failed on it, 1 has no record"


def but(
    records: Iterable[Record], defense: str, attacks: Sequence[str], seeds: Sequence[int] = (0, 1, 2)
) -> list[Record]:
    """The records without those of some cells."""
    return [r for r in records if (r.defense.id, r.attack.id in attacks, r.seed in seeds) != (defense, True, True)]


def failing(
    records: Iterable[Record],
    defense: str,
    attacks: Sequence[str],
    seeds: Sequence[int] = (0, 1, 2),
    error: str = "MemoryError: 3 GB",
) -> list[Record]:
    """The records, some cells of which have failed."""
    failed = [record(0, defense, attack, seed, error=error) for attack in attacks for seed in seeds]
    return but(records, defense, attacks, seeds) + failed


def asked(records: Iterable[Record]) -> list[Asked]:
    return [Asked.model_validate({name: getattr(r, name) for name in Asked.model_fields}) for r in records]


def best(board: Board, defense: str, **where: object) -> pd.Series:
    rows = board.ranking[board.ranking["defense"] == defense]
    for name, value in where.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def printed(board: Board, width: int = 240) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(summary(board))
    return re.sub(r" +", " ", console.export_text())


def files(board: Board, folder: Path) -> dict[str, Path]:
    return {path.suffix: path for path in write(board, folder, "b")}


def text(board: Board, folder: Path, suffix: str) -> str:
    return files(board, folder)[suffix].read_text(encoding="utf-8")


def headline(board: Board, folder: Path) -> str:
    (line,) = [line for line in text(board, folder, ".md").splitlines() if line.startswith("- **glyphs")]
    return line.split(": ", 1)[1].replace("\\", "")


INCOMPLETE: dict[str, Callable[[], list[Record]]] = {
    FAILED: lambda: failing(quick(), "em", ["jpeg"]),
    MISSING: lambda: but(quick(), "em", ["jpeg"]),
    BOTH: lambda: but(failing(quick(), "em", ["jpeg"]), "em", ["grayscale"]),
    "withheld: 2 of 3 attacks failed on it": lambda: failing(quick(), "em", ["jpeg", "grayscale"]),
    "withheld: 2 of 3 attacks have no record": lambda: but(quick(), "em", ["jpeg", "grayscale"]),
    "withheld: 1 of 3 attacks failed on it (1 of 9 cells)": lambda: failing(quick(), "em", ["jpeg"], [1]),
    "withheld: 1 of 3 attacks has no record (2 of 9 cells)": lambda: but(quick(), "em", ["jpeg"], [0, 1]),
}


@pytest.mark.parametrize("reason", INCOMPLETE)
def test_an_incomplete_entry_is_withheld_on_every_output(reason: str, tmp_path: Path) -> None:
    board = build(INCOMPLETE[reason]())
    row = best(board, "em")
    assert row["robust_protection_undefined"] == reason
    assert pd.isna(row[["robust_protection", "robust_protection_low", "robust_accuracy", "robust_retention"]]).all()
    assert pd.isna(row["group"]) and pd.isna(row["best_attack"])
    assert row["protection"] == pytest.approx(0.65 / 0.8), "what no attack took part in stays"

    made = files(board, tmp_path)
    (ranked,) = [
        line for line in made[".md"].read_text(encoding="utf-8").splitlines() if line.startswith(f"| {DASH} | em |")
    ]
    cells = [cell.strip() for cell in ranked.strip("|").split("|")]
    assert cells[3:6] == [reason, DASH, DASH] and cells[6].startswith("81 %") and cells[7] == DASH
    html = made[".html"].read_text(encoding="utf-8")
    assert f'<td><span class="missing">{reason}</span></td>\n<td class="axis"></td>\n<td>{DASH}</td>' in html
    for frame in (pd.read_csv(made[".csv"]), pd.read_parquet(made[".parquet"])):
        own = frame[frame["defense"] == "em"]
        assert len(own) and own[["robust_protection", "robust_protection_low"]].isna().all(axis=None)
        assert set(own["robust_protection_undefined"]) == {reason}
        lsp = frame[frame["defense"] == "lsp"]
        assert lsp["robust_protection"].notna().all() and lsp["robust_protection_undefined"].isna().all()
    assert f"│ {DASH} │ em │ {reason} │ {DASH} │ 81 %" in printed(board)


def test_a_complete_entry_has_its_number_in_the_files(tmp_path: Path) -> None:
    board = build(quick())
    expected = best(board, "em")["robust_protection"]
    for frame in (pd.read_csv(files(board, tmp_path)[".csv"]), pd.read_parquet(files(board, tmp_path)[".parquet"])):
        assert frame.loc[frame["defense"] == "em", "robust_protection"].to_list() == pytest.approx([expected] * 3)
    assert "withheld" not in text(board, tmp_path, ".md").lower() + printed(board).lower()


def test_types_of_the_files_do_not_depend_on_what_is_there(tmp_path: Path) -> None:
    boards = {
        "complete": quick(),
        "withheld": failing(quick(), "em", ["jpeg"]),
        "all withheld": but(quick({k: p for k, p in QUICK.items() if k[0] in ("none", "em")}), "em", ["jpeg"]),
        "bare": quick({k: p for k, p in QUICK.items() if k[1] == "none"}),
    }
    schemas = {}
    for name, records in boards.items():
        made = files(build(records), tmp_path / name)
        schema = pyarrow.parquet.read_schema(made[".parquet"])
        schemas[name] = {f.name: str(f.type) for f in schema if not f.name.startswith(("purify", "diagnostic"))}
        assert list(pd.read_csv(made[".csv"]).columns) == schema.names
    assert schemas["complete"]["robust_protection"] == "double"
    assert "string" in schemas["complete"]["robust_protection_undefined"]
    assert all(schema == schemas["complete"] for schema in schemas.values())


def test_a_failed_cell_without_attack_withholds_both(tmp_path: Path) -> None:
    row = best(build(failing(quick(), "em", ["none"], [2])), "em")
    assert row["protection_undefined"] == "withheld: 1 of 3 cells without attack failed"
    assert row["robust_protection_undefined"] == f"{FAILED} (1 of 9 cells)"


def test_an_attack_that_failed_may_be_the_best_so_nothing_is_ranked_above_it() -> None:
    """The attack that breaks `em` is the one that failed; what is left looks like the best protection of all."""
    board = build(failing(quick(), "em", ["jpeg"]))
    assert board.ranking["defense"].iloc[0] == "lsp"
    assert best(board, "lsp")["group"] == 1
    entries = board.ranking[~board.ranking["control"]].set_index("defense")
    assert list(entries.index[entries["group"].isna()]) == ["em"]


def test_recipes_are_among_what_an_attacker_chooses() -> None:
    projector = quick({k: p for k, p in QUICK.items() if k[1] == "none"}, recipe="projector")
    board = build([*failing(quick(), "em", ["jpeg"]), *projector])
    assert (
        best(board, "em")["robust_protection_undefined"] == "withheld: 1 of 4 pairs of attack and recipe failed on it"
    )
    records = [r for r in [*quick(), *projector] if (r.defense.id, r.recipe.label) != ("em", "projector")]
    assert best(build(records), "em")["protection_undefined"] == "withheld: 3 of 6 cells without attack have no record"


def test_a_suite_that_is_known_misses_what_nobody_has_a_record_of(tmp_path: Path) -> None:
    records = [r for r in quick() if r.attack.id != "jpeg" and r.defense.id != "lsp"]
    assert best(build(records), "em")["robust_protection"] > 0.6, "nothing says that there is such an attack"
    board = build(records, asked=asked(quick()))
    assert best(board, "em")["robust_protection_undefined"] == MISSING
    lsp = best(board, "lsp")
    assert lsp["robust_protection_undefined"] == "withheld: 3 of 3 attacks have no record"
    assert (lsp["knowledge"], lsp["seeds"]) == ("white-box", 0)
    assert board.tally.missing == 18 and board.tally.cells == 36
    assert "| Cells | 36, of which 0 failed and 18 have no record |" in text(board, tmp_path, ".md")
    assert f"| {DASH} | lsp |" in text(board, tmp_path, ".md")


def test_what_a_suite_leaves_out_is_not_missed() -> None:
    """At the smaller budget the suite asks for no attack; the control that both budgets share meets all."""
    small = quick({("random", "none"): 0.9, ("em", "none"): 0.5}, image=4.0)
    board = build(quick() + small, asked=asked(quick() + small))
    bare = best(board, "em", image_budget=4.0)
    assert bare["robust_protection_undefined"] == "no attack tried"
    assert bare["protection"] == pytest.approx(0.5) and bare["group"] == 1
    assert best(board, "em", image_budget=8.0)["robust_protection"] == pytest.approx(0.35 / 0.8)


def test_the_same_board_whether_or_not_the_suite_of_complete_records_is_known(tmp_path: Path) -> None:
    one, other = files(build(quick()), tmp_path / "a"), files(build(quick(), asked=asked(quick())), tmp_path / "b")
    assert all(one[suffix].read_bytes() == other[suffix].read_bytes() for suffix in one)


def test_a_level_of_clean_data_that_no_record_has_is_withheld_as_well(tmp_path: Path) -> None:
    mixed = [record(0.7, d, "mix", s, auxiliary=0.2) for d in ("none", "random", "em", "lsp") for s in range(3)]
    board = build(quick(), asked=asked(quick() + mixed))
    assert best(board, "em", auxiliary=0.0)["robust_protection"] == pytest.approx(0.35 / 0.8)
    reason = "withheld: 1 of 4 attacks has no record"
    assert best(board, "em", auxiliary=0.2)["robust_protection_undefined"] == reason
    assert headline(board, tmp_path).endswith("no entry is complete. em, lsp: 1 of 4 attacks has no record.")


def test_the_headline_is_of_the_strongest_attacker_and_names_complete_entries_alone(tmp_path: Path) -> None:
    mixed = [record(0.7, d, "mix", s, auxiliary=0.2) for d in ("none", "random", "em", "lsp") for s in range(3)]
    records = quick() + [r for r in mixed if r.defense.id != "em"]
    board = build(records)
    assert best(board, "em", auxiliary=0.0)["group"] == 1, "complete against an attacker without data"
    assert headline(board, tmp_path).startswith("lsp denies")
    assert headline(board, tmp_path).endswith("Not ranked, since cells failed or have no record: em.")
    rows = board.cells[board.cells["defense"] == "em"]
    assert rows["robust_protection"].notna().all(), "rows without data are about an attacker without data"
    assert headline(build(quick() + mixed), tmp_path).startswith("em denies")


def test_the_first_that_can_be_said_is_the_headline(tmp_path: Path) -> None:
    first = [record(0, "aaa", attack, s, error="boom") for attack in ATTACKS for s in range(3)]
    board = build([*quick(), *first])
    said = headline(board, tmp_path)
    assert re.match(r"em denies \d+ % .* the best attack on it is jpeg, lora\.", said)
    assert said.endswith("Not ranked, since cells failed or have no record: aaa.")
    assert said in text(board, tmp_path, ".html") and said in printed(board)


def test_where_no_entry_is_complete_the_headline_says_so_and_why(tmp_path: Path) -> None:
    records = but(failing(quick(), "em", ["jpeg"]), "lsp", ["grayscale", "jpeg"])
    board = build(records)
    said = "Nothing can be said about protection, since no entry is complete. "
    said += "em: 1 of 3 attacks failed on it; lsp: 2 of 3 attacks have no record."
    assert headline(board, tmp_path) == said
    assert said in text(board, tmp_path, ".html") and said in printed(board)


def test_a_headline_without_gain_is_of_complete_entries(tmp_path: Path) -> None:
    flat = quick(dict.fromkeys(QUICK, 0.1))
    assert headline(build(flat), tmp_path) == "Nothing can be said about protection: no gain."
    said = headline(build(but(flat, "em", ["jpeg"])), tmp_path)
    assert said == "Nothing can be said about protection. em: 1 of 3 attacks has no record; lsp: no gain."


BARE = {key: p for key, p in QUICK.items() if key[1] == "none"}


def test_a_board_without_attacks_has_no_robust_column(tmp_path: Path) -> None:
    board = build(quick(BARE))
    markdown, html, terminal = text(board, tmp_path, ".md"), text(board, tmp_path, ".html"), printed(board)
    for shown in (markdown, html, terminal):
        assert "protection, no attack tried" in shown
        assert (
            "robust" not in shown.lower() and "best attack" not in shown and "attacker" not in shown.split("How to")[0]
        )
        assert "81 % (" in shown
    assert headline(board, tmp_path).startswith("em denies 81 % (")
    assert "| 1 | em | white-box (tiny-llava) | 81 % (" in markdown
    assert "│ 1 │ em │ 81 % (" in terminal
    for frame in (pd.read_csv(files(board, tmp_path)[".csv"]), pd.read_parquet(files(board, tmp_path)[".parquet"])):
        assert frame["robust_protection"].isna().all()
        assert set(frame["robust_protection_undefined"]) == {"no attack tried"}
    assert best(board, "em")["protection"] == pytest.approx(0.65 / 0.8)
    assert list(board.ranking["defense"])[:2] == ["em", "lsp"]


def test_a_board_without_attacks_withholds_what_failed_too(tmp_path: Path) -> None:
    board = build(failing(quick(BARE), "em", ["none"], [1]))
    assert headline(board, tmp_path).startswith("lsp denies")
    row = f"| {DASH} | em | white-box (tiny-llava) | withheld: 1 of 3 cells failed |"
    assert row in text(board, tmp_path, ".md")
    assert f"│ {DASH} │ em │ withheld: 1 of 3 cells failed │" in printed(board)
    assert '<span class="missing">withheld: 1 of 3 cells failed</span>' in text(board, tmp_path, ".html")


def test_a_board_without_attacks_takes_the_best_of_the_recipes(tmp_path: Path) -> None:
    records = quick(BARE) + quick({**BARE, ("em", "none"): 0.6}, recipe="full")
    markdown = text(build(records), tmp_path, ".md")
    assert "the fine-tuner trains on the release as it is, with the best of 2 recipes." in markdown
    assert re.search(r"\| 1 \| em \| .* \| 38 % .* \| full \| 31.5 \| 3 \|", markdown)
    assert "(protection, no attack tried; the best recipe is full)" in headline(build(records), tmp_path)


def test_of_two_attackers_one_may_have_no_attack(tmp_path: Path) -> None:
    mixed = [record(0.7, d, "mix", s, auxiliary=0.2) for d in ("none", "random", "em", "lsp") for s in range(3)]
    markdown = text(build(quick(BARE) + mixed), tmp_path, ".md")
    assert "An attacker with no clean data of their own has no attack here" in markdown
    assert "| group | defense | knowledge | worst case (oracle) |" in markdown


def test_attacks_are_counted_in_words_that_agree(tmp_path: Path) -> None:
    markdown = text(build(quick()), tmp_path, ".md")
    assert "chooses among 3 attacks." in markdown
    one = quick({k: p for k, p in QUICK.items() if k[1] == "jpeg"}, seeds=1)
    assert "chooses among 1 attack." in text(build(one), tmp_path, ".md")
    assert "1 seed, of at least 3" in text(build(one), tmp_path, ".md")


def test_cells_are_counted_with_their_seeds_as_the_console_does(tmp_path: Path) -> None:
    records = failing(quick({**BARE, ("em", "jpeg"): 0.5, ("none", "jpeg"): 0.8}), "em", ["jpeg"], [0, 2])
    board = build(records)
    assert (board.tally.cells, board.tally.failed, board.tally.missing) == (18, 2, 0)
    assert "| Cells | 18, of which 2 failed |" in text(board, tmp_path, ".md")
    assert "<dd>18, of which 2 failed</dd>" in text(board, tmp_path, ".html")
    assert "2 of 18 cells failed." in text(board, tmp_path, ".md")
    assert "<p>2 of 18 cells failed.</p>" in text(board, tmp_path, ".html")


def failures(board: Board, folder: Path) -> list[str]:
    section = text(board, folder, ".md").split("## Failures\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("- ")]


def test_failures_of_one_cause_are_one_paragraph(tmp_path: Path) -> None:
    records = failing(quick(), "em", ATTACKS, error="OSError: gone\nmore")
    records = failing(records, "lsp", ["jpeg"], error="OSError: gone\nelse")
    records = failing(records, "random", ["jpeg"], [2], error="ValueError: <b>no</b>")
    board = build(records)
    assert len(board.failures) == 13
    assert failures(board, tmp_path) == [
        "- **12 cells, release**: OSError: gone (tiny-llava on glyphs, L∞ 8/255, 5 words: em x none, grayscale, jpeg x "
        "lora, seeds 0 to 2; lsp x jpeg x lora, seeds 0 to 2)",
        "- **1 cell, release**: ValueError: &lt;b&gt;no&lt;/b&gt; (tiny-llava on glyphs, L∞ 8/255, 5 words: random x "
        "jpeg x lora, seed 2)",
    ]
    html = text(board, tmp_path, ".html")
    assert html.count("OSError: gone") == 1 and "<p><b>12 cells, release</b>: OSError: gone <small>" in html
    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in html


def test_failures_are_told_apart_by_the_kind_of_stage_and_by_what_a_defense_was_crafted_on(tmp_path: Path) -> None:
    def failed(stage: str, surrogate: str, seed: int) -> Record:
        failure = {"stage": stage, "error": "boom", "traceback": ""}
        return record(0, "em", "none", seed, error="boom", failure=failure, surrogates=[surrogate])

    records = [failed("release em seed 0", "a", 0), failed("release em seed 2", "b", 2), failed("scored x", "b", 0)]
    found = failures(build(quick() + records), tmp_path)
    assert found == [
        "- **2 cells, release**: boom (tiny-llava on glyphs, L∞ 8/255, 5 words: em of a x none x lora, seed 0; em of b "
        "x none x lora, seed 2)",
        "- **1 cell, scored**: boom (tiny-llava on glyphs, L∞ 8/255, 5 words: em of b x none x lora, seed 0)",
    ]


def test_isolation_is_shown_where_any_record_says_it(tmp_path: Path) -> None:
    def isolated(records: Sequence[Record], kind: str | None) -> list[Record]:
        return [
            r.model_copy(update={"environment": r.environment.model_copy(update={"isolation": kind})}) for r in records
        ]

    old = quick()
    assert "isolation" not in build(old).environment
    assert "isolation" not in text(build(old), tmp_path, ".md") + text(build(old), tmp_path, ".html")
    board = build([*isolated(old[:10], "landlock"), *isolated(old[10:11], "process"), *old[11:]])
    line = "landlock 10 cells; process 1 cell; none 25 cells (made before plugins had processes of their own)"
    assert f"- isolation: {line}\n" in text(board, tmp_path, ".md")
    assert f"<dt>isolation</dt><dd>{line}</dd>" in text(board, tmp_path, ".html")
    assert build(isolated(old, "landlock")).environment["isolation"] == ["landlock 36 cells"]


def test_pages_withhold_as_boards_do() -> None:
    shown = attacks_page([failing(quick(), "em", ["jpeg"])], None)
    assert re.search(rf"\| {DASH} \| em \| 0 % \| {FAILED} \| {DASH} \| {FAILED} \|", shown)
    assert "3 cells failed; the board of the suite says why." in shown


def test_an_attack_on_a_different_share_of_data_is_another_attack(tmp_path: Path) -> None:
    mixed = [
        record(0.7, d, "mix", s, auxiliary=share)
        for d in ("none", "random", "em", "lsp")
        for s in range(3)
        for share in (0.05, 0.2)
    ]
    records = [r for r in quick() + mixed if (r.defense.id, r.auxiliary) != ("em", 0.2)]
    board = build(records)
    assert best(board, "em", auxiliary=0.05)["robust_protection"] is not None
    assert best(board, "em", auxiliary=0.2)["robust_protection_undefined"] == "withheld: 1 of 5 attacks has no record"


def test_the_console_says_what_is_withheld(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    show_board(failing(quick(), "em", ["jpeg"]), tmp_path, tmp_path, "b")
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"lsp denies .* Not ranked, since cells failed or have no record: em\.", said)
    assert FAILED in said


def test_the_command_misses_what_its_suite_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a suite, no record of any defense under one attack."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    small = {"id": "small", "models": ["tiny-llava"], "recipes": ["lora"], "seeds": [0, 1, 2]}
    small |= {"datasets": [{"id": "glyphs", "train": 8, "test": 120}], "attacks": [*ATTACKS]}
    suite = Suite.model_validate(small | {"defenses": ["none", "random", "em"]})
    Path("small.yaml").write_text(suite.model_dump_json(exclude_unset=True), encoding="utf-8")  # JSON is YAML
    kept = [r.model_dump_json() for r in recorded_of(suite) if r.attack.label != "jpeg"]
    assert len(kept) == 18
    Path("small.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    make_board(["small.yaml"], out=None, results=tmp_path / "small.jsonl")
    said = " ".join(capsys.readouterr().out.split())
    assert "since no entry is complete. em: 1 of 3 attacks has no record." in said
    assert "| Cells | 27, of which 0 failed and 9 have no record |" in Path("small.md").read_text(encoding="utf-8")


def test_what_was_withdrawn_is_not_missed(tmp_path: Path) -> None:
    withdrawn = "- {kind: attack, id: jpeg, version: '1', reason: 'saw the test data'}\n"
    (tmp_path / "withdrawn.yaml").write_text(withdrawn, encoding="utf-8")
    show_board(quick(), tmp_path, tmp_path, "b", asked(quick()))
    markdown = (tmp_path / "b.md").read_text(encoding="utf-8")
    assert "em denies" in markdown and "chooses among 2 attacks" in markdown
    assert "withheld" not in markdown and "| Cells | 24, of which 0 failed |" in markdown
