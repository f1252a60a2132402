"""A split of a data set of the hub or of a local folder, as `datasets` reads it, and what is wrong where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arena.errors import ArenaError
from arena.paths import is_file, is_folder

BROKEN = (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError, AttributeError)
"""What `datasets` raises for files that are not what they should be."""


def open_split(source: str, subset: str, revision: str, split: str) -> Any:
    """The `datasets.Dataset` of a split.

    `source` is a hub id, a folder that ``save_to_disk`` wrote, or one whose files ``load_dataset`` reads. Code that
    comes with a data set is never run. Raises `ArenaError` with the remedy.
    """
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder = Path(source)
    try:
        with without_bars():
            if is_saved(folder):
                saved = load_saved(folder)
                if split not in saved:
                    raise ValueError(f"it has the splits {', '.join(saved)}")
                return saved[split]
            if is_folder(folder):
                return datasets.load_dataset(source, subset or None, split=split)
            return datasets.load_dataset(source, subset or None, split=split, revision=revision)
    except (*BROKEN, DatasetsError, HfHubHTTPError, HFValidationError) as error:
        raise ArenaError(_remedy(source, revision, split, error)) from error


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote the folder."""
    return is_file(folder / "dataset_dict.json") or is_file(folder / "state.json")


def load_saved(folder: Path) -> Any:
    """What ``save_to_disk`` wrote, as a `datasets.DatasetDict`.

    One split that was saved alone is the one of its name (``train`` where it has none), and not each that is asked for:
    training samples would be test samples too.
    """
    import datasets

    saved = datasets.load_from_disk(str(folder))
    if isinstance(saved, datasets.DatasetDict):
        return saved
    return datasets.DatasetDict({str(saved.split or "train"): saved})


def encoded_pictures(table: Any, column: str) -> Any:
    """The table with a column of pictures as ``{"bytes": ..., "path": ...}``, whether `datasets` wrote it or it holds
    plain bytes, as other tools write them. Raises `TypeError`, `ValueError` or `NotImplementedError` for any other: a
    text would be taken for a file's path."""
    import datasets

    kind = table.features[column]
    if isinstance(kind, datasets.Value):
        if kind.dtype not in ("binary", "large_binary"):
            raise TypeError("it holds plain values")
        table = table.cast_column(column, datasets.Value("binary"))
    return table.cast_column(column, datasets.Image(decode=False))


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the progress bars of `datasets`."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _remedy(source: str, revision: str, split: str, error: BaseException) -> str:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import errors

    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)

    def caused(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    name = f"data set {source!r}"
    if is_folder(source):
        return (
            f"{name}, split {split!r}, cannot be read: {error}. Give a folder that save_to_disk wrote or that "
            "datasets.load_dataset reads, and its own splits with training_split and evaluation_split"
        )
    if caused(errors.GatedRepoError) or "gated" in str(error):
        return f"{name} is gated: accept its terms on its hub page, then log in with `hf auth login` or set HF_TOKEN"
    if caused(errors.RevisionNotFoundError):
        return f"{name} has no revision {revision!r}: give a branch, tag or commit of it, such as main"
    if caused(errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError):
        return (
            f"{name} is neither a folder nor in the local cache, and the hub cannot be reached: fetch it with "
            f"`hf download --repo-type dataset {source}` on a machine that can, and give the folder"
        )
    if caused(errors.RepositoryNotFoundError, errors.HFValidationError, DatasetNotFoundError):
        return (
            f"{name} is neither a folder nor a data set on the hub that you may see: check the spelling; if it is "
            "private, log in with `hf auth login` or set HF_TOKEN"
        )
    return f"{name}, split {split!r}, cannot be read: {error}"
