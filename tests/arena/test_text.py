"""Text from elsewhere: what would steer is shown as an escape, what is long is cut, and every error can be said."""

from __future__ import annotations

import pytest

from arena.errors import ArenaError, UsageError, describe_error
from arena.text import printable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("übung 猫 مرحبا\tx\ny", "übung 猫 مرحبا\tx\ny"),
        ("\U0001f469\u200d\U0001f680 \u00a0", "\U0001f469\u200d\U0001f680 \u00a0"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]8;;http://x\x07a\x9b", "\\x1b]8;;http://x\\x07a\\x9b"),
        ("a\u202eb\u2066c\u200fd\u061ce", "a\\u202eb\\u2066c\\u200fd\\u061ce"),
        ("a\ufeffb\u200bc\u2028d\U000e0041", "a\\ufeffb\\u200bc\\u2028d\\U000e0041"),
        ("over\rwritten\r\nnext", "over\\rwritten\nnext"),
        ("half \udc80 \ud83d", "half \\udc80 \\ud83d"),
    ],
)
def test_what_steers_or_hides_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    printable(text).encode()


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    assert shortened("short", 10) == "short"
    text = "the item is wrong " + "x" * 50_000_000 + " the remedy"
    said = shortened(text)
    assert said.startswith("the item is wrong x") and said.endswith("x the remedy") and len(said) < 2100
    assert f"characters left out) … {'x' * 100}" in said and f"of {len(text):,} characters" in said
    escapes = shortened("\u202e" * 1900, 2000)
    assert len(escapes) < 2100 and set(escapes.split(" … ")[0].split("\\")) == {"", "u202e"}


class Evil(Exception):
    def __init__(self, message: object) -> None:
        self.message = message

    def __str__(self) -> str:
        if isinstance(self.message, BaseException):
            raise self.message
        return self.message  # type: ignore[return-value]


class Shouting(str):
    def strip(self, *given: object) -> str:
        raise RuntimeError

    __len__ = __iter__ = strip  # type: ignore[assignment]


class Named(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError


class Nameless(Exception, metaclass=Named):
    pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("wrong"), "ValueError: wrong"),
        (ArenaError("one paragraph"), "one paragraph"),
        (UsageError("[/red] \x1b[31m"), "[/red] \\x1b[31m"),
        (ArenaError(""), "ArenaError"),
        (ValueError(" \n"), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit: 3"),
        (ValueError("half \ud800"), "ValueError: half \\ud800"),
        (Evil(SystemExit(0)), "Evil: its message cannot be shown, __str__ raised SystemExit"),
        (Evil(KeyboardInterrupt()), "Evil: its message cannot be shown, __str__ raised KeyboardInterrupt"),
        (Evil(7), "Evil: its message cannot be shown, __str__ raised TypeError"),
        (Evil(Shouting("quietly")), "Evil: quietly"),
        (Nameless("x"), "Nameless: x"),
    ],
)
def test_every_error_can_be_said(error: BaseException, said: str) -> None:
    assert describe_error(error) == said


def test_a_huge_error_is_cut() -> None:
    said = describe_error(ValueError("x" * 50_000_000))
    assert said.startswith("ValueError: xxx") and "50,000,012 characters left out" in said and len(said) < 2100
