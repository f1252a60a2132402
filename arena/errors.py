"""The arena's own errors: one paragraph that names the item and the remedy."""


class ArenaError(Exception):
    """Something went wrong that the message explains; the command line prints it without a traceback and exits 1."""


class UsageError(ArenaError):
    """The request itself is wrong (unknown plugin, bad suite, setting out of range); exits 2."""


class BudgetError(ArenaError):
    """A protection went beyond its budget, or changed what it must not change."""
