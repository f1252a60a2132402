"""What fuzzed inputs are drawn from: values that break things, data changed here and there, bytes changed anywhere."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

TEXTS = (
    *(
        "",
        " ",
        "\n",
        "\0",
        "\x1b[31mred\x1b[0m",
        "[/red]",
        "[bold]",
        "\u202eevil",
        "\ud800",
        "\udcff",
        "\ufeff",
        "é" * 200,
    ),
    *("a" * 300, "x" * 100_000, "../x", "/etc/passwd", "/dev/zero", "C:\\x", "\\\\server\\x", "~nobody/x", ".", ".."),
    *("null", "true", "NaN", "-0", "1e999", "0x1F", "1_000", "0o7", "0b1", "190:20:30", "2001-01-01", "2001-13-45"),
    *(
        "9" * 5000,
        "1." * 50,
        "=HYPERLINK(1)",
        "@SUM(1)",
        "{{7*7}}",
        "<script>",
        "%s%n",
        "+",
        "none+none",
        "jpeg+",
        "target",
    ),
)
NUMBERS = (
    *(0, -1, 1, 2, 8, 255, 256, 65_536, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1),
    *(10**30, 10**400, -0.0, 0.1, 1e-300, 1e300, float("inf"), float("-inf"), float("nan")),
)
SNIPPETS = (
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b"\t", b"\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80"),
    *(
        b'"',
        b"'",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b": ",
        b",",
        b"- ",
        b"? ",
        b"#",
        b"&a ",
        b"*a",
        b"<<: *a\n",
        b"|\n",
        b">",
    ),
    *(b"!!timestamp 1", b"!!int x", b"!!float y", b"!!binary =", b"!!set {a}", b"!!python/object/apply:os.system [x]"),
    *(
        b"!!omap [a: 1]",
        b"!!bool z",
        b"!!null q",
        b"!<tag:yaml.org,2002:int> x",
        b"!x ",
        b"--- \n",
        b"...\n",
        b"%YAML 9.9\n",
    ),
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"1" * 5000,
        b"[" * 3000,
        b"{" * 3000,
        b'{"a":' * 3000,
        b"\\ud800",
        b"\\u0000",
        b"\\",
    ),
    *(b"0x", b"1:30", b"null", b"=1+1", b'""', b'"' * 7, b"a" * 200_000),
)

texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=20))
numbers = st.one_of(st.sampled_from(NUMBERS), st.integers(-10, 300), st.floats())
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)


def values(keys: Sequence[str] = ()) -> st.SearchStrategy[Any]:
    """Any plain data, with `keys` among its names."""
    names = st.one_of(st.sampled_from(keys), texts) if keys else texts
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
        max_leaves=8,
    )


def altered(bases: Sequence[Any], keys: Sequence[str]) -> st.SearchStrategy[Any]:
    """One of some plain data, changed in a few places: replaced, deleted, renamed, doubled, wrapped, deepened."""
    some = values(keys)

    @st.composite
    def draw_altered(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
        data = copy.deepcopy(bases[draw(st.integers(0, len(bases) - 1))])
        for _ in range(draw(st.sampled_from((1, 1, 2, 3)))):
            holders = list(_holders(data))
            if not holders:
                return draw(some)
            holder = holders[draw(st.integers(0, len(holders) - 1))]
            names = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            at = names[draw(st.integers(0, len(names) - 1))]
            how = draw(st.integers(0, 9))
            if how <= 4:
                holder[at] = draw(leaves if how <= 2 else some)
            elif how == 5:
                del holder[at]
            elif how == 6 and isinstance(holder, dict):
                holder[draw(st.sampled_from(keys)) if keys and draw(st.booleans()) else draw(texts)] = holder.pop(at)
            elif how == 7:
                holder[at] = [holder[at]] if draw(st.booleans()) else {draw(texts): holder[at]}
            elif how == 8:
                deep: Any = holder[at]
                for _ in range(draw(st.sampled_from((3, 30, 100, 300)))):
                    deep = [deep]
                holder[at] = deep
            elif isinstance(holder, list):
                holder.extend(copy.deepcopy(holder[:5]) * draw(st.integers(1, 4)))
            else:
                holder[draw(texts)] = draw(some)
        return data

    return draw_altered()


def _holders(data: Any) -> Any:
    """Every list and mapping with something in it, also `data` itself."""
    waiting = [data]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict | list) and found:
            yield found
            waiting += found.values() if isinstance(found, dict) else found


_EDIT = st.tuples(st.integers(0, 8), st.integers(0, 2**20), st.integers(0, 63), st.integers(0, 2**12))


def edited(bases: Sequence[bytes], most: int = 6) -> st.SearchStrategy[bytes]:
    """Some bytes with a few edits: bits flipped, bytes set, spans cut, doubled, moved, zeroed, snippets put in."""

    def apply(index: int, edits: Sequence[tuple[int, int, int, int]]) -> bytes:
        content = bytearray(bases[index])
        for edit in edits:
            _edit(content, *edit)
        return bytes(content)

    return st.builds(apply, st.integers(0, len(bases) - 1), st.lists(_EDIT, min_size=1, max_size=most))


def _edit(content: bytearray, how: int, where: int, size: int, what: int) -> None:
    at = where % (len(content) + 1)
    end = at + 1 + size
    if how == 0 and at < len(content):
        content[at] ^= 1 << what % 8
    elif how == 1 and at < len(content):
        content[at] = what % 256
    elif how == 2:
        del content[at:end]
    elif how == 3:
        content[at:at] = content[at:end] * (1 + what % 4)
    elif how == 4:
        content[at:at] = SNIPPETS[what % len(SNIPPETS)]
    elif how == 5:
        content[at:end] = SNIPPETS[what % len(SNIPPETS)]
    elif how == 6:
        content[at:end] = bytes(len(content[at:end]))
    elif how == 7:
        del content[at:]
    else:
        cut = bytes(content[at:end])
        del content[at:end]
        content[what % (len(content) + 1) : 0] = cut


def json_bytes(data: Any) -> bytes:
    """JSON as Python writes it, with NaN and halves of surrogate pairs."""
    return json.dumps(data, ensure_ascii=True).encode()
