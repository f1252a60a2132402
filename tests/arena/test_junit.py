"""JUnit XML is well-formed whatever names and texts hold."""

from __future__ import annotations

from xml.etree import ElementTree

from arena.junit import Case, junit


def test_counts_and_texts_are_those_of_the_cases() -> None:
    cases = [
        Case("g", "holds", "passed", "0.41 >= 0.3", seconds=1.5),
        Case("g", "does not", "failed", "0.1 < 0.3", "the interval\nis wide"),
        Case("g", "broke", "error", "no record"),
        Case("g", "left out", "skipped", "not asked"),
    ]
    suite = ElementTree.fromstring(junit("title", cases))[0]
    counts = [suite.get(name) for name in ("name", "tests", "failures", "errors", "skipped", "time")]
    assert counts == ["title", "4", "1", "1", "1", "1.500"]
    by_name = {case.get("name"): case for case in suite}
    assert by_name["holds"].findtext("system-out") == "0.41 >= 0.3"
    failure = by_name["does not"].find("failure")
    assert failure is not None
    assert (failure.get("message"), failure.text) == ("0.1 < 0.3", "the interval\nis wide")
    assert [by_name[name].find(tag) is not None for name, tag in (("broke", "error"), ("left out", "skipped"))] == [
        True
    ] * 2


def test_what_xml_cannot_hold_is_replaced() -> None:
    text = "\x00\x1b[31m <&> \ud800 \ufffe é 🙂"
    case = ElementTree.fromstring(junit(text, [Case(text, text, "failed", text, text)]))[0][0]
    failure = case.find("failure")
    assert failure is not None
    assert case.get("name") == failure.text == "\\x00\\x1b[31m <&> \\ud800 ? é 🙂"
