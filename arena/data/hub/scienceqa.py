"""ScienceQA: school science as multiple choice (Lu 2022, arXiv 2209.09513)."""

from __future__ import annotations

from string import ascii_uppercase
from typing import ClassVar

from pydantic import Field

from arena.data.hub.base import Exchange, HubConfig, HubDataset, Row, text, texts
from arena.data.multiple_choice import LETTER, lettered
from arena.plugins.base import setting


class ScienceQA(HubDataset):
    """The questions of ScienceQA that have a picture: about 6,200 for training and 2,000 for test of 21,208 in all.

    The hint, where a row has one, stands before the question as ``Context: ...``. Rows without picture are passed over.
    Source: https://huggingface.co/datasets/derek-thomas/ScienceQA, CC BY-SA 4.0.
    """

    class Config(HubConfig):
        source: str = setting("derek-thomas/ScienceQA", runtime=True, description="hub id or folder")
        instruction: str = Field(LETTER, description="last line of every question; empty for none")

    fixture = "scienceqa"
    convention = "choice"
    fields: ClassVar = {
        "image": "image",
        "question": "question",
        "choices": "choices",
        "answer": "answer",
        "hint": "hint",
    }

    def wanted(self, row: Row) -> bool:
        return row["image"] is not None

    def exchange(self, row: Row) -> Exchange:
        choices, answer, hint = texts(row, "choices"), row["answer"], row["hint"] or ""
        if not all(choices) or len(choices) > len(ascii_uppercase):
            raise ValueError(f"the choices {list(choices)!r} need a text each, and a letter each: repair the row")
        if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
            raise ValueError(f"the answer {answer!r} is not the number of one of {len(choices)} choices, from 0")
        if not isinstance(hint, str):
            raise ValueError(f"hint is {hint!r} where a text or none is needed: map another column")
        hint = hint.strip()
        question = (f"Context: {hint}\n" if hint else "") + text(row, "question")
        return Exchange(lettered(question, choices), ascii_uppercase[answer], choices=choices)
