"""Which commit of the hub a revision stands for: the hub's own word, the cache's, or a refusal with its remedy."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, errors

from arena import hub_commit
from arena.errors import ArenaError, UnresolvedRevision
from arena.hub_commit import resolve

A, B = "a1" * 20, "b2" * 20


class Hub:
    """A hub that knows one model and one dataset, or cannot be reached; and the cache of this machine."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.asked, self.down = cache, 0, False

    def info(self, api: HfApi, id: str, revision: str, timeout: float, expand: list[str]) -> Any:
        self.asked += 1
        assert timeout <= 5
        if self.down:
            raise ConnectionError("no route")
        if id != "who/what":
            raise errors.RepositoryNotFoundError("no", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]
        if revision == "busy":
            raise errors.HfHubHTTPError("503", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]
        if revision != "main":
            raise errors.RevisionNotFoundError("no", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]
        return SimpleNamespace(sha=A)

    def put(self, folder: str, revision: str | None, commit: str) -> None:
        (self.cache / folder / "snapshots" / commit).mkdir(parents=True)
        if revision is not None:
            reference = self.cache / folder / "refs" / revision
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit, encoding="utf-8")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub(tmp_path / "hub")
    for name in ("model_info", "dataset_info"):
        monkeypatch.setattr(HfApi, name, lambda *args, **options: hub.info(*args, **options))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub.cache))
    monkeypatch.setattr(hub_commit._Reach, "failure", "")
    yield hub
    for cached in (hub_commit._asked, hub_commit._say):
        cached.cache_clear()


def test_the_hub_is_asked_once(hub: Hub) -> None:
    hub.put("models--who--what", "main", B)
    assert [resolve("who/what") for _ in range(3)] == [A] * 3 and hub.asked == 1
    assert resolve("who/what", kind="dataset") == A and hub.asked == 2


def test_a_commit_is_itself(hub: Hub) -> None:
    assert resolve("who/else", B) == B and hub.asked == 0


def test_out_of_reach_the_cache_knows_and_it_is_said_once(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    hub.down = True
    hub.put("models--who--what", "refs/pr/1", A)
    hub.put("datasets--who--what", "main", B)
    with caplog.at_level(logging.WARNING, "arena"):
        found = [
            resolve("who/what", "refs/pr/1"),
            resolve("who/what", kind="dataset"),
            resolve("who/what", "refs/pr/1"),
        ]
    assert found == [A, B, A]
    assert hub.asked == 1, "a hub that did not answer is asked no more"
    assert [A in r.getMessage() for r in caplog.records] == [True, False]
    assert "cannot be reached (ConnectionError)" in caplog.text


def test_what_was_fetched_by_commit_has_no_reference(hub: Hub) -> None:
    hub.down = True
    hub.put("datasets--who--what", None, A)
    assert resolve("who/what", kind="dataset") == A
    hub.put("datasets--who--what", None, B)
    with pytest.raises(UnresolvedRevision):
        resolve("who/what", kind="dataset")


def test_neither_is_to_be_had(hub: Hub) -> None:
    hub.down = True
    with pytest.raises(UnresolvedRevision) as caught:
        resolve("who/what", "v2", "dataset")
    text = str(caught.value)
    assert (
        "dataset 'who/what', revision 'v2'" in text
        and "`hf download who/what --repo-type dataset --revision v2`" in text
    )
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (again.id, again.revision, str(again)) == ("who/what", "v2", text)


def test_offline_mode_asks_nobody(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub.cache))
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("the network was asked"))
    monkeypatch.setattr(hub_commit._Reach, "failure", "")
    with pytest.raises(UnresolvedRevision, match="HF_HUB_OFFLINE"):
        resolve("who/never-asked")
    assert not hub_commit._Reach.failure


def test_a_refusal_is_no_network_that_is_not_there(hub: Hub) -> None:
    for id, revision, said in (
        ("who/else", "main", "check the spelling"),
        ("who/what", "v9", "has no revision 'v9'"),
        ("no//such///id", "main", "check the spelling"),
    ):
        with pytest.raises(ArenaError, match=said) as caught:
            resolve(id, revision)
        assert not isinstance(caught.value, UnresolvedRevision)
    with pytest.raises(UnresolvedRevision):
        resolve("who/what", "busy")
    assert resolve("who/what") == A, "a hub that answers is asked again"
