"""The kinds of stages, each in a file of its own: what it needs, how it is computed, what of it a record has, what it
will take. A new kind is a new file and a line here."""

from arena.engine.stages.base import Input, Stage
from arena.engine.stages.data import Data
from arena.engine.stages.fine_tune import FineTune, Together, TrainingPart
from arena.engine.stages.fit import Fit
from arena.engine.stages.meaning import Meaning, Similarity
from arena.engine.stages.purify import Purify
from arena.engine.stages.release import Release
from arena.engine.stages.score import Score
from arena.engine.stages.stealth import Stealth
from arena.engine.stages.zero_shot import ZeroShot

KINDS: tuple[type[Stage], ...] = (Data, ZeroShot, Release, Stealth, Fit, Purify, Meaning, Similarity, FineTune, Score)

__all__ = [
    "KINDS",
    "Data",
    "FineTune",
    "Fit",
    "Input",
    "Meaning",
    "Purify",
    "Release",
    "Score",
    "Similarity",
    "Stage",
    "Stealth",
    "Together",
    "TrainingPart",
    "ZeroShot",
]
