"""What a plugin says of itself is asked in a process of its own, and kept where it cannot have changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arena.errors import UsageError
from arena.paths import cache_directory
from arena.plugins import card
from arena.plugins.card import Card
from arena.plugins.registry import Entry, Registry


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the plugins that were asked, in this process for once."""
    ids: list[str] = []

    def ask(registry: Registry, kind: Any, id: str, config: dict[str, Any]) -> Card:
        ids.append(id)
        return Card.here(registry, kind, id, config)

    monkeypatch.setattr(card, "_asked", ask)
    return ids


def apart(kind: Any, id: str, **config: object) -> Card:
    """As a run that starts now has it."""
    return Card.apart(Registry(), kind, id, config)


def test_a_plugin_of_the_projects_own_is_asked_once(asked: list[str]) -> None:
    for config in ({}, {"quality": 30}):
        first = apart("attack", "jpeg", **config)
        assert apart("attack", "jpeg", **config) == first == Card.here(Registry(), "attack", "jpeg", config)
    assert asked == ["jpeg"] * 2
    for kind, id in (("recipe", "lora"), ("dataset", "glyphs"), ("defense", "em"), ("attack", "adv-train")):
        assert apart(kind, id) == apart(kind, id) == Card.here(Registry(), kind, id, {})
    assert asked[2:] == ["lora", "glyphs", "em", "adv-train"]


def test_it_is_asked_again_when_source_or_a_reader_changed(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    apart("attack", "jpeg")
    with monkeypatch.context() as patch:
        patch.setattr(Entry, "source_digest", lambda self: "another")
        apart("attack", "jpeg")
    with monkeypatch.context() as patch:
        patch.setattr(card, "version", lambda name: "another")
        apart("attack", "jpeg")
    assert asked == ["jpeg"] * 3


def test_what_follows_from_files_or_from_others_code_is_asked_every_time(asked: list[str], toys: Path) -> None:
    for kind, id in (("model", "tiny-llava"), ("attack", "paraphrase"), ("attack", "toy-invert")):
        assert apart(kind, id) == apart(kind, id)
        assert asked == [id, id]
        asked.clear()


@pytest.mark.parametrize("content", ["{", "[]", '{"state": 1}', None])
def test_a_damaged_file_is_not_believed(content: str | None, asked: list[str]) -> None:
    first = apart("attack", "jpeg")
    (file,) = (cache_directory() / "cards").iterdir()
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"version": "1"', '"version": 1') if content is None else content, encoding="utf-8")
    assert apart("attack", "jpeg") == first and asked == ["jpeg"] * 2
    assert file.read_text(encoding="utf-8") == text


def test_a_cache_that_cannot_be_written_costs_time_alone(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(card, "cache_directory", lambda: tmp_path / "file")
    assert apart("attack", "jpeg") == apart("attack", "jpeg") and len(asked) == 2


def test_a_setting_that_is_refused_is_refused_every_time(asked: list[str]) -> None:
    for _ in range(2):
        with pytest.raises(UsageError, match="quality = 0 is refused"):
            apart("attack", "jpeg", quality=0)
    assert len(asked) == 2
