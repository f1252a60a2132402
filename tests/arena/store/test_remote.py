"""Stores at a URL: mirrored, sent again after a failure, and one paragraph where the other side does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from arena.errors import UsageError
from arena.store.local import MissingArtifact, Store, StoreError

KEY, OTHER_KEY = "a" * 64, "b" * 64


class Flaky(MemoryFileSystem):  # type: ignore[misc]
    """Files in memory behind a network that fails where `fail` says so, by the operation and the path."""

    protocol = "flaky"
    store: dict[str, Any] = {}  # noqa: RUF012 - as the class it is made from
    pseudo_dirs = [""]  # noqa: RUF012
    fail: Callable[[str, str], Exception | None] = staticmethod(lambda operation, path: None)
    sent: list[str] = []  # noqa: RUF012

    def _maybe(self, operation: str, path: str) -> None:
        if (error := Flaky.fail(operation, path)) is not None:
            raise error

    def cat_file(self, path: str, *arguments: Any, **named: Any) -> Any:
        self._maybe("read", path)
        return super().cat_file(path, *arguments, **named)

    def get_file(self, path: str, *arguments: Any, **named: Any) -> None:
        self._maybe("fetch", path)
        super().get_file(path, *arguments, **named)

    def put_file(self, here: str, path: str, *arguments: Any, **named: Any) -> None:
        self._maybe("send", path)
        Flaky.sent.append(path)
        super().put_file(here, path, *arguments, **named)

    def pipe_file(self, path: str, *arguments: Any, **named: Any) -> None:
        self._maybe("write", path)
        super().pipe_file(path, *arguments, **named)


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr(Flaky, "store", {})
    monkeypatch.setattr(Flaky, "pseudo_dirs", [""])
    monkeypatch.setattr(Flaky, "sent", [])
    monkeypatch.setattr(Flaky, "fail", staticmethod(lambda operation, path: None))
    yield f"flaky://shared-{time.time_ns()}"
    Flaky.clear_instance_cache()


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, operation: str = "", path: str = "") -> None:
    """From now on that operation, any by default, fails on paths with that in them."""
    monkeypatch.setattr(
        Flaky, "fail", staticmethod(lambda o, p: error if o.startswith(operation) and path in p else None)
    )


def heal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flaky, "fail", staticmethod(lambda operation, path: None))


def elsewhere(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str = "another machine") -> Store:
    """The store as another machine has it, with a mirror of its own."""
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return Store(url)


def fill(store: Store, key: str = KEY) -> Path:
    with store.claim(key), store.put(key, "data", {"size": 1}) as folder:
        (folder / "sub").mkdir()
        (folder / "a.txt").write_text("hello", encoding="utf-8")
        (folder / "sub" / "b.txt").write_text("b", encoding="utf-8")
    return store.require(key)


def test_an_artifact_is_fetched_once(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(Store(url))
    there = elsewhere(url, tmp_path, monkeypatch)
    assert there.manifest(KEY) is None and KEY in there
    path = there.get(KEY)
    assert path is not None and path.is_relative_to(tmp_path / "another machine") and there.verify(KEY)
    failing(monkeypatch, ConnectionError("the network is gone"))
    assert there.require(KEY) == path  # the second look does not ask the network


@pytest.mark.parametrize("broken", ["a.txt", "sub/b.txt", "manifest.json"])
def test_an_upload_that_failed_is_done_when_the_store_is_used_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    failing(monkeypatch, ConnectionError("the network is gone"), "send", broken)
    with pytest.raises(StoreError, match=r"^store flaky://.*the network is gone.*run again"):
        fill(Store(url))
    heal(monkeypatch)
    there = elsewhere(url, tmp_path, monkeypatch)
    assert KEY not in there and there.get(KEY) is None  # what is half there is not seen
    again = Store(url)
    assert again.get(KEY) is not None
    assert elsewhere(url, tmp_path, monkeypatch, "third").require(KEY).is_dir()
    count = len(Flaky.sent)
    assert Store(url).get(KEY) is not None and len(Flaky.sent) == count  # once is enough


def test_it_is_done_too_when_another_artifact_is_made(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, TimeoutError(), "send")
    with pytest.raises(StoreError, match="TimeoutError"):
        fill(Store(url))
    with pytest.raises(StoreError, match="TimeoutError"):
        fill(Store(url), OTHER_KEY)
    heal(monkeypatch)
    fill(Store(url), OTHER_KEY)
    there = elsewhere(url, tmp_path, monkeypatch)
    assert KEY in there and OTHER_KEY in there


def test_a_new_store_is_marked_on_both_sides(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, PermissionError("read only"), "write")
    with pytest.raises(StoreError, match="read only"):
        fill(Store(url))
    heal(monkeypatch)
    fill(Store(url))
    assert any(path.endswith("store.json") for path in Flaky.store)


class Odd(Exception):
    """What a package of a file system raises."""


@pytest.mark.parametrize(
    "error",
    [ConnectionError("refused\nTraceback"), PermissionError("403"), Odd("x" * 9999), ValueError(), KeyError("k")],
)
@pytest.mark.parametrize("operation", ["read", "fetch", "send"])
def test_a_place_that_does_not_answer_is_one_paragraph(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, operation: str
) -> None:
    fill(Store(url))
    there = elsewhere(url, tmp_path, monkeypatch)
    failing(monkeypatch, error, operation)
    with pytest.raises(StoreError) as caught:
        if operation == "send":
            fill(there, OTHER_KEY)
        elif operation == "fetch":
            there.get(KEY)
        else:
            Store(url)
    said = str(caught.value)
    assert said.startswith(f"store {url}: ") and type(error).__name__ in said and "--store" in said
    assert "\n" not in said and len(said) < 900


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("foo://x", "foo.*Give a folder or a URL"),
        ("flaky2://", "flaky2"),
    ],
)
def test_addresses_that_are_none(wrong: str, said: str) -> None:
    with pytest.raises(StoreError, match=said) as caught:
        Store(wrong)
    assert isinstance(caught.value, UsageError) and "\n" not in str(caught.value)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UsageError, match=r"^store s3://x: Install s3fs to access S3. Install that package"):
        Store("s3://x")


def _remote_file(name: str) -> str:
    return next(path for path in Flaky.store if path.endswith(f"{KEY}/{name}"))


@pytest.mark.parametrize("name", ["a.txt", "manifest.json"])
def test_a_copy_that_is_damaged_there_is_made_anew(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fill(Store(url))
    fs = fsspec.filesystem("flaky")
    content = fs.cat_file(_remote_file(name))
    place = content.index(b"ll" if name == "a.txt" else b'"size"') + 1
    fs.pipe_file(_remote_file(name), content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    there = elsewhere(url, tmp_path, monkeypatch)
    with pytest.raises(MissingArtifact):
        there.require(KEY)
    assert KEY not in there
    fill(there)
    assert elsewhere(url, tmp_path, monkeypatch, "third").require(KEY).is_dir()


def test_a_copy_that_is_damaged_here_is_fetched_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(url)
    path = fill(store)
    (path / "a.txt").write_text("hellp", encoding="utf-8")
    assert (store.require(KEY) / "a.txt").read_text(encoding="utf-8") == "hello"
    assert list((store.folder / "corrupt").iterdir())


def test_a_file_that_is_gone_there_is_made_anew(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(Store(url))
    fsspec.filesystem("flaky").rm(_remote_file("a.txt"))
    there = elsewhere(url, tmp_path, monkeypatch)
    assert KEY in there and there.get(KEY) is None and KEY not in there


def test_whether_it_can_be_used_is_asked_there_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(url)
    assert store.unusable(StoreError("a plugin may say so")) is None
    failing(monkeypatch, ConnectionError("the network is gone"))
    found = store.unusable(StoreError("it does not answer"))
    assert found is not None and "the network is gone" in str(found)
    assert store.unusable(ValueError("which is the plugin's own")) is None
