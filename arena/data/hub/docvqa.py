"""DocVQA: questions about scanned documents (Mathew 2021, arXiv 2007.00398)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from arena.data.hub.base import Exchange, HubConfig, HubDataset, Row, text, texts
from arena.data.multiple_choice import SHORT
from arena.plugins.base import setting


class DocVQA(HubDataset):
    """39,463 questions for training and 5,349 for evaluation about pages of the UCSF Industry Documents Library.

    The answers of the test split are not public; the validation split takes its place, as in the field. The first
    accepted answer is the sample's, the others are its aliases. Of the copies on the hub,
    https://huggingface.co/datasets/HuggingFaceM4/DocumentVQA has the training split; lmms-lab/DocVQA has not: with it
    set ``subset: DocVQA`` and ``training_split: validation``, and the validation split is divided.
    """

    class Config(HubConfig):
        source: str = setting("HuggingFaceM4/DocumentVQA", runtime=True, description="hub id or folder")
        evaluation_split: str = Field("validation", description="split of test samples")
        instruction: str = Field(SHORT, description="last line of every question; empty for none")

    fixture = "docvqa"
    convention = "normalized"
    measures = ("anls",)
    fields: ClassVar = {"image": "image", "question": "question", "answers": "answers"}

    def exchange(self, row: Row) -> Exchange:
        answer, *aliases = filter(None, texts(row, "answers"))
        return Exchange(text(row, "question"), answer, tuple(aliases))
