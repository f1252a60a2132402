"""Which option of a multiple-choice question a text names, by letter or by text.

What a text states to be the answer counts, wherever that stands; without such a statement, lines that consist of an
option. A text that names several options names none. The README beside this file lists what is read and what is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from arena.score.forms import bare, one_form

_I, _IM = re.IGNORECASE, re.IGNORECASE | re.MULTILINE

_CLEANED = tuple(
    (re.compile(pattern, _IM | re.DOTALL), by)
    for pattern, by in (
        (r"\A.*</think>|<think>.*", ""),
        (r"<\|?(?:answer|begin_of_box)\|?>", "\nanswer: "),
        (r"<\|\w+\|>|</?[a-z]\w*>", ""),
        (r"\\f?box(?:ed)?\b", " answer: "),
        (r"\\(?:text(?:bf|it)?|math(?:rm|bf|sf)|bf|rm)\b|\\[()\[\],;!]|\\(?:quad|left|right)\b|\$", " "),
        (r"[*`~]|(?<!\w)_+(?=\w)|(?<=[^\W_])_+(?!\w)", ""),
        (r"^[ \t]*(?:(?:#+|>+|[-+\u2022])[ \t]+)*", ""),
        (r"[^\S\n]+", " "),
        (r" ?\{ ?", "("),
        (r" ?\}", ")"),
    )
)
"""What thoughts, tags, LaTeX and Markdown are replaced by."""

_OPEN, _SHUT = r"""[(\["']*""", r"""[)\]"']*[.:]?[)\]"']*"""
_NOUN = r"(?:(?:the )?(?:option|choice|answer|letter|选项|選項) ?)?"
_ANSWER = (
    r"(?:(?<!\w)(?:answers?|ans\.?|option|choice|solution|antwort|r[ée]ponse|respuesta|resposta|risposta|ответ)"
    r"|答案|选项|選項|正解|答え|回答|정답|답)"
)
_SURELY = r"(?: (?:also|clearly|definitely|certainly|likely|most likely|probably|therefore|thus|indeed|simply))*"
_IS = (
    r"(?: (?:is|are|was|would be|should be|must be|will be|might be|may be|could be|ist|est|es|é)\b"
    rf"{_SURELY}| ?(?:应该|應該)?(?:是|为|為|は))"
)
_RIGHT = r"(?:(?:most |more )?(?:correct|right|best|appropriate|accurate|true|final))"
_NO = r"(?:no|wait|actually|sorry|rather|correction|hmm|oh|i mean|so|therefore|thus|hence)"
_MAYBE = r"(?:or|maybe|perhaps|possibly)"

_STATES = re.compile(
    rf"{_ANSWER}(?: (?:to|for|of)\b[^.:;\n]{{0,80}}?| here)?(?:{_IS} ?[:=-]*| ?[:=]+| -)\s*"
    rf"|\b(?:it|this|that)(?:{_IS}|'s{_SURELY}) "
    r"|\b(?:i|i would|i'd|i will|i'll|let's)(?: (?:choose|chose|pick|picked|select|selected|say|go with|went with)) "
    r"|(?:选择|選擇|选|選) ?:? ?",
    _I,
)
"""What stands before the option that a text states to be the answer."""
_TURNS = re.compile(rf"(?:(?:^|[.!?] ?)(?:(?:{_NO}|{_MAYBE})[,:.]? )+|[,;] ?(?:{_NO}[,:.]? )+)", _IM)
"""What stands before an option that ends its clause, and is said instead of or after another."""
_CLAUSE_ENDS = re.compile(r"\s*(?:$|[.,;!?)\n])")
_CLAUSE = re.compile(r"(?:^|[.:;!?,] |\b(?:so|therefore|thus|hence|think|believe|say|that) )", _IM)
_IS_RIGHT = re.compile(rf"{_IS} (?:the |an? |my )?(?:{_RIGHT}(?: (?:answer|option|choice|one))?|answer|choice)\b", _I)

_LETTER = re.compile(rf"{_NOUN}{_OPEN}([a-z])(?![\da-z\u00c0-\u024f]|['-][a-z])({_SHUT})", _I)
_AFTER_WORD_LIKE_LETTER = re.compile(r" ?(?:$|[^\w\s]|(?:because|since|as|due|or|and|but|given|for|is|would)\b)", _IM)
"""What may follow ``a`` and ``i`` if they are letters and no words."""
_GLOSS = re.compile(r" ?[-:,(=]* ?")
_ALSO = re.compile(
    r" ?(?:[,;/&+|]|\b(?:and|or)\b|和|或者|或|及|与|與|と)(?: ?(?:or|and|maybe|perhaps|possibly|also|even)\b)* ?",
    _I,
)
_END = re.compile(r"[\s.,;:!?]*$")
_LED = re.compile(rf"{_NOUN}{_OPEN}([a-z])(?:[)\]\"']+[.:,;]?(?: -)? |[)\].:,;](?!\w[.]) ?| - )(.+)", _I)
_BESIDE = re.compile(r"(?:\b(?:or|and|not|but|maybe|perhaps|possibly|also|option|choice|answer|is|be) |(?=[(\[]))", _I)
_MARKED = re.compile(r"(?<!\w)([a-z])[.):] \S", _I)


def named_option(text: str, choices: tuple[str, ...]) -> str | None:
    """The letter, in lower case, of the one option that a text names; None where it names none or several.

    `choices` are the options' texts in order; without them there may be up to 26, known by letter alone.
    """
    options = _options(choices)
    cleaned = clean(text)
    lone = options.listed(cleaned.strip(), 0)
    if lone is not None and lone.by_letter and len(lone.letters) == 1 and _END.match(cleaned.strip(), lone.end):
        return next(iter(lone.letters))
    if (same := options.by_text.get(bare(text))) is not None:
        return same
    found = set(options.stated(cleaned)) or set(options.lines(cleaned))
    found |= set(options.turned_to(cleaned))
    return found.pop() if len(found) == 1 else None


def clean(text: str) -> str:
    """A text in one form without the marks of Markdown, LaTeX and tags, and without thoughts; lines stay."""
    text = one_form(text)
    for pattern, by in _CLEANED:
        text = pattern.sub(by, text)
    return text


class Named(NamedTuple):
    """Options in a text: letters, whether the first stands as a letter, and where they end."""

    letters: frozenset[str]
    by_letter: bool
    end: int


@lru_cache(maxsize=4096)
def _options(choices: tuple[str, ...]) -> _Options:
    return _Options(choices)


class _Options:
    """The options of a question, to be found in texts."""

    def __init__(self, choices: Sequence[str]) -> None:
        self.letters = "abcdefghijklmnopqrstuvwxyz"[: len(choices) or 26]
        self.texts = dict(zip(self.letters, choices, strict=False))
        self.by_text = {bare(choice): letter for letter, choice in reversed(self.texts.items())}

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str]]]:
        found = []
        for letter, choice in self.texts.items():
            if words := clean(choice).strip(" \n.,;:!?").split():
                text = r"\s+".join(map(re.escape, words))
                found.append((letter, re.compile(rf"(?:(?:the|an?) )?{_OPEN}{text}(?![^\W_]){_SHUT}", _I)))
        return found

    def stated(self, text: str) -> Iterator[str]:
        """The options that a text states to be the answer."""
        for lead in _STATES.finditer(text):
            if (found := self.listed(text, lead.end())) is not None:
                yield from found.letters
        for lead in _CLAUSE.finditer(text):
            if (found := self.listed(text, lead.end())) is not None and _IS_RIGHT.match(text, found.end):
                yield from found.letters

    def turned_to(self, text: str) -> Iterator[str]:
        """The options that a text comes to, as in ``no, B``."""
        for lead in _TURNS.finditer(text):
            if (found := self.listed(text, lead.end())) is not None and _CLAUSE_ENDS.match(text, found.end):
                yield from found.letters

    def lines(self, text: str) -> Iterator[str]:
        """The options that lines of a text consist of, or begin with as a list of options does."""
        for line in filter(None, map(str.strip, text.split("\n"))):
            whole = self.listed(line, 0)
            if whole is not None and _END.match(line, whole.end):
                yield from whole.letters
            elif (led := _LED.match(line)) and led[1].lower() in self.letters:
                yield led[1].lower()
                yield from self._beside(led[1].lower(), led[2])

    def _beside(self, letter: str, rest: str) -> Iterator[str]:
        """Other options by their letters, in what follows one in its line, unless that is its own text."""
        if self.by_text.get(bare(rest)) == letter:
            return
        yield from (mark[1].lower() for mark in _MARKED.finditer(rest) if mark[1].lower() in self.letters)
        for lead in _BESIDE.finditer(rest):
            if (found := self._letter(rest, lead.end())) is not None:
                yield from found.letters

    def listed(self, text: str, at: int) -> Named | None:
        """The options that stand at a place of a text, one or several in a row; None where none does."""
        first = found = self._one(text, at)
        letters = set[str]()
        while found is not None:
            letters |= found.letters
            end = found.end
            if found.by_letter and (gloss := self._text(text, _past(_GLOSS, text, end))) is not None:
                end = gloss.end
            found = self._one(text, also.end()) if (also := _ALSO.match(text, end)) else None
        return None if first is None else Named(frozenset(letters), first.by_letter, end)

    def _one(self, text: str, at: int) -> Named | None:
        """The option at a place, by letter or by text, whichever takes in more."""
        both = [found for found in (self._letter(text, at), self._text(text, at)) if found is not None]
        return max(both, key=lambda found: found.end, default=None)

    def _letter(self, text: str, at: int) -> Named | None:
        found = _LETTER.match(text, at)
        if found is None or (letter := found[1].lower()) not in self.letters:
            return None
        if letter in "ai" and not found[2] and not _AFTER_WORD_LIKE_LETTER.match(text, found.end()):
            return None
        return Named(frozenset(letter), True, found.end())

    def _text(self, text: str, at: int) -> Named | None:
        found = [(match.end(), letter) for letter, own in self._patterns if (match := own.match(text, at))]
        if not found:
            return None
        end, letter = max(found, key=lambda each: each[0])
        return Named(frozenset(letter), False, end)


def _past(pattern: re.Pattern[str], text: str, at: int) -> int:
    return at if (found := pattern.match(text, at)) is None else found.end()
