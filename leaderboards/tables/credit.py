"""Which control a protection is held against: one that changes questions as many words drawn at random, and where these
give answers away the answer itself; any other noise drawn at random."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

from arena.controls import ANSWER_WORD, RANDOM, RANDOM_WORDS
from leaderboards.tables.collect import Group, Protection


class Words(NamedTuple):
    """What questions may be changed by: so many words, and whether words of the answer are forbidden. What pictures may
    be changed by makes no difference to a control that leaves them alone."""

    text: int
    forbid_answer_words: bool


def random_words(group: Group) -> Mapping[Hashable, tuple[Hashable, ...]]:
    """The controls of random words by protection, for those that change questions: those under the same text budget, of
    the same surrogates where there are any; none where the group has none."""
    controls = _of_id(group, RANDOM_WORDS)
    found: dict[Hashable, tuple[Hashable, ...]] = {}
    for defense in _with_text(group):
        fitting = [c for c in controls if words_of(c) == words_of(defense)]
        own = [c for c in fitting if c.surrogates == defense.surrogates]
        found[defense] = tuple(own or fitting)
    return found


def answer_word(group: Group) -> Mapping[Hashable, tuple[Hashable, ...]]:
    """The controls that append the answer by protection, for those that change questions: those with as many words,
    else any, since most answers are a word; none where the group has none."""
    controls = _of_id(group, ANSWER_WORD)
    found: dict[Hashable, tuple[Hashable, ...]] = {}
    for defense in _with_text(group):
        fitting = [c for c in controls if c.budget.text == defense.budget.text]
        found[defense] = tuple(fitting or controls)
    return found


def random_noise(group: Group) -> Mapping[Hashable, tuple[Hashable, ...]]:
    """The controls of random noise by protection: those under the same budget for pictures, else any."""
    controls = _of_id(group, RANDOM)
    found: dict[Hashable, tuple[Hashable, ...]] = {}
    for defense in (d for d in group.places if isinstance(d, Protection)):
        fitting = [c for c in controls if c.budget[:2] == defense.budget[:2]]
        found[defense] = tuple(fitting or controls)
    return found


def without_random_words(group: Group) -> list[Words]:
    """The text budgets that a protection of the group makes use of and no control of random words has."""
    have = {words_of(control) for control in _of_id(group, RANDOM_WORDS)}
    return sorted({words_of(defense) for defense in _with_text(group)} - have)


def without_answer_word(group: Group) -> bool:
    """Whether a protection changes questions, and no control appends the answer to them: under whatever budget, since
    most answers are a word."""
    return bool(_with_text(group)) and not _of_id(group, ANSWER_WORD)


def words_of(defense: Protection) -> Words:
    """The text budget of a protection."""
    return Words(defense.budget.text, defense.budget.forbid_answer_words)


def _of_id(group: Group, id: str) -> list[Protection]:
    return [d for d in group.places if isinstance(d, Protection) and group.any_of(d).defense.id == id]


def _with_text(group: Group) -> list[Protection]:
    """The protections whose releases have other questions, as far as records say."""
    return [
        defense
        for defense, places in group.places.items()
        if isinstance(defense, Protection)
        and any(
            (record.stealth or {}).get("edit_distance") for place in places for record in group.records[place].values()
        )
    ]
