"""Fine-tuning that several processes share, for models too large for one GPU::

    accelerate launch --config_file arena/recipes/fsdp.yaml -m arena.engine.launch SUITE --store STORE
    arena run SUITE --store STORE

The first command computes the suite's missing ``fine-tuned`` stages, all processes together, and before them what
these read, in one process; the second finds them in the store and does the rest. No other run may work on the suite
meanwhile.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta

from arena.engine.graph import Plan, Stage
from arena.engine.plan import plan
from arena.errors import ArenaError, UsageError
from arena.plugins.registry import Registry
from arena.store.local import Store
from arena.suites.shipped import find_suite
from arena.suites.validation import validate

_PATIENCE = timedelta(days=7)
"""How long a process waits for another, which may craft a release meanwhile."""


def shared_stages(whole: Plan) -> list[Stage]:
    """The missing ``fine-tuned`` stages and what they read, in an order in which they can be computed."""
    missing = whole.missing()
    wanted = {stage.key for stage in missing if stage.kind == "fine-tuned"}
    for stage in reversed(missing):
        if stage.key in wanted:
            wanted.update(stage.inputs)
    return [stage for stage in missing if stage.key in wanted]


def launch(suite: str, url: str | None) -> int:
    """Compute `shared_stages` of a suite; how many that were. Every process of ``accelerate launch`` calls this.

    Raises `ArenaError` where a stage fails, which ends the launch.
    """
    import torch
    from accelerate import PartialState

    from arena.engine.worker import follow_stage, run_stage

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    chosen, registry, store = find_suite(suite), Registry(), Store(url)
    validate(chosen, registry)
    stages = shared_stages(plan(chosen, registry, store))
    state.wait_for_everyone()  # all have looked into the store before one changes it
    for stage in stages:
        if state.is_main_process:
            print(f"{stage.kind}: {stage.label}", file=sys.stderr, flush=True)  # noqa: T201
            result = run_stage(stage.key, stage.document, store.url, None)
            if result.status != "done":
                raise ArenaError(f"{stage.kind} {stage.label}: {result.message}\n{result.trace}".rstrip())
        elif stage.kind == "fine-tuned":
            follow_stage(stage.key, stage.document, store.url)
        state.wait_for_everyone()
    return len(stages)


def main() -> None:
    parser = argparse.ArgumentParser(prog="arena.engine.launch", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("suite", help="path of a suite file, or id of a shipped suite")
    parser.add_argument("--store", help="folder or fsspec URL of the artifacts; by default as in `arena run`")
    given = parser.parse_args()
    try:
        launch(given.suite, given.store)
    except ArenaError as error:
        sys.exit(f"error: {error}" if not isinstance(error, UsageError) else f"usage: {error}")


if __name__ == "__main__":
    main()
