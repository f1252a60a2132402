"""The controls, which others are compared with, and what holds for them alone. An id belongs to one installed package,
so that no other plugin can pass for one of these."""

from __future__ import annotations

from arena.budget import Budget

NONE = "none"
"""Of the defenses the one that changes nothing, of the attacks the one that does nothing."""
RANDOM = "random"
"""The defense that is noise of the budget's size."""
RANDOM_WORDS = "random-words"
"""The defense that inserts words drawn at random: what insertion alone does."""
ANSWER_WORD = "answer-word"
"""The defense that appends the answer: the cheapest shortcut there is."""

CONTROLS = (NONE, RANDOM, RANDOM_WORDS, ANSWER_WORD)
"""Defenses that are not ranked."""

ALONE = "auxiliary-alone"
"""The attack that leaves the release alone and trains on the attacker's own clean samples."""


def bounds(defense: str, budget: Budget) -> Budget:
    """The budget that a defense's release is held against: the control that appends the answer may do so."""
    return budget.model_copy(update={"forbid_answer_words": False}) if defense == ANSWER_WORD else budget
