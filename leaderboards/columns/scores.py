"""The scores of a board's tables, each with an interval, and the reasons why one is undefined."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from arena.score.attacked import NO_CHOOSER
from arena.score.contest import NO_ALONE, NO_OWN_DATA, NO_RANDOM_WORDS, NO_WORDS
from arena.score.statistics import (
    FAILED,
    FEW_SEEDS,
    NO_BASELINE,
    NO_CONTROL,
    NO_GAIN,
    NO_PROTECTION,
    NO_SEEDS,
    NO_ZERO_SHOT,
)
from leaderboards.columns.kind import Column, Frame
from leaderboards.tables.coverage import NO_ATTACK, WITHHELD

REASONS: dict[str, str] = {
    FAILED: "the cell failed, for every seed",
    NO_CONTROL: "the defense `none`, or the attack on it that is compared with, has no cell that is done",
    NO_ZERO_SHOT: "no record has the model's answers before fine-tuning",
    NO_BASELINE: "the defense has no cell without attack that is done",
    NO_SEEDS: "the cells that are compared have no seed in common",
    FEW_SEEDS: "a share needs at least two seeds, to tell its denominator from zero",
    NO_GAIN: "fine-tuning on clean data is not significantly better than none, so that there is nothing to deny",
    NO_PROTECTION: "the drop without attack is not significantly above zero",
    NO_WORDS: "the protection leaves questions as they are",
    NO_RANDOM_WORDS: "no cell of the control `random-words` under the same text budget is done to compare with",
    NO_OWN_DATA: "the row's attacker uses no clean data of their own, or nothing else",
    NO_ALONE: "no cell of the attack `auxiliary-alone` with the same share is done to compare with",
    NO_ATTACK: "what depends on attacks is not stated where the attacker has none",
    NO_CHOOSER: "no attack was run that chooses by what the attacker has",
    WITHHELD: "an attack, or a cell without attack, failed or has no record; the counts follow",
}
"""What ``NAME_undefined`` says, or begins with."""

_SHARE_OF_GAIN = "share of the gain, 1 is all of it; below 0 where the fine-tuner is better off"


def _score(
    name: str,
    frames: tuple[Frame, ...],
    unit: str,
    meaning: str,
    *,
    reasons: tuple[str, ...],
    better: Literal["higher", "lower"] | None = None,
) -> Column:
    rule = f"null where {name}_undefined has a reason"
    return Column(name, frames, "number", unit, meaning, rule, better, reasons)


SCORES = (
    _score(
        "zero_shot",
        ("cells",),
        "accuracy, 0 to 1",
        "the model before fine-tuning; zero_shot_seeds is 0, since it has none, and the interval is over test items",
        reasons=(NO_ZERO_SHOT,),
    ),
    _score(
        "clean",
        ("cells",),
        "accuracy, 0 to 1",
        "after fine-tuning on clean data with the row's recipe, without attack",
        reasons=(NO_CONTROL,),
    ),
    _score(
        "clean_attacked",
        ("cells",),
        "accuracy, 0 to 1",
        "after fine-tuning on clean data that were put through the row's attack",
        reasons=(NO_CONTROL,),
    ),
    _score(
        "accuracy",
        ("cells",),
        "accuracy, 0 to 1",
        "after fine-tuning on the release, put through the row's attack",
        better="lower",
        reasons=(FAILED,),
    ),
    _score(
        "gain",
        ("cells",),
        "accuracy, -1 to 1",
        "clean minus zero_shot: what fine-tuning on clean data is worth",
        reasons=(NO_CONTROL, NO_ZERO_SHOT),
    ),
    _score(
        "drop",
        ("cells",),
        "accuracy, -1 to 1",
        "clean minus accuracy",
        better="higher",
        reasons=(FAILED, NO_CONTROL, NO_SEEDS),
    ),
    _score(
        "paired_drop",
        ("cells",),
        "accuracy, -1 to 1",
        "clean_attacked minus accuracy: the drop against clean data put through the same attack",
        better="higher",
        reasons=(FAILED, NO_CONTROL, NO_SEEDS),
    ),
    _score(
        "attack_cost",
        ("cells",),
        "accuracy, -1 to 1",
        "clean minus clean_attacked: what the attack costs on clean data",
        reasons=(NO_CONTROL, NO_SEEDS),
    ),
    _score(
        "protection",
        ("cells",),
        _SHARE_OF_GAIN,
        "drop / gain: the share of the gain that is denied to the row's attacker",
        better="higher",
        reasons=(FAILED, NO_CONTROL, NO_ZERO_SHOT, NO_SEEDS, FEW_SEEDS, NO_GAIN),
    ),
    _score(
        "protection",
        ("ranking",),
        _SHARE_OF_GAIN,
        "the same without attack, the fine-tuner choosing the recipe",
        better="higher",
        reasons=(FAILED, NO_CONTROL, NO_ZERO_SHOT, NO_BASELINE, NO_SEEDS, FEW_SEEDS, NO_GAIN, WITHHELD),
    ),
    _score(
        "retention",
        ("cells",),
        "share of the drop without attack, 1 is all of it",
        "paired_drop / drop without attack: what the attack leaves of the protection",
        better="higher",
        reasons=(FAILED, NO_CONTROL, NO_ZERO_SHOT, NO_BASELINE, NO_SEEDS, FEW_SEEDS, NO_GAIN, NO_PROTECTION),
    ),
    _score(
        "over_random_words",
        ("cells",),
        "accuracy, -1 to 1",
        "accuracy on the control `random-words` under the row's attack, minus accuracy: what the release takes beyond "
        "words inserted at random; of several such controls the one that takes most",
        better="higher",
        reasons=(FAILED, NO_WORDS, NO_RANDOM_WORDS, NO_SEEDS),
    ),
    _score(
        "over_random_words",
        ("ranking",),
        "accuracy, -1 to 1",
        "what the attacker of robust_accuracy reaches on the control `random-words`, minus robust_accuracy; without "
        "attack where none was tried",
        better="higher",
        reasons=(NO_ZERO_SHOT, NO_WORDS, NO_RANDOM_WORDS, NO_SEEDS, WITHHELD),
    ),
    _score(
        "release_adds",
        ("cells",),
        "accuracy, -1 to 1",
        "accuracy minus that of training on the attacker's own clean data alone, with as many steps: what the release "
        "was worth to an attacker who has these data",
        better="lower",
        reasons=(FAILED, NO_OWN_DATA, NO_ALONE, NO_SEEDS),
    ),
    _score(
        "robust_protection",
        ("cells", "ranking"),
        _SHARE_OF_GAIN,
        "the share of the gain that is denied to an attacker who chooses by what they have, with at most the row's "
        "clean data, where such an attack was run (`chooser` in `ranking`), else as worst_case_protection; what the "
        "ranking is by",
        better="higher",
        reasons=(NO_CONTROL, NO_ZERO_SHOT, NO_SEEDS, FEW_SEEDS, NO_GAIN, NO_ATTACK, WITHHELD),
    ),
    _score(
        "worst_case_protection",
        ("cells", "ranking"),
        _SHARE_OF_GAIN,
        "the share of the gain that is denied where the attack and the recipe are chosen on test labels, as an oracle "
        "would; its interval reaches further up by what that flatters the attacker",
        better="higher",
        reasons=(NO_CONTROL, NO_ZERO_SHOT, NO_SEEDS, FEW_SEEDS, NO_GAIN, NO_ATTACK, WITHHELD),
    ),
    _score(
        "robust_retention",
        ("ranking",),
        "share of the drop without attack, 1 is all of it",
        "what the attacker of robust_protection leaves of the drop without attack",
        better="higher",
        reasons=(
            *(NO_CONTROL, NO_ZERO_SHOT, NO_BASELINE, NO_SEEDS, FEW_SEEDS, NO_GAIN, NO_PROTECTION),
            *(NO_ATTACK, WITHHELD),
        ),
    ),
    _score(
        "robust_accuracy",
        ("ranking",),
        "accuracy, 0 to 1",
        "what the attacker of robust_protection reaches",
        better="lower",
        reasons=(NO_ZERO_SHOT, NO_SEEDS, NO_ATTACK, WITHHELD),
    ),
    _score(
        "regret",
        ("ranking",),
        "accuracy, 0 to 1",
        "accuracy of the worst case minus robust_accuracy: what an attacker who chooses by what they have is short of "
        "an oracle; its interval reaches further down by what the oracle owes to luck",
        reasons=(NO_ZERO_SHOT, NO_SEEDS, NO_ATTACK, NO_CHOOSER, WITHHELD),
    ),
)

BESIDE = (
    Column(
        "NAME_low",
        ("cells", "ranking"),
        "number",
        "as NAME",
        "lower end of the 95 % interval over seeds and test items",
        "null where NAME is, and with fewer than two seeds",
    ),
    Column(
        "NAME_high",
        ("cells", "ranking"),
        "number",
        "as NAME",
        "its upper end",
        "null where NAME is, and with fewer than two seeds",
    ),
    Column("NAME_seeds", ("cells", "ranking"), "whole number", "at least 0", "seeds that NAME is computed from"),
    Column(
        "NAME_undefined",
        ("cells", "ranking"),
        "text",
        "a reason",
        "why NAME is null",
        "null where NAME is a number",
    ),
    Column(
        "NAME_p",
        ("cells", "ranking"),
        "number",
        "0 to 1",
        "the two-sided p value of NAME being zero, of this score by itself; of a share that of its numerator",
        "null where NAME is, and with fewer than two seeds",
    ),
)
"""What every score NAME has beside it."""


def beside(score: Column) -> tuple[Column, ...]:
    """The columns that a score has beside it, under its own name."""
    return tuple(
        replace(
            column,
            name=column.name.replace("NAME", score.name),
            frames=score.frames,
            unit=column.unit.replace("NAME", score.name),
            meaning=column.meaning.replace("NAME", score.name),
            undefined=column.undefined.replace("NAME", score.name),
            better=score.better if column.name in ("NAME_low", "NAME_high") else None,
        )
        for column in BESIDE
    )
