"""RealWorldQA: what a car or a pocket camera sees (xAI 2024)."""

from __future__ import annotations

from pydantic import Field

from arena.data.hub.base import Exchange, HubConfig, HubDataset, Row, text
from arena.plugins.base import setting


class RealWorldQA(HubDataset):
    """765 photographs, most from vehicles, each with one question whose answer is short or a letter.

    It has the one split ``test``, which is divided by the seed. Questions hold their options and instruction already.
    Source: https://huggingface.co/datasets/xai-org/RealworldQA, CC BY-ND 4.0.
    """

    class Config(HubConfig):
        source: str = setting("xai-org/RealworldQA", runtime=True, description="hub id or folder")
        training_split: str = Field("test", description="split of training and auxiliary samples")

    fixture = "realworldqa"
    convention = "normalized"

    def exchange(self, row: Row) -> Exchange:
        return Exchange(text(row, "question"), text(row, "answer"))
