"""TextVQA: questions that need the text in a photograph (Singh 2019, arXiv 1904.08920)."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from pydantic import Field

from arena.data.hub.base import Exchange, HubConfig, HubDataset, Row, text, texts
from arena.data.multiple_choice import SHORT
from arena.plugins.base import setting

NO_ANSWER = "\N{EMPTY SET}"
"""For an annotator who gave an empty answer: one of the ten, with whom no prediction agrees, not even an empty one."""


class TextVQA(HubDataset):
    """34,602 questions for training and 5,000 for evaluation about photographs of OpenImages, ten answers each.

    The answers of the test split are not public; the validation split takes its place, as in the field. The answer of a
    sample is the one that most annotators gave, the first of these among equals, and its aliases are the other nine
    annotators' answers, repetitions and empty ones (`NO_ANSWER`) too, as VQA accuracy needs them.
    Source: https://huggingface.co/datasets/lmms-lab/textvqa, CC BY 4.0.
    """

    class Config(HubConfig):
        source: str = setting("lmms-lab/textvqa", runtime=True, description="hub id or folder")
        evaluation_split: str = Field("validation", description="split of test samples")
        instruction: str = Field(SHORT, description="last line of every question; empty for none")

    fixture = "textvqa"
    convention = "normalized"
    measures = ("vqa-accuracy",)
    fields: ClassVar = {"image": "image", "question": "question", "answers": "answers"}

    def exchange(self, row: Row) -> Exchange:
        answers = [said or NO_ANSWER for said in texts(row, "answers")]
        [(answer, _)] = Counter(said for said in answers if said != NO_ANSWER).most_common(1)
        answers.remove(answer)
        return Exchange(text(row, "question"), answer, tuple(answers))
