"""What a process of its own costs a stage: the seconds of a call that does nothing, with the server warm."""

from __future__ import annotations

from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from arena.engine.stages import FineTune
from arena.isolation.call import isolation, run
from arena.isolation.server import Call, Limits


def test_a_call_of_a_warm_server(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    call = Call("arena.isolation.server:nothing", (), tmp_path, preload=FineTune.preload, limits=Limits(60, 2**33))
    assert run(call).code == 0  # what it loads beforehand is loaded once
    ended = benchmark.pedantic(run, (call,), rounds=20, iterations=1)
    assert ended.code == 0
    benchmark.extra_info |= {"isolation": isolation(), "seconds, at most": 0.25}
