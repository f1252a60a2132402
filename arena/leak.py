"""Whether words that were inserted into a question give its answer away.

Words are runs of letters and digits; they are compared after NFKC and case folding, number words up to ten as digits.
What gives an answer away are the words of the answer and of its aliases, but for articles before others, and in a
multiple-choice question the right option's letter and text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby

from rapidfuzz.distance import Levenshtein

from arena.data.sample import Sample

_UP_TO_TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: str(number) for number, word in enumerate(_UP_TO_TEN)} | {"none": "0"}
"""Number words with their digits."""

ARTICLES = frozenset({"a", "an", "the"})

Spelling = tuple[str, ...]


def words(text: str) -> list[str]:
    """The words of a text as they are compared, in order, and every other sign that is no space on its own."""
    return list(map(_compared, _folded(text)))


def spellings(sample: Sample) -> list[Spelling]:
    """All ways to say the right answer, each the words of one; a text of signs alone is spelled by these."""
    found = [spelling for text in (sample.answer, *sample.aliases) if (spelling := _spelling(text))]
    for letter, option in _options(sample):
        if (letter,) in found or _spelling(option) in found:
            found += [(letter,), _spelling(option)]
    return list(dict.fromkeys(filter(None, found)))


def forbidden(sample: Sample) -> frozenset[str]:
    """The words that may not be inserted where answers may not be: all of every spelling, one by one and written
    together, and the letters of all options; as `words` gives them."""
    every = spellings(sample)
    letters = {letter for letter, _ in _options(sample)}
    return frozenset(letters.union(*every, ("".join(spelling) for spelling in every)))


def inserted_words(before: str, after: str) -> list[str]:
    """The words of a text that are not those of the text before, in order."""
    return [_compared(word) for word, is_new in _marked(before, after) if is_new and _of_word(word[0])]


def given_away(original: Sample, question: str) -> bool:
    """Whether the words inserted into `question` hold the answer: all words of a spelling, in whatever order, or some
    that written together with their neighbours make one."""
    every, marked = spellings(original), _marked(original.question, question)
    new = {_compared(word) for word, is_new in marked if is_new}
    return any(new.issuperset(spelling) for spelling in every) or _run(every, marked) is not None


def forbidden_word(original: Sample, question: str) -> str | None:
    """The first inserted word that is among the `forbidden`, or a run of words with an inserted one in it that is a
    spelling when it is written together; folded, None where there is neither."""
    marked, barred = _marked(original.question, question), forbidden(original)
    single = next((word for word, is_new in marked if is_new and _compared(word) in barred), None)
    return single or _run(spellings(original), marked)


def _folded(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found: list[str] = []
    for of_word, run in groupby(text, _of_word):
        joined = "".join(run)
        found += [joined] if of_word else list("".join(joined.split()))
    return found


def _compared(word: str) -> str:
    return NUMBERS.get(word, word)


def _of_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _spelling(text: str) -> Spelling:
    every = words(text)
    said = [word for word in every if _of_word(word[0])] or every
    return tuple(word for word in said if word not in ARTICLES) or tuple(said)


def _options(sample: Sample) -> Iterator[tuple[str, str]]:
    """The letter and the text of each option."""
    return ((chr(ord("a") + index), option) for index, option in enumerate(sample.choices[:26]))


def _marked(before: str, after: str) -> list[tuple[str, bool]]:
    """The words of a text, each with whether it is not one of the text before."""
    old, new = _folded(before), _folded(after)
    inserted = {edit.dest_pos for edit in Levenshtein.editops(old, new) if edit.tag != "delete"} if old != new else ()
    return [(word, place in inserted) for place, word in enumerate(new)]


def _run(every: Sequence[Spelling], marked: Sequence[tuple[str, bool]]) -> str | None:
    """Neighbouring words, an inserted one among them, that make a spelling when they are written together."""
    wanted = {"".join(spelling) for spelling in every}
    longest = max(map(len, wanted), default=0)
    kept = [(word, is_new) for word, is_new in marked if _of_word(word[0])]
    for start in range(len(kept)):
        joined, has_new = "", False
        for stop in range(start, len(kept)):
            word, is_new = kept[stop]
            joined, has_new = joined + _compared(word), has_new or is_new
            if len(joined) > longest:
                break
            if has_new and joined in wanted:
                return " ".join(word for word, _ in kept[start : stop + 1])
    return None
