"""The arena's own errors: one paragraph that names the item and the remedy. What any error says, fit to be shown."""

from __future__ import annotations

from arena.text import shortened


class ArenaError(Exception):
    """Something went wrong that the message explains; the command line prints it without a traceback and exits 1."""


class UsageError(ArenaError):
    """The request itself is wrong (unknown plugin, bad suite, setting out of range); exits 2."""


class Refused(ArenaError):
    """A picture or a text that cannot be used: where it stands, the reason, and what would help."""

    def __init__(self, where: str, reason: str = "", remedy: str = "") -> None:  # defaults: it is pickled
        super().__init__(f"{where} {reason}: {remedy}" if reason else where)
        self.where, self.reason, self.remedy = where, reason, remedy


class BudgetError(ArenaError):
    """A protection went beyond its budget, or changed what it must not change."""


class ChangedSource(ArenaError):
    """A plugin's source is not what it was when the plan was made."""


class UnresolvedRevision(ArenaError):
    """The commit of a hub id's revision cannot be found out: the hub is out of reach, and nothing of it is cached."""

    def __init__(self, message: str, id: str = "", revision: str = "") -> None:  # defaults: it is pickled
        super().__init__(message)
        self.id, self.revision = id, revision


def describe_error(error: BaseException) -> str:
    """``ValueError: text``, without a type for the arena's own paragraphs, and the type's name alone where there is no
    text.

    Never raises, whatever the error's own code does. What comes back is never empty, can be encoded and printed, and
    has about 2,000 characters at most: of a longer text the beginning and the end.
    """
    name, own = _type_of(error), issubclass(type(error), ArenaError)
    try:
        said = "".join([str(error)]).strip()  # a text of a class of its own would be read by its own code
    except BaseException as broken:  # plugins raise anything, here too
        own, said = False, f"its message cannot be shown, __str__ raised {_type_of(broken)}"
    return shortened(said if own and said else f"{name}: {said}" if said else name)


def _type_of(error: BaseException) -> str:
    """The name of its type, past whatever its metaclass says."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name or "error"
