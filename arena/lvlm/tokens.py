"""Texts to token ids. What a family writes may hold control tokens, such as those of pictures and turns; what a sample
says is text, whatever it looks like: its ``<image>`` or ``<|im_end|>`` is spelt out in plain tokens.

A tokenizer looks for its control tokens in the whole text. So where it finds one in a sample's words, the text is
tokenised once more, by the same tokenizer with its control tokens under names that no text has. Its rules for merges,
white space and what stands beside a control token stay what they are, and all other texts are tokenised as by
transformers' processors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer

from arena.errors import ArenaError
from arena.lvlm.batch import Encoding, Role

_MARK, _NUMBERS = "\ufdd0", 0xF0000
"""New names of control tokens are a noncharacter, which Unicode keeps out of all interchange of text, and one of the
private characters from here on."""

Spans = Sequence[tuple[int, int]]
"""The characters that each token stands for."""


class Part(NamedTuple):
    """A piece of a text, the role of the tokens that end in it, and whether a sample says it."""

    text: str
    role: Role
    said: bool = False


def tokenize(tokenizer: Any, rows: Sequence[Sequence[Part]], special: bool) -> list[Encoding]:
    """Ids and roles of texts that are given in parts, by a fast tokenizer.

    A token belongs to the part that holds its last character, so that the space before a word goes with the word; one
    that stands for no character is template. `special` has the tokenizer put its own tokens around each text. Control
    tokens are those that the tokenizer calls special, and others that the parts which no sample says are written with.
    Raises `ArenaError` where the words of a sample cannot be told from one.
    """
    if not rows:
        return []
    control = _Control.of(tokenizer)
    texts = ["".join(part.text for part in parts) for parts in rows]
    encoded = tokenizer(texts, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    found = []
    for parts, ids, spans in zip(rows, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        said, written = _apart(parts, ids, spans, control.names)
        controls = control.special | {id for id in written if not control.names[id].isspace()}
        if controls.isdisjoint(said):
            found.append(_encoding(parts, ids, spans))
        else:
            found.append(control.spelt_out(parts, special, controls))
    return found


def plain_ids(tokenizer: Any, texts: Sequence[str], special: bool) -> list[list[int]]:
    """Ids of texts that samples say; `special` as in `tokenize`. The tokenizer may be a slow one."""
    if not tokenizer.is_fast:
        return [list(tokenizer(t, add_special_tokens=special, split_special_tokens=True)["input_ids"]) for t in texts]
    return [row.ids for row in tokenize(tokenizer, [[Part(text, Role.TEXT, said=True)] for text in texts], special)]


def _encoding(parts: Sequence[Part], ids: Sequence[int], spans: Spans) -> Encoding:
    role_of = [int(part.role) for part in parts for _ in part.text]
    return Encoding(list(ids), [role_of[end - 1] if end > begin else int(Role.TEMPLATE) for begin, end in spans])


def _apart(
    parts: Sequence[Part], ids: Sequence[int], spans: Spans, among: Collection[int]
) -> tuple[set[int], set[int]]:
    """The tokens `among` some that take in a character of what a sample says, and those that do not."""
    at, words = 0, []
    for part in parts:
        if part.said:
            words.append((at, at + len(part.text)))
        at += len(part.text)
    said, written = set[int](), set[int]()
    for id, (begin, end) in zip(ids, spans, strict=True):
        if id in among:
            (said if any(begin < stop and start < end for start, stop in words) else written).add(id)
    return said, written


class _Control:
    """A tokenizer's added tokens by id, and which of them it calls special."""

    _known: ClassVar[WeakKeyDictionary[Any, _Control]] = WeakKeyDictionary()

    def __init__(self, tokenizer: Any) -> None:
        added = tokenizer.added_tokens_decoder
        self.names: Mapping[int, str] = {id: str(token) for id, token in added.items()}
        self.special = frozenset(id for id, token in added.items() if token.special)
        self._content = tokenizer.backend_tokenizer.to_str
        self._unknown = {tokenizer.unk_token_id}
        self._renamed: dict[frozenset[int], _Renamed] = {}

    @classmethod
    def of(cls, tokenizer: Any) -> _Control:
        """Those of a tokenizer, looked up once."""
        if tokenizer not in cls._known:
            cls._known[tokenizer] = cls(tokenizer)
        return cls._known[tokenizer]

    def spelt_out(self, parts: Sequence[Part], special: bool, controls: frozenset[int]) -> Encoding:
        """As `tokenize`, one text, where no token of `controls` is found in the words of a sample."""
        if controls not in self._renamed:
            self._renamed[controls] = _Renamed(json.loads(self._content()), {id: self.names[id] for id in controls})
        named, ids, spans = self._renamed[controls].encode(parts, special)
        if left := _apart(named, ids, spans, controls - self._unknown)[0]:
            raise ArenaError(
                f"a text holds {self.names[min(left)]!r}, which the model's tokenizer has both as a control token and "
                "as a plain word: leave the sample out, or change its text"
            )
        return _encoding(named, ids, spans)


class _Renamed:
    """A tokenizer, by the `content` of its file, with control tokens under names that no text has."""

    def __init__(self, content: dict[str, Any], controls: Mapping[int, str]) -> None:
        self._names = {name: _MARK + chr(_NUMBERS + id) for id, name in controls.items()}
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._ids: dict[str, int] = {}
        """Of added tokens, which are given new ones when a tokenizer is read."""
        for token in content["added_tokens"]:
            if token["id"] in controls:
                token["content"] = self._names[token["content"]]
            self._ids[token["content"]] = token["id"]
        pieces = content["model"].get("vocab")
        if isinstance(pieces, list):  # with scores, by which a piece is found without merges
            for id in controls.keys() - {content["model"].get("unk_id")}:
                if id < len(pieces):
                    pieces[id][0] = self._names.get(pieces[id][0], pieces[id][0])
        self._core = Tokenizer.from_str(json.dumps(content))
        self._core.no_padding()
        self._core.no_truncation()

    def encode(self, parts: Sequence[Part], special: bool) -> tuple[list[Part], list[int], Spans]:
        """The parts as they are tokenised, ids, and spans in the text of these parts."""
        named = [part._replace(text=self._said(part.text) if part.said else self._written(part.text)) for part in parts]
        encoded = self._core.encode("".join(part.text for part in named), add_special_tokens=special)
        ids = [self._ids.get(token, id) for token, id in zip(encoded.tokens, encoded.ids, strict=True)]
        return named, ids, encoded.offsets

    def _said(self, text: str) -> str:
        return text.replace(_MARK, "\ufffd")

    def _written(self, text: str) -> str:
        return self._pattern.sub(lambda found: self._names[found[0]], text)
