"""MMStar: multiple-choice questions that cannot be answered without the picture (Chen 2024, arXiv 2403.20330)."""

from __future__ import annotations

from pydantic import Field

from arena.data.hub.base import Exchange, HubConfig, HubDataset, Row, text
from arena.data.multiple_choice import LETTER, lettered, split_options
from arena.plugins.base import setting


class MMStar(HubDataset):
    """1,500 multiple-choice questions over six capabilities, chosen by hand from six benchmarks.

    It has the one split ``val``, which is divided by the seed. Published questions end with their options in a line,
    ``Options: A: ..., B: ...``; they get a line each. The few of another form stay as they are.
    Source: https://huggingface.co/datasets/Lin-Chen/MMStar.
    """

    class Config(HubConfig):
        source: str = setting("Lin-Chen/MMStar", runtime=True, description="hub id or folder")
        training_split: str = Field("val", description="split of training and auxiliary samples")
        evaluation_split: str = Field("val", description="split of test samples")
        instruction: str = Field(LETTER, description="last line of every question; empty for none")

    fixture = "mmstar"
    convention = "choice"

    def exchange(self, row: Row) -> Exchange:
        answer = text(row, "answer").upper()
        if len(answer) != 1 or not "A" <= answer <= "Z":
            raise ValueError(f"the answer {answer!r} is no option's letter: map the column of letters")
        question, choices = split_options(text(row, "question"))
        if choices and ord(answer) - ord("A") >= len(choices):
            raise ValueError(f"the answer {answer!r} is beyond the {len(choices)} options: repair the row")
        return Exchange(lettered(question, choices), answer, choices=choices)
