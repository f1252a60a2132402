"""What a process of its own costs a stage, with the server warm: the seconds of a call that does nothing, and of one
that loads a model."""

from __future__ import annotations

from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from arena.engine.describe import Plugins
from arena.engine.inside import THREADS, read_ended
from arena.engine.stages import FineTune
from arena.engine.stages.base import Asking
from arena.isolation.call import Ended, isolation, run
from arena.isolation.server import Call, Limits
from arena.plugins.registry import FIRST_PARTY, Registry
from arena.plugins.source import imported


def test_a_call_of_a_warm_server(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    call = Call("arena.isolation.server:nothing", (), tmp_path, preload=FineTune.preload, limits=Limits(60, 2**33))
    assert run(call).code == 0  # what it loads beforehand is loaded once
    ended = benchmark.pedantic(run, (call,), rounds=20, iterations=1)
    assert ended.code == 0
    benchmark.extra_info |= {"isolation": isolation(), "seconds, at most": 0.25}


def test_loading_a_model_in_a_call_of_a_warm_server(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    spec = Plugins(Registry()).model("tiny-llava", {}).spec
    module = Registry().get("model", spec.id).point.module
    asking, preload = Asking(spec), (*Asking.preload, module, *imported(module, FIRST_PARTY))
    folders = (tmp_path / f"call-{number}" for number in range(100))

    def load() -> Ended:
        home = next(folders)
        for name in ("given", "made"):
            (home / name).mkdir(parents=True)
        (home / "given" / "texts.json").write_text("[]", encoding="utf-8")
        arguments = asking, (home / "given", home / "made", None), home, THREADS
        call = Call("arena.engine.inside:compute", arguments, home, preload=preload, limits=Limits(60, 2**33))
        ended = run(call)
        assert (read_ended(home) or {}).get("status") == "done", ended.printed
        return ended

    load()  # what it loads beforehand is loaded once
    ended = benchmark.pedantic(load, rounds=20, iterations=1)
    benchmark.extra_info |= {"seconds of the function": round(ended.seconds, 3), "seconds, at most": 0.25}
