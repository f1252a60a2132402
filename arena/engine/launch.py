"""Fine-tuning that several processes share, for models too large for one GPU::

    accelerate launch --config_file arena/recipes/fsdp.yaml -m arena.engine.launch SUITE --store STORE
    arena run SUITE --store STORE

The first command computes the suite's missing ``fine-tuned`` stages, all processes together, and before them what
these read, in one process; the second finds them in the store and does the rest. No other run may work on the suite
meanwhile.

torch.distributed asks nobody for a key. On one machine what processes send each other stays on the loopback device; on
several they start only with ``--private-network``, by which you say that nobody else reaches that network.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import MutableMapping
from datetime import timedelta

from arena.engine.graph import Plan
from arena.engine.plan import plan
from arena.engine.stages import FineTune, Stage
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
    wanted = whole.closure(stage.name for stage in missing if stage.kind == FineTune.kind)
    return [stage for stage in missing if stage.name in wanted]


def keep_apart(environment: MutableMapping[str, str], private: bool) -> None:
    """Keep the processes of one machine to its loopback device, by the variables of gloo and NCCL.

    Raises `UsageError` where they are on several machines, unless their network is said to be `private`.
    """
    processes, here = (int(environment.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if processes > here and not private:
        raise UsageError(
            f"{here} of {processes} processes are on this machine, and what they send the others is neither encrypted "
            "nor asks for a key: use machines on a network that nobody else reaches, and say so with --private-network"
        )
    if processes <= here and sys.platform == "linux":
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            environment.setdefault(name, "lo")


def launch(suite: str, url: str | None) -> int:
    """Compute `shared_stages` of a suite; how many that were. Every process of ``accelerate launch`` calls this.

    Raises `ArenaError` where a stage fails, which ends the launch.
    """
    import torch
    from accelerate import PartialState

    from arena.engine.worker import follow_task, run_task

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    chosen, registry, store = find_suite(suite), Registry(), Store(url)
    validate(chosen, registry)
    whole = plan(chosen, registry, store)
    stages, artifacts = shared_stages(whole), whole.artifacts()
    state.wait_for_everyone()  # all have looked into the store before one changes it
    for stage in stages:
        task = artifacts.task(stage)
        if state.is_main_process:
            print(f"{stage.kind}: {stage.label}", file=sys.stderr, flush=True)  # noqa: T201
            result = run_task(task, store.url, isolated=stage.kind != FineTune.kind)  # that one is shared
            if result.status != "done":
                raise ArenaError(f"{stage.kind} {stage.label}: {result.message}\n{result.trace}".rstrip())
        elif stage.kind == FineTune.kind:
            follow_task(task, store.url)
        state.wait_for_everyone()
        artifacts.keys[stage.name] = task.key
    return len(stages)


def main() -> None:
    parser = argparse.ArgumentParser(prog="arena.engine.launch", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("suite", help="path of a suite file, or id of a shipped suite")
    parser.add_argument("--store", help="folder or fsspec URL of the artifacts; by default as in `arena run`")
    parser.add_argument(
        "--private-network", action="store_true", help="several machines may take part: nobody else reaches them"
    )
    given = parser.parse_args()
    try:
        keep_apart(os.environ, given.private_network)
        launch(given.suite, given.store)
    except ArenaError as error:
        sys.exit(f"error: {error}" if not isinstance(error, UsageError) else f"usage: {error}")


if __name__ == "__main__":
    main()
