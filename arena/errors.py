"""The arena's own errors: one paragraph that names the item and the remedy."""


class ArenaError(Exception):
    """Something went wrong that the message explains; the command line prints it without a traceback and exits 1."""


class UsageError(ArenaError):
    """The request itself is wrong (unknown plugin, bad suite, setting out of range); exits 2."""


class BudgetError(ArenaError):
    """A protection went beyond its budget, or changed what it must not change."""


class ChangedSource(ArenaError):
    """A plugin's source is not what it was when the plan was made."""


class UnresolvedRevision(ArenaError):
    """The commit of a hub id's revision cannot be found out: the hub is out of reach, and nothing of it is cached."""

    def __init__(self, message: str, id: str = "", revision: str = "") -> None:  # defaults: it is pickled
        super().__init__(message)
        self.id, self.revision = id, revision
