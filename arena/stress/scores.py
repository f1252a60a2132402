"""The scores that a requirement can name: which column of a board each is, in what unit, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from arena.errors import UsageError
from arena.plugins.registry import near_misses
from arena.text import shortened


@dataclass(frozen=True)
class Score:
    """One column of a board (`leaderboards.tables.board.Board`).

    `of` says where it stands: ``robust`` scores are about all attacks together and in `ranking`, all others in `cells`.
    Those of ``release`` are measured on the released files, without an interval, as are those of ``cost``. `better` is
    the direction that is good for who protects. `attack` is what a requirement without an attack in brackets is
    about: the cell without attack (``optional``), or nothing (``needed``); where it is ``never`` there are no brackets
    with an attack.
    """

    name: str
    of: Literal["robust", "cell", "release", "cost"]
    unit: str
    better: Literal["higher", "lower"]
    attack: Literal["optional", "needed", "never"]
    about: str

    @property
    def column(self) -> str:
        """The column's name."""
        plain = self.name.replace("-", "_")
        return f"stealth_{plain}" if self.of == "release" else plain

    @property
    def interval(self) -> bool:
        """Whether the board has its 95 % interval."""
        return self.of in ("robust", "cell") and self.name != "peak-accuracy"


_GAIN, _DROP, _ACCURACY = "share of the gain", "share of the drop", "accuracy, 0 to 1"

_ALL = (
    Score("robust-protection", "robust", _GAIN, "higher", "never", "protection against the attack that hurts most"),
    Score("robust-retention", "robust", _DROP, "higher", "never", "what that attack leaves of the drop without attack"),
    Score("robust-accuracy", "robust", _ACCURACY, "lower", "never", "what the fine-tuner reaches with that attack"),
    Score("protection", "cell", _GAIN, "higher", "optional", "share of the gain that is denied"),
    Score("retention", "cell", _DROP, "higher", "needed", "what the attack leaves of the drop without attack"),
    Score("drop", "cell", _ACCURACY, "higher", "optional", "accuracy on clean data minus accuracy on the release"),
    Score("paired-drop", "cell", _ACCURACY, "higher", "needed", "the same, clean data put through the attack as well"),
    Score("attack-cost", "cell", _ACCURACY, "higher", "needed", "accuracy that the attack costs on clean data"),
    Score("accuracy", "cell", _ACCURACY, "lower", "optional", "after fine-tuning on the release"),
    Score("peak-accuracy", "cell", _ACCURACY, "lower", "optional", "the same, best epoch on test data"),
    Score("gain", "cell", _ACCURACY, "higher", "never", "what clean data add: whether the task tests anything"),
    Score("clean", "cell", _ACCURACY, "higher", "never", "after fine-tuning on clean data"),
    Score("zero-shot", "cell", _ACCURACY, "lower", "never", "before fine-tuning"),
    Score("psnr", "release", "dB", "higher", "never", "peak signal-to-noise ratio of the pictures that changed"),
    Score("ssim", "release", "-1 to 1", "higher", "never", "structural similarity"),
    Score(
        "ms-ssim", "release", "-1 to 1", "higher", "never", "over five scales; pictures of 176 pixels a side or more"
    ),
    Score("ciede2000", "release", "difference", "lower", "never", "mean colour difference"),
    Score("max-delta", "release", "1/255", "lower", "never", "largest change of a pixel"),
    Score("mean-delta", "release", "1/255", "lower", "never", "mean change of a pixel"),
    Score("identical-images", "release", "pictures", "lower", "never", "pictures that did not change"),
    Score("inserted-words", "release", "words", "lower", "never", "words inserted, mean over samples"),
    Score("edit-distance", "release", "characters", "lower", "never", "changes of a question, mean over samples"),
    Score("bleu", "release", "0 to 1", "higher", "never", "BLEU of the released questions"),
    Score("perplexity-ratio", "release", "ratio", "lower", "never", "perplexity of questions, released to original"),
    Score("protect-seconds-per-sample", "cost", "s", "lower", "never", "time to protect"),
    Score("protect-peak-memory-mb", "cost", "MB", "lower", "never", "memory to protect"),
    Score("purify-seconds-per-sample", "cost", "s", "higher", "needed", "time that the attack takes"),
    Score("purify-peak-memory-mb", "cost", "MB", "higher", "needed", "memory that the attack takes"),
    Score("finetune-seconds-per-sample", "cost", "s", "higher", "optional", "time to fine-tune"),
    Score("finetune-peak-memory-mb", "cost", "MB", "higher", "optional", "memory to fine-tune"),
)

SCORES = {score.name: score for score in _ALL}
"""All scores by name."""


def find_score(name: str) -> Score:
    """The score of a name, written with hyphens or with underscores, with or without ``stealth-`` before it. Raises
    `UsageError` for an unknown one."""
    plain = name.strip().lower().replace("_", "-").removeprefix("stealth-")
    if plain not in SCORES:
        raise UsageError(
            f"there is no score '{shortened(name.strip(), 100)}'{near_misses(plain, SCORES)} (scores: "
            f"{', '.join(SCORES)})"
        )
    return SCORES[plain]
