"""`arena.engine.launch` in shards without a GPU: accelerate itself offers FSDP on accelerators only."""

from __future__ import annotations

from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from arena.engine.launch import main

_init = AcceleratorState.__init__


def _in_shards(self: Any, *args: Any, fsdp_plugin: Any = None, **options: Any) -> None:
    _init(self, *args, fsdp_plugin=fsdp_plugin, **options)
    if self.distributed_type == DistributedType.MULTI_CPU and fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin


AcceleratorState.__init__ = _in_shards
main()
