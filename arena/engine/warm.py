"""What every process that loads a model would work out anew: imported by the server that such processes are forked
from, see `arena.engine.stages.base.Stage.preload`."""

from __future__ import annotations

from contextlib import suppress

import arena.lvlm.loading  # noqa: F401

with suppress(ImportError):  # a version of transformers that has no such table
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("")  # the table is made at the first question: a thousand patterns
