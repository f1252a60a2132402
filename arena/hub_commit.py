"""Which commit of the Hugging Face hub a branch or tag stands for, so that what was used can be named for good.

The hub is asked; where it cannot be reached, the local cache knows the commit of what was fetched. Importing this loads
neither torch nor the hub's client.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from pathlib import Path
from typing import Literal

from arena.errors import ArenaError, UnresolvedRevision

Kind = Literal["model", "dataset"]

TIMEOUT = 3.0
"""Seconds that the hub has to answer. It is asked no more in this process once it did not."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


class _Reach:
    """Why the hub was found out of reach in this process; empty as long as it was not."""

    failure = ""


def resolve(id: str, revision: str = "main", kind: Kind = "model") -> str:
    """The commit, 40 hexadecimal digits, of `revision` (branch, tag or commit) of a repository `id` of the hub.

    A commit is itself, whether or not it exists. The answer of the hub is kept for as long as the process lives. Where
    the hub cannot be reached (or ``HF_HUB_OFFLINE`` is set) it is the commit that the local cache holds, with a warning
    on the logger ``arena``.

    Raises `UnresolvedRevision`, an `ArenaError`, where the cache does not hold it either, and a plain `ArenaError`
    where the hub says that there is no such repository or revision, or that it may not be seen.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils._validators import validate_repo_id

    if _COMMIT.fullmatch(revision):
        return revision
    try:
        validate_repo_id(id)
        commit = None if _Reach.failure else _asked(id, revision, kind)
        why = _Reach.failure
    except Exception as error:  # whatever the hub's client makes of a network that is not there, or a hub that is down
        if (text := refusal(error, id, revision, kind)) is not None:
            raise ArenaError(text) from error
        commit, why = None, "HF_HUB_OFFLINE" if isinstance(error, errors.OfflineModeIsEnabled) else type(error).__name__
        if not isinstance(error, errors.OfflineModeIsEnabled | errors.HfHubHTTPError):
            _Reach.failure = why
    return commit or _cached(id, revision, kind, why)


def refusal(error: BaseException, id: str, revision: str, kind: Kind = "model") -> str | None:
    """What to tell of an error, or of one behind it, by which the hub refuses a repository or revision, with the
    remedy; None where it does not say so."""
    from huggingface_hub import errors

    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)

    def caused(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if caused(errors.GatedRepoError):
        return (
            f"{kind} {id!r} is gated: accept its terms on its hub page, then log in with `hf auth login` or set "
            "HF_TOKEN"
        )
    if caused(errors.RevisionNotFoundError):
        return f"{kind} {id!r} has no revision {revision!r}: give a branch, tag or commit of it, such as main"
    if caused(errors.RepositoryNotFoundError, errors.HFValidationError):
        return (
            f"{kind} {id!r} is neither a folder nor a {kind} on the hub that you may see: check the spelling; if it is "
            "private, log in with `hf auth login` or set HF_TOKEN"
        )
    return None


def fetching(id: str, revision: str, kind: Kind = "model") -> str:
    """The command that fetches a repository into the local cache."""
    options = (
        "" if kind == "model" else " --repo-type dataset",
        "" if revision == "main" else f" --revision {revision}",
    )
    return f"`hf download {id}{''.join(options)}`"


@cache
def _asked(id: str, revision: str, kind: Kind) -> str | None:
    from huggingface_hub import HfApi

    api = HfApi()
    about = api.model_info if kind == "model" else api.dataset_info
    return about(id, revision=revision, timeout=TIMEOUT, expand=["sha"]).sha


def _cached(id: str, revision: str, kind: Kind, why: str) -> str:
    """The commit that the local cache holds for a revision."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{id.replace('/', '--')}"
    reference, snapshots = folder / "refs" / revision, folder / "snapshots"
    commits = [reference.read_text(encoding="utf-8").strip()] if reference.is_file() else []
    if not commits and revision == "main" and snapshots.is_dir():  # fetched by commit, which leaves no reference
        commits = [path.name for path in snapshots.iterdir()]
    if len(commits) != 1 or not _COMMIT.fullmatch(commits[0]):
        raise UnresolvedRevision(
            f"{kind} {id!r}, revision {revision!r}, is neither a folder nor in the local cache, and the hub cannot be "
            f"reached ({why}): fetch it with {fetching(id, revision, kind)} on a machine that can, or give the "
            "commit, 40 digits, as revision",
            id,
            revision,
        )
    _say(id, revision, kind, why, commits[0])
    return commits[0]


@cache
def _say(id: str, revision: str, kind: Kind, why: str, commit: str) -> None:
    """A warning, once for each."""
    logging.getLogger("arena").warning(
        "%s %r: revision %r is taken to be the cached commit %s: the hub cannot be reached (%s)",
        kind,
        id,
        revision,
        commit,
        why,
    )
