"""Requirements: what is read, what is refused, and what a suite does not measure."""

from __future__ import annotations

from dataclasses import fields

import pytest
from stress_toys import bright_suite
from synthetic import quick

from arena.errors import UsageError
from arena.score.contest import Scores
from arena.score.stealth import stealth
from arena.stress.requirements import parse, parse_all
from arena.stress.scores import SCORES, find_score
from leaderboards.tables.board import build


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("robust-protection>=0.3", "robust-protection>=0.3@low"),
        ("robust_protection >= .3", "robust-protection>=0.3@low"),
        ("retention[jpeg]>=0.5", "retention[jpeg]>=0.5@low"),
        ("retention[jpeg(quality=30, x=2)+case]>=0.5@value", "retention[jpeg(quality=30, x=2)+case]>=0.5@value"),
        ("retention[*,model=tiny-llava, budget=8]>=0.5", "retention[*,model=tiny-llava,budget=8]>=0.5@low"),
        ("protection[recipe=lora]>=4e-1@high", "protection[recipe=lora]>=0.4@high"),
        ("accuracy<=0.6", "accuracy<=0.6@high"),
        ("accuracy<=0.6@low", "accuracy<=0.6@low"),
        ("psnr>=32", "psnr>=32"),
        ("stealth_psnr>=32@value", "psnr>=32"),
        ("PSNR>=32", "psnr>=32"),
        ("drop>=-1", "drop>=-1@low"),
    ],
)
def test_a_requirement_in_full(text: str, full: str) -> None:
    assert parse(text).name == full
    assert parse(full).name == full


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read: write SCORE>=NUMBER"),
        ("protection", "cannot be read"),
        ("protecton>=0.3", "there is no score 'protecton'; did you mean 'protection'"),
        ("protection>0.3", "'>' is no sign that can be used: write >= or <="),
        ("protection==0.3", "'==' is no sign"),
        ("protection>=", "'' is no number"),
        ("protection>=nan", "'nan' is no number"),
        ("protection>=inf", "'inf' is no number"),
        ("protection>=30%", "'30%' is no number"),
        ("protection>=0.3@mean", "'@mean' is none of @low, @value, @high"),
        ("protection>=0.3@", "'@' is none of"),
        ("psnr>=32@low", "psnr is measured without an interval: leave out '@low'"),
        ("retention>=0.5", "retention is about an attack: name one, such as retention[jpeg], or all with retention[*]"),
        ("retention[jpeg,case]>=0.5", "'jpeg' and 'case' are two attacks"),
        ("retention[jpeg,model=a,model=b]>=0.5", "model is there twice"),
        ("robust-protection[jpeg]>=0.5", "is about all attacks together: leave the attack out"),
        ("robust-protection[recipe=lora]>=0.5", "the attacker chooses the recipe"),
        ("psnr[jpeg]>=0.5", "psnr does not depend on an attack"),
        ("protection[\x1b[31m>=0.3]>=x", "\\x1b"),
    ],
)
def test_a_requirement_that_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text)
    said = str(refused.value)
    assert says in said and said.startswith("requirement '") and "\x1b" not in said


def test_one_twice_is_refused() -> None:
    assert len(parse_all(["protection>=0.3", "protection>=0.3@value"])) == 2
    with pytest.raises(UsageError, match=r"'protection>=0\.3@low' is there twice"):
        parse_all(["protection>=0.3", "protection>=0.3@low"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "retention[toy-kep]>=0.5",
            "suite 'bright' has no attack 'toy-kep'; did you mean 'toy-keep'? (there are none, ",
        ),
        ("retention[none]>=0.5", "retention is about an attack, and this is the control"),
        ("protection[model=toy-modle]>=0.5", "has no model 'toy-modle'; did you mean 'toy-model'?"),
        ("protection[dataset=x]>=0.5", "has no dataset 'x' (there are toy-bright)"),
        ("protection[recipe=x]>=0.5", "has no recipe 'x' (there are toy-recipe)"),
        ("protection[budget=4]>=0.5", "has no budget '4' (there are 8)"),
    ],
)
def test_what_a_suite_does_not_measure(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text).check(bright_suite())
    assert says in str(refused.value)


@pytest.mark.parametrize("text", ["robust-protection>=0.3", "retention[*]>=0.3"])
def test_a_suite_without_attacks(text: str) -> None:
    parse(text).check(bright_suite())
    with pytest.raises(UsageError, match="suite 'bright' has no attack, so it does not measure this"):
        parse(text).check(bright_suite(attacks=["none"]))


def test_every_score_is_a_column_of_a_board() -> None:
    """And every score of a cell, and every measure of stealth, is one that can be required."""
    board = build(quick())
    for score in SCORES.values():
        assert find_score(score.column) is score
        frame = board.ranking if score.robust else board.cells
        if not score.column.startswith("stealth_"):  # of these a record has what was measured
            assert score.column in frame.columns, score.name
            ends = {f"{score.column}_low", f"{score.column}_high"}
            assert (ends <= set(frame.columns)) is score.interval, score.name
    columns = {score.column for score in SCORES.values()}
    assert {field.name for field in fields(Scores)} - {"detectable"} <= columns
    assert {f"stealth_{name}" for name in measures()} <= columns


def measures() -> set[str]:
    from PIL import Image

    from arena.data.sample import Sample

    sample = Sample("a", Image.new("RGB", (8, 8)), "which clan?", "fox")
    return set(stealth([sample], [sample], lambda texts: [1.0 for _ in texts]))
