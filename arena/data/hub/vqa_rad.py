"""VQA-RAD: radiology images with the questions of clinicians (Lau 2018, doi 10.1038/sdata.2018.251)."""

from __future__ import annotations

from pydantic import Field

from arena.data.hub.base import Exchange, HubConfig, HubDataset, Row, text
from arena.data.multiple_choice import SHORT
from arena.plugins.base import setting


class VqaRad(HubDataset):
    """1,793 questions for training and 451 for test about 315 radiology images; over half the answers are yes or no.

    The official splits divide questions, not images: the same image can be in training and test. Auxiliary samples, of
    the training split like the training samples, never share an image with these, so that few are left beside many.
    Source: https://huggingface.co/datasets/flaviagiammarino/vqa-rad, CC0 1.0.
    """

    class Config(HubConfig):
        source: str = setting("flaviagiammarino/vqa-rad", runtime=True, description="hub id or folder")
        instruction: str = Field(SHORT, description="last line of every question; empty for none")

    fixture = "vqa-rad"
    convention = "normalized"

    def exchange(self, row: Row) -> Exchange:
        return Exchange(text(row, "question"), text(row, "answer"))
