"""A board from 10,000 records: under 5 seconds, linear in their number; from 100,000 in at most 2 GiB of memory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import synthetic

from arena.plugins.identity import identity
from arena.records.files import read_records
from arena.records.schema import AttackRef, Outcome, Record
from leaderboards.tables.board import build, write

ITEMS = 300
ATTACKS = ("none", "jpeg", "grayscale", "blur", "bit-depth", "punct", "case", "mix", "onion", "autopurify")


def records(count: int) -> list[Record]:
    """About `count` records: defenses x 10 attacks x 3 seeds, `none` and `random` among them."""
    rng = np.random.default_rng(0)
    difficulty = rng.random(ITEMS)
    template = synthetic.record(items=ITEMS)
    defenses = ["none", "random", *(f"method-{number:05d}" for number in range(count // (3 * len(ATTACKS)) - 2))]
    made = []
    for defense in defenses:
        strength = 0.0 if defense in ("none", "random") else rng.random()
        for attack in ATTACKS:
            for seed in range(3):
                right = difficulty + 0.3 * rng.random(ITEMS) < 1.1 - strength * rng.random()
                part = template.attack.parts[0].model_copy(update={"id": attack})
                changes: dict[str, Any] = {
                    "defense": template.defense.model_copy(update={"id": defense, "label": defense}),
                    "attack": AttackRef(label=attack, parts=[part]),
                    "seed": seed,
                    "outcome": Outcome.pack(right),
                }
                changed = template.model_copy(update=changes)
                made.append(changed.model_copy(update={"cell": identity(changed.model_dump(mode="json"))}))
    return made


def test_board_of_ten_thousand_records(benchmark: Any, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(r.model_dump_json() + "\n" for r in records(10_000)), encoding="utf-8")

    def board() -> None:
        write(build(read_records(path)), tmp_path, "board")

    benchmark.pedantic(board, rounds=2, warmup_rounds=0)
    benchmark.extra_info["seconds below"] = 5


BOARD = """
import resource, sys
from pathlib import Path
from arena.isolation.server import MAXRSS
from arena.records.files import read_records
from leaderboards.tables.board import build, write
write(build(read_records(Path(sys.argv[1]))), Path(sys.argv[2]), "board")
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_maxrss / MAXRSS / 1024, used.ru_utime + used.ru_stime)
"""


def test_board_of_a_hundred_thousand_records(benchmark: Any, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(r.model_dump_json() + "\n" for r in records(100_000))
    command = [sys.executable, "-c", BOARD, str(path), str(tmp_path)]
    done = benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True, text=True), rounds=1)
    memory, used = map(float, done.stdout.split())
    benchmark.extra_info |= {"seconds below": 50, "processor seconds": round(used, 1)}
    benchmark.extra_info |= {"GiB of memory": round(memory, 2), "at most": 2}


def test_time_is_linear_in_records(benchmark: Any) -> None:
    times = []
    build(records(300))  # imports
    for count in (2_000, 8_000):
        made = records(count)
        start = time.perf_counter()
        build(made)
        times.append(time.perf_counter() - start)
    benchmark.extra_info |= {"time of 8,000 / of 2,000 records": times[1] / times[0], "below": 6}
    benchmark.pedantic(lambda: build(made), rounds=1)
