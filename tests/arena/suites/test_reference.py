"""The generated reference pages say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena.plugins.registry import BASES, Registry
from arena.suites.reference import OURS, pages, plugin_page, suite_page
from arena.suites.schema import Suite

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("page", ["arena/SUITES.md", "arena/CATALOGUE.md"])
def test_committed_pages_are_what_would_be_written(page: str) -> None:
    wanted = pages(Registry())[Path(page)]
    assert (ROOT / page).read_text(encoding="utf-8") == wanted, "the page is out of date: run `make docs` and commit it"


def test_every_field_of_a_suite_is_there_and_described() -> None:
    page = suite_page()
    for name, field in Suite.model_fields.items():
        assert f"| `{name}` |" in page and field.description, name


def test_every_plugin_of_ours_is_there() -> None:
    registry = Registry()
    page = plugin_page(registry)
    for kind in BASES:
        for entry in registry.entries(kind):
            assert (f"| `{entry.id}` |" in page) == (entry.origin.package == OURS), entry.id
