"""JUnit XML, which continuous integration shows: what `arena stress` and `arena check` write of what they tried."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from arena.text import printable

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One test case: `name` within `group`, how it ended, in how many seconds, a `message` of one line and what is
    printed under it."""

    group: str
    name: str
    status: Literal["passed", "failed", "error", "skipped"]
    message: str = ""
    text: str = ""
    seconds: float = 0.0


def junit(title: str, cases: Sequence[Case]) -> bytes:
    """The file's content: one ``testsuite`` called `title`, in the order of `cases`. Texts are made
    printable; what XML cannot hold even so becomes ``?``."""
    counts = {status: str(sum(case.status == status for case in cases)) for status in ("failed", "error", "skipped")}
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=_plain(title),
        tests=str(len(cases)),
        failures=counts["failed"],
        errors=counts["error"],
        skipped=counts["skipped"],
        time=f"{sum(case.seconds for case in cases):.3f}",
    )
    for case in cases:
        element = ElementTree.SubElement(
            suite, "testcase", classname=_plain(case.group), name=_plain(case.name), time=f"{case.seconds:.3f}"
        )
        if case.status == "passed":
            ElementTree.SubElement(element, "system-out").text = _plain(
                "\n".join(filter(None, (case.message, case.text)))
            )
        else:
            tag = {"failed": "failure", "error": "error", "skipped": "skipped"}[case.status]
            ElementTree.SubElement(element, tag, message=_plain(case.message)).text = _plain(case.text)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _plain(text: str) -> str:
    return _NOT_XML.sub("?", printable(text))
