"""Careless and cheating plugins: each costs its own cells at most, says what it did, and touches nobody else's."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import re
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from suites import toy_suite

from arena.engine import pools, worker
from arena.engine.apart import bare
from arena.engine.execute import RunReport, run
from arena.engine.stages import KINDS
from arena.errors import UsageError
from arena.isolation import landlock
from arena.isolation.call import isolation
from arena.plugins import card
from arena.plugins.card import BrokenPlugin, Card
from arena.plugins.registry import Kind, Registry, installed
from arena.records.files import read_records
from arena.records.schema import Record
from arena.store.local import Store
from arena.suites.schema import Suite

TOYS = Path(__file__).parents[2] / "toys"
VILLAINS = TOYS.parent / "villains"
REPOSITORY = TOYS.parents[1]
firewall = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

DONE = None
Expected = str | None
"""What the failure says, as a regular expression, `DONE` where the cell is done."""


def case(says: Expected, deed: str, note: str = "", label: str = "") -> Any:
    label = label or (f"{deed} {note}" if note else deed)
    return pytest.param({"id": "villain", "label": label, "config": {"deed": deed, "note": note}}, says, id=label)


def raises(says: str, name: str) -> Any:
    return case(says, "raise", name)


def fits(says: Expected, deed: str) -> Any:
    use = {"id": "villain-fit", "label": f"fits {deed}", "config": {"deed": deed}, "auxiliary": 0.5}
    return pytest.param(use, says, id=f"fits {deed}")


def fetches(says: Expected, deed: str) -> Any:
    config = {"deed": deed, "checkpoint": f"villain/{deed}"}
    use = {"id": "villain-fetch", "label": f"fetches {deed}", "config": config}
    return pytest.param(use, says, id=f"fetches {deed}")


CODE = r"its process left with exit code {} before it was done"

DEFENSES = [
    case(DONE, "nothing"),
    # What is handed over is a copy, and what comes back is checked
    case(r"it changed the samples that it was given, in place", "paint"),
    case(r"budget: sample 0 \('toy-00000'\): \|delta\| = \d+/255", "paint-and-hide"),
    case(r"it changed the samples that it was given, in place", "answer"),
    case(DONE, "answer-and-hide"),
    case(r"budget: sample 0 \('toy-00000'\): \|delta\| = 30/255", "patch-the-judge"),
    case(r"there are 7 drafts for 8 samples", "fewer-drafts"),
    case(r"sample 0 \('toy-00000'\).*64", "larger-pictures"),
    case(DONE, "watch-the-world"),
    # Ends
    case(CODE.format(0), "exit-with", "0"),
    case(CODE.format(3), "exit-with", "3"),
    case(r"its process was ended by signal SIGSEGV", "segfault"),
    case(r"its process was ended by signal SIGABRT", "abort"),
    case(r"its process was ended by signal SIGKILL", "signal-itself", "SIGKILL"),
    case(r"its process was ended by signal SIGTERM", "signal-itself", "SIGTERM"),
    case(r"KeyboardInterrupt$", "signal-itself", "SIGINT"),
    case(r"its process was ended by signal SIGUSR1", "signal-itself", "SIGUSR1"),
    raises(r"KeyboardInterrupt$", "KeyboardInterrupt"),
    raises(r"SystemExit$", "SystemExit"),
    raises(r"SystemExit: good bye$", "SystemExit with a text"),
    raises(r"GeneratorExit$", "GeneratorExit"),
    raises(r"Odd: out of the ordinary$", "Odd"),
    raises(r"Unprintable: its message cannot be shown, __str__ raised SystemExit$", "Unprintable"),
    raises(r"ValueError: half \\ud800 and \\x1b\[31mred$", "half of a surrogate pair"),
    raises(r"ValueError: long long .* characters left out", "50 MB"),
    raises(r"the suite is wrong, says the plugin$", "UsageError"),
    raises(r"the store is unusable, says the plugin$", "StoreError"),
    raises(r"artifact 000000000000 is missing", "MissingArtifact"),
    raises(r"the source has changed, says the plugin$", "ChangedSource"),
    raises(r"OSError: \[Errno 28\] No space left on device$", "ENOSPC"),
    raises(r"PermissionError: \[Errno 13\] Permission denied$", "EACCES"),
    raises(r"BrokenPipeError", "BrokenPipeError"),
    case(r"RecursionError", "recurse"),
    case(DONE, "never-ending-thread"),
    case(DONE, "close-files"),
    case(DONE, "change-folder"),
    case(CODE.format(3), "print-much"),
    case(DONE, "child", "98761.5"),
    case(DONE, "daemon", "98762.5"),
    # What it says of its end
    case(DONE, "lie", '{"status": "done", "seconds": NaN, "peak_memory_mb": 1e999}', "no number"),
    case(DONE, "lie", '{"status": "done", "seconds": -5, "peak_memory_mb": "much"}', "below nothing"),
    case(DONE, "lie", f'{{"status": "done", "seconds": {10**400}, "peak_memory_mb": [1]}}', "beyond floats"),
    case(DONE, "lie", '{"status": "done", "seconds": 1000000}', "ages"),
    case(
        DONE,
        "lie",
        '{"status": "done", "environment": {"device": "%s\\ud800", "nondeterminism": [1, {}, "\\ud800"]}}'
        % ("H" * 9999),
        "another machine",
    ),
    case(DONE, "odd-reports"),
    case(r"the questions of its drafts cannot be read", "claim", '{"status": "done"}', "claims to be done"),
    case(r"all is new$", "claim", '{"status": "changed", "message": "all is new"}', "claims to be changed"),
    case(r"full$", "claim", '{"status": "unusable", "message": "full"}', "claims that the disk is full"),
    case(r"gone$", "claim", '{"status": "missing", "key": "0", "message": "gone"}', "claims that an input is gone"),
    case(
        r"half \\ud800", "claim", '{"status": "failed", "message": "half \\ud800", "trace": 3}', "claims half a letter"
    ),
    case(CODE.format(0), "claim", "[" * 100_000, "claims no end"),
    case(CODE.format(0), "claim", '{"status": {}}', "claims no status"),
    case(CODE.format(0), "claim", '{"status": "done", "message": "%s"}' % ("x" * 2**21), "claims too much"),
    case(CODE.format(0), "claim-by-link"),
    case(CODE.format(0), "claim-by-pipe"),
]

NO_FILE = r"it left {}, which is no plain file: links and devices are not read"

ATTACKS = [
    # What it returns
    case(r"it returned a ndarray as sample 0: return arena\.data\.sample\.Sample", "array"),
    case(r"TypeError: 'NoneType' object is not iterable", "returns-nothing"),
    case(r"it left no sample to train on", "empty"),
    case(r"1 ids stand more than once in what it returned, such as 'same'", "equal-ids"),
    case(r"id 'same' is already used", "equal-ids-and-hide"),
    case(DONE, "more"),
    case(r"8 ids stand more than once", "more-of-the-same"),
    case(r"sample 0 \('toy-00000'\): .*mode .?P", "palette"),
    case(r"sample 0 \('toy-00000'\): .*mode .?F", "float-pictures"),
    case(r"its picture is a ndarray", "array-pictures"),
    case(r"its question is empty or no text", "no-question"),
    case(r"its question is no text that UTF-8 can hold", "half-a-question"),
    case(r"sample 0 \('toy-00000'\): its answer is no text that UTF-8 can hold", "half-an-answer"),
    # What it leaves
    case(NO_FILE.format("passwd"), "link"),
    case(r"it left other, which is linked to another file", "hard-link"),
    case(NO_FILE.format("pipe"), "pipe"),
    case(NO_FILE.format("device") + "|PermissionError", "device"),
    case(NO_FILE.format("door"), "door"),
    case(NO_FILE.format(r"\\udcff\n\\x1b\[31m"), "odd-name"),
    case(r"what it left cannot be read \(File name too long\)", "deep"),
    case(DONE if os.geteuid() == 0 else r"what it left cannot be read \(Permission denied\)", "closed"),
    fits(NO_FILE.format("link"), "link"),
    fits(r"'manifest\.json' is the name of the store's own file", "manifest"),
    fits(r"the name '\\udcff\\n' is not UTF-8", "odd-name"),
    fits(DONE, "nothing"),
    case(DONE, "watch-the-world"),
    # What it is fetched, and what it names itself
    fetches(r"models--villain--link in the hub's cache is a link that leads out of it", "link"),
    fetches(DONE, "exchange"),
    pytest.param({"id": "villain-named", "label": "named"}, DONE, id="named"),
]

SNOOPS = [
    *(case(DONE, "read-target", name) for name in ("ORIGINAL", "RESULTS", "SUITE", "RECORDS", "OTHER_STAGE", "HOME")),
    *(case(DONE, deed) for deed in ("list-above", "walk-objects", "read-own-memory", "read-environment")),
    *([case(DONE, "wake-the-watchdog")] if os.uname().machine == "x86_64" else []),
    *(case(DONE, deed) for deed in ("read-parent", "signal-parent", "connect", "listen", "write-elsewhere")),
]
"""What attacks look for. It is there: without a process of its own each finds it."""
NEEDS = {"connect": 4, "listen": 4, "signal-parent": 6}
"""The version of Landlock that keeps what from plugins."""
ANYWHERE = {"walk-objects", "read-own-memory", "read-environment"}
"""Kept by the process alone."""

MEMORY, OUTPUT = 1.0, 0.05
TIME = r"it ran past its time limit of 0\.15 minutes \(limits\.stage_minutes of the suite\)"
MUCH = r"1 GB of memory \(limits\.stage_memory_gb of the suite\)"
FILES = r"0\.05 GB \(limits\.stage_output_gb of the suite\)"

LATE = [case(TIME, "hang"), case(TIME, "hang-unwatched"), case(TIME, "stop-itself"), fetches(TIME, "hang")]
ENDLESS = [
    case(MUCH, "samples-without-end"),
    case(MUCH, "memory"),
    case(MUCH, "shared-memory"),
    case(MUCH, "memory-of-children", "0.4"),
    case(r"it started more than 256 processes and was ended", "fork-without-end"),
    case(r"File too large|" + FILES, "one-large-file"),
    case(FILES, "many-large-files"),
    case(FILES, "large-files-at-home"),
    case(FILES, "reserve-the-disk"),
    case(MUCH, "large-pictures"),
    fetches(MUCH, "memory"),
]

MADE = r"defense 'villain-[a-z-]+' of package villains 1\.0 cannot be described: "


def broken(says: str, where: str, how: str) -> Any:
    label = f"{how} in {where}"
    return pytest.param(
        {"id": "villain-broken", "label": label, "config": {"where": where, "how": how}}, MADE + says, id=label
    )


def at_import(says: str, how: str) -> Any:
    return pytest.param(f"villain-at-import-{how}", MADE + says, id=f"{how} at import")


SECONDS = 4.0
BROKEN = [
    at_import(r".*RuntimeError: no import today", "raises"),
    at_import(r".*SystemExit: 0", "leaves"),
    at_import(r"its process left with exit code 0", "dies"),
    at_import(r"it was still at it after 4 s", "hangs"),
    *(broken(r"RuntimeError: not today", where, "raise") for where in ("init", "fingerprint", "validator")),
    *(broken(r"SystemExit: 0", where, "leave") for where in ("init", "fingerprint", "validator")),
    *(broken(r"its process left with exit code 0", where, "die") for where in ("init", "fingerprint", "validator")),
    broken(r"its process left with signal SIGKILL", "fingerprint", "kill"),
    broken(r"it was still at it after 4 s", "fingerprint", "hang"),
    broken(r"(MemoryError|it took more than 0\.6 GB of memory)", "fingerprint", "memory"),
    broken(r"it took more than 0\.05 GB of output", "fingerprint", "reserve"),
    broken(r"its fingerprint: Input should be a valid string", "fingerprint", "number"),
    broken(r"its process left with exit code 0", "fingerprint", "half"),
    broken(r"its process left with exit code 0", "fingerprint", "claim"),
    broken(r"RuntimeError: not today", "fingerprint", "deep"),
]

NOT_ONCE = "{} ids stand more than once in its splits"
DATASETS = [
    ("nothing", DONE),
    ("same-picture", r"its train and test samples share one, 'other' of test: they must be disjoint"),
    ("overlap", NOT_ONCE.format(6)),
    ("overlap-unchecked", r"6 of its 6 test samples are training samples, such as 'test-\d': they must be disjoint"),
    ("equal-ids", NOT_ONCE.format(1)),
    ("no-seed", DONE),  # to be found out by drawing it with two seeds, which a run does not do
    ("few", r"it gave 5 test samples instead of 6"),
    ("many", r"it gave 16 train samples instead of 8|ids stand more than once"),
    ("no-splits", r"load returned a tuple: return arena\.data\.sample\.Splits"),
    ("no-samples", r"its train samples hold a Image: give arena\.data\.sample\.Sample"),
    ("palette", r"sample 'toy-00000': .*mode .?P"),
]

ANSWERS = r"the model gave {} answers to 6 questions"
MODELS = [
    ("few", ANSWERS.format(5)),
    ("no-texts", ANSWERS.format(6) + r".*or some that are no texts"),
    ("nothing", r"answers\.json holds no lists of answers by epoch"),
    ("text", ANSWERS.format(3)),
    ("peek", DONE),
]


SECRET_FILE = "stages/other-1234/given/train.json"
"""In the store of the attacks' run, as if another stage read it."""
PRELOAD = {kind: kind.preload for kind in KINDS}


class World:
    """Where toys and villains are installed, and what was asked of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts = Counter[str]()
        """How often a stage was computed, by its kind and label."""
        self.registry = Registry()
        self.late: Future[RunReport]
        """Of plugins that take longer than they may, which runs beside the others."""

    def go(self, name: str, **changes: Any) -> RunReport:
        options = {k: changes.pop(k) for k in ("isolated", "scheduler", "workers", "store") if k in changes}
        seeds = changes.pop("seeds", [0])
        suite = toy_suite(seeds=seeds, **changes)
        if options.get("isolated", True):
            self.describe(suite)
        return run(
            suite,
            store=options.pop("store", name),  # a relative name
            registry=self.registry,
            results=self.folder / f"{name}.jsonl",
            console=Console(file=io.StringIO()),
            **{"workers": 2, **options},
        )

    def describe(self, suite: Suite) -> None:
        """Have plugins describe themselves two at a time, before the run does it one after the other."""

        def card(of: tuple[Kind, str, dict[str, Any]]) -> None:
            with suppress(BrokenPlugin):
                Card.apart(self.registry, *of)

        kinds: dict[Kind, Any] = {"dataset": suite.datasets, "model": suite.models, "recipe": suite.recipes}
        kinds |= {"defense": suite.defenses, "attack": suite.attacks}
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(card, [(kind, use.id, use.config) for kind, uses in kinds.items() for use in uses]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("villains")
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for place in (TOYS, VILLAINS, folder / "more"):
            patch.syspath_prepend(str(place))
        installed.cache_clear()
        found = World(folder)
        for kind in KINDS:
            patch.setattr(kind, "run", kind.run)
            patch.setattr(kind, "preload", kind.preload)
        patch.setattr(Store, "put", Store.put)
        import toys

        toys.install()

        def counted(task: worker.Task, *arguments: Any, **named: Any) -> worker.Result:
            found.counts[f"{task.stage.kind} {task.stage.label}"] += 1
            return worker.run_task(task, *arguments, **named)

        patch.setattr(pools, "run_task", counted)
        patch.setenv("ARENA_STORE", str(folder / "secret-store"))
        patch.setenv("HF_TOKEN", "hf_secret")
        patch.setenv("MY_API_KEY", "my-secret")
        patch.setenv("HF_HOME", str(folder / "cache" / "huggingface"))
        (folder / "more").mkdir()
        other = folder / "attacks" / SECRET_FILE
        other.parent.mkdir(parents=True)
        for file in (other, folder / "home.txt", folder / "attacks.yaml"):
            file.write_text("secret", encoding="utf-8")
        (folder / "claim.json").write_text('{"status": "done"}', encoding="utf-8")
        targets = {
            "STORE": str(folder / "attacks"),
            "RESULTS": str(folder / "reference.jsonl"),
            "SUITE": str(folder / "attacks.yaml"),
            "RECORDS": str(next((REPOSITORY / "leaderboards").rglob("*.jsonl"))),
            "OTHER_STAGE": str(other),
            "HOME": str(folder / "home.txt"),
            "CLAIM": str(folder / "claim.json"),
            "SECRETS": ["secret-store", "hf_secret", "my-secret"],
            "PORT": server.getsockname()[1],
            "OUTSIDE": [str(p / "written") for p in (folder, other.parent, TOYS, Path("/tmp"), Path("/dev/shm"))],
        }
        reference = found.go("reference", defenses=NORMAL, attacks=["none", "toy-invert"], isolated=False)
        train = reference.plan.artifacts().keys[reference.plan.cells[0].stages["train"]]
        pictures = sorted((Store("reference").require(train) / "samples").glob("*.png"))
        samples = [s.image.tobytes() for s in toys.ToyData(toys.ToyData.Config()).load(8, 4, 6, 0).train]
        targets |= {"ORIGINAL": str(pictures[0]), "DIGESTS": [sha256(each).hexdigest() for each in samples]}
        lines = [f"{name} = {value!r}\n" for name, value in targets.items()]
        (folder / "more" / "targets.py").write_text("".join(lines), encoding="utf-8")
        with ThreadPoolExecutor(1) as pool:
            found.late = pool.submit(go_late, found)
            yield found
        sys.modules.pop("targets", None)
        installed.cache_clear()
        for name in targets["OUTSIDE"]:
            Path(name).unlink(missing_ok=True)


SECRET = {"id": "villain", "label": "qzx-defense", "config": {"deed": "nothing", "note": "qzx-setting"}}
"""A defense whose label and settings no attack may find."""
NORMAL: list[Any] = ["none", {"id": "toy-noise", "label": "qzx-noise"}]


def uses(table: list[Any]) -> list[Any]:
    return [parameters.values[0] for parameters in table]


def label(use: Any) -> str:
    return use if isinstance(use, str) else str(use["label"])


def by_label(report: RunReport, kind: str) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in report.records:
        found.setdefault(str(getattr(record, kind).label), []).append(record)
    return found


def check(records: list[Record], kind: str, id: str, says: Expected) -> None:
    """That cells are done, or failed by the plugin named, which is told in these words."""
    assert records
    for record in records:
        if says is DONE:
            assert record.status == "done", record.failure
            assert record.environment.isolation == isolation()
            continue
        assert record.failure is not None
        assert record.failure.error.startswith(f"{kind} {id!r}: ")
        error = record.failure.error.removeprefix(f"{kind} {id!r}: ")
        assert re.search(says, error, re.DOTALL), error
        assert len(error) < 5000 and len(record.failure.traceback) <= 100_000
        assert str(Path.cwd()) not in error


def essence(record: Record) -> dict[str, Any]:
    return record.model_dump(include={"cell", "outcome", "zero_shot", "stealth", "lineage", "epochs"})


def unharmed(report: RunReport, reference: list[Record], *attacks: str) -> None:
    """Cells of well-behaved plugins are what they are without any others."""
    known = {r.cell: essence(r) for r in reference}
    normal = [r for r in report.records if r.cell in known]
    assert {r.attack.label for r in normal} >= set(attacks) and {r.defense.label for r in normal} >= {"qzx-noise"}
    assert [essence(r) for r in normal] == [known[r.cell] for r in normal]


@pytest.fixture(scope="module")
def reference(world: World) -> list[Record]:
    return read_records(world.folder / "reference.jsonl")


@pytest.fixture(scope="module")
def defended(world: World) -> RunReport:
    return world.go("defenses", defenses=[*NORMAL, *uses(DEFENSES)], attacks=["none"])


@pytest.fixture(scope="module")
def attacked(world: World) -> RunReport:
    (world.folder / "word.txt").write_text("word", encoding="utf-8")
    names = {"a file": "word.txt", "a file of the store": str(world.folder / "attacks" / SECRET_FILE)}
    named = [{"id": "toy-dictionary", "label": label, "config": {"file": file}} for label, file in names.items()]
    return world.go(
        "attacks",
        defenses=[SECRET, *NORMAL],
        attacks=["none", "toy-invert", *named, *uses(ATTACKS), *uses(SNOOPS)],
        skip=[
            {"defenses": ["none", "qzx-defense"], "attacks": list(map(label, [*named, *uses(ATTACKS), *uses(SNOOPS)]))}
        ],
    )


@pytest.fixture(scope="module")
def limited(world: World) -> RunReport:
    limits = {"stage_memory_gb": MEMORY, "stage_output_gb": OUTPUT}
    return world.go(
        "limits",
        defenses=NORMAL,
        attacks=["none", *uses(ENDLESS)],
        limits=limits,
        skip=[{"defenses": ["none"], "attacks": list(map(label, uses(ENDLESS)))}],
    )


def go_late(world: World) -> RunReport:
    return world.go(
        "late",
        defenses=NORMAL,
        attacks=["none", *uses(LATE)],
        limits={"stage_minutes": 0.15},
        skip=[{"defenses": ["none"], "attacks": list(map(label, uses(LATE)))}],
        workers=3,
    )


@pytest.fixture(scope="module")
def late(world: World) -> RunReport:
    return world.late.result()


@pytest.fixture(scope="module")
def undescribed(world: World) -> RunReport:
    with pytest.MonkeyPatch.context() as patch:
        for limit, value in {"_SECONDS": SECONDS, "_MEMORY": 6 * 10**8, "_WRITTEN": 5 * 10**7}.items():
            patch.setattr(card, limit, value)
        return world.go("broken", defenses=[*NORMAL, *uses(BROKEN)], attacks=["none"])


@pytest.mark.parametrize(("use", "says"), DEFENSES)
def test_a_defense(defended: RunReport, use: Any, says: Expected) -> None:
    check(by_label(defended, "defense")[label(use)], "defense", use["id"], says)


@pytest.mark.parametrize(("use", "says"), ATTACKS)
def test_an_attack(attacked: RunReport, use: Any, says: Expected) -> None:
    check(by_label(attacked, "attack")[label(use)], "attack", use["id"], says)


@pytest.mark.parametrize(("use", "says"), SNOOPS)
def test_an_attack_finds_nothing(attacked: RunReport, use: Any, says: Expected) -> None:
    deed = use["config"]["deed"]
    if deed not in ANYWHERE and landlock.version() < NEEDS.get(deed, 1):
        pytest.skip("the kernel does not keep it from plugins")
    check(by_label(attacked, "attack")[label(use)], "attack", use["id"], says)


NO_EPOCHS: list[dict[str, Any]] = [
    {"held_out_accuracy": 5.0},
    {"loss": "1.5"},
    {"loss": True},
    {"extra": 1.0},
    {"test_accuracy": 0.9},
]


def test_a_history_that_no_record_can_hold(world: World) -> None:
    uses = [{"id": "villain-history", "label": str(epoch), "config": {"epoch": epoch}} for epoch in NO_EPOCHS]
    told = world.go(
        "histories",
        defenses=NORMAL,
        attacks=["none", *uses],
    )
    for record in told.records:
        if record.attack.label == "none":
            assert record.status == "done"
        else:
            assert record.failure is not None
            assert record.failure.error.startswith("recipe 'toy-recipe' with attack 'villain-history': history.json ")


@pytest.mark.parametrize(("use", "says"), ENDLESS)
def test_an_attack_without_end(limited: RunReport, use: Any, says: Expected) -> None:
    check(by_label(limited, "attack")[label(use)], "attack", use["id"], says)


@pytest.mark.parametrize(("use", "says"), LATE)
def test_an_attack_beyond_its_time(late: RunReport, use: Any, says: Expected) -> None:
    check(by_label(late, "attack")[label(use)], "attack", use["id"], says)


@pytest.mark.parametrize(("use", "says"), BROKEN)
def test_a_plugin_that_cannot_be_described(undescribed: RunReport, use: Any, says: str) -> None:
    (problem,) = [b.problem for b in undescribed.plan.broken if f" · {label(use)} · " in b.label]
    assert re.match(says, problem), problem
    assert label(use) not in by_label(undescribed, "defense")


@pytest.fixture(scope="module")
def drawn(world: World) -> RunReport:
    sizes = {"train": 8, "auxiliary": 4, "test": 6}
    villains = [{"id": "villain-data", "label": deed, "config": {"deed": deed}, **sizes} for deed, _ in DATASETS]
    return world.go("datasets", datasets=[{"id": "toy-data", **sizes}, *villains], defenses=NORMAL, attacks=["none"])


@pytest.mark.parametrize(("deed", "says"), DATASETS)
def test_a_dataset(drawn: RunReport, deed: str, says: Expected) -> None:
    check([r for r in drawn.records if r.dataset.config.get("deed") == deed], "dataset", "villain-data", says)


@pytest.fixture(scope="module")
def asked(world: World) -> RunReport:
    villains = [{"id": "villain-model", "label": deed, "config": {"deed": deed}} for deed, _ in MODELS]
    return world.go(
        "models",
        models=["toy-model", *villains],
        recipes=["toy-recipe", "villain-peeks"],
        defenses=NORMAL,
        attacks=["none"],
        skip=[{"models": [deed for deed, _ in MODELS], "recipes": ["villain-peeks"]}],
    )


@pytest.mark.parametrize(("deed", "says"), MODELS)
def test_a_model(asked: RunReport, deed: str, says: Expected) -> None:
    records = [r for r in asked.records if r.model.config.get("deed") == deed]
    check(records, "model", "villain-model", says)
    if says is DONE:  # it answers by what the samples say, which is nothing
        assert {r.zero_shot.accuracy for r in records if r.zero_shot is not None} == {0.0}


def test_a_recipe_that_answers_the_test_itself_finds_no_answers(asked: RunReport) -> None:
    records = [r for r in asked.records if r.recipe.id == "villain-peeks"]
    assert records and {r.outcome.accuracy for r in records if r.outcome is not None} == {0.0}


def test_a_stage_that_is_handed_over_names_no_other_party(attacked: RunReport) -> None:
    """Neither in words nor by a digest of what that party was asked."""
    plan = attacked.plan
    for stage in plan.stages.values():
        told, whole = pickle.dumps(bare(stage)), pickle.dumps(stage)
        for secret in ("qzx-", *plan.stages):
            assert secret.encode() not in told or (secret == "qzx-" and stage.kind == "release")
        assert stage.kind == "data" or any(name.encode() in whole for name in plan.stages)
        assert bare(stage).plugins() == stage.plugins() and bare(stage).size == stage.size


def test_settings_do_not_lead_into_the_store(attacked: RunReport, world: World) -> None:
    found = by_label(attacked, "attack")
    (record,) = found["a file of the store"]
    store = world.folder / "attacks"
    assert record.failure is not None
    assert record.failure.error == (
        f"attack 'toy-dictionary': its settings name {store / SECRET_FILE}, and results are kept in {store}: keep them "
        "apart"
    )
    (record,) = found["a file"]
    assert record.status == "done"


def test_a_store_that_plugins_can_read_is_refused(world: World) -> None:
    place = Path(sys.prefix) / "store"
    with pytest.raises(UsageError, match=f"store {place}: it lies in .*, which plugins may read; name another"):
        world.go("exposed", store=place, defenses=NORMAL, attacks=["none"])
    assert not place.exists()


@pytest.mark.parametrize(("kernel", "isolated", "says"), [(0, True, "process"), (7, False, "none")])
def test_records_say_what_kept_plugins_to_their_own(
    world: World, monkeypatch: pytest.MonkeyPatch, kernel: int, isolated: bool, says: str
) -> None:
    monkeypatch.setattr(landlock, "version", lambda: kernel)
    report = world.go(f"isolation-{says}", defenses=["none"], attacks=["none"], isolated=isolated)
    assert [r.environment.isolation for r in report.records] == [says]


def test_real_training_where_others_freeze_it_or_make_it_diverge(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, preload in PRELOAD.items():
        monkeypatch.setattr(kind, "preload", preload)
    report = world.go(
        "real",
        models=["tiny-llava"],
        datasets=[{"id": "glyphs", "train": 16, "test": 8}],
        recipes=[{"id": "lora", "config": {"epochs": 1}}],
        defenses=["none", "villain-at-import-freezes", SECRET | {"label": "freeze", "config": {"deed": "freeze"}}],
        attacks=["none", "villain-loss"],
    )
    plain, diverging = [[r for r in report.records if r.attack.id == id] for id in ("none", "villain-loss")]
    assert {r.status for r in plain} == {"done"} and len({r.lineage.checkpoint for r in plain}) == 1
    says = r"the training diverged: its loss is NaN in epoch 1 of 1"
    for record in diverging:
        assert record.failure is not None
        assert re.match(rf"recipe 'lora' with attack 'villain-loss': {says}", record.failure.error)


def test_what_attacks_look_for_is_there(world: World, attacked: RunReport) -> None:
    """Without a process of its own every one of them finds it."""
    importlib.invalidate_caches()  # the module of targets is new
    report = world.go(
        "snoops",
        defenses=[SECRET, *NORMAL],
        attacks=["none", *uses(SNOOPS)],
        skip=[{"defenses": ["none", "qzx-defense"], "attacks": list(map(label, uses(SNOOPS)))}],
        isolated=False,
    )
    found = by_label(report, "attack")
    for use in uses(SNOOPS):
        failures = [r.failure.error for r in found[label(use)] if r.failure is not None]
        assert failures and all(": Leak: " in error for error in failures), (label(use), failures)


def test_well_behaved_plugins_are_unharmed(
    defended: RunReport, attacked: RunReport, limited: RunReport, undescribed: RunReport, reference: list[Record]
) -> None:
    unharmed(defended, reference, "none")
    unharmed(attacked, reference, "none", "toy-invert")
    unharmed(limited, reference, "none")
    unharmed(undescribed, reference, "none")


def test_whatever_fails_is_computed_once(world: World, defended: RunReport) -> None:
    assert {world.counts[f"release {label(use)} 8/255"] for use in uses(DEFENSES)} == {1}


def test_nothing_is_left(world: World, defended: RunReport, attacked: RunReport, limited: RunReport) -> None:
    assert not [p for p in psutil.process_iter(["cmdline"]) if {"98761.5", "98762.5"} & set(p.info["cmdline"] or ())]
    for guardian in psutil.Process().children():
        for server in guardian.children():
            assert not server.children(), "only the server is left, and nothing below it"
    for store in ("defenses", "attacks", "limits"):
        left = {path.name for path in (world.folder / store / "stages").iterdir()}
        assert left == ({"other-1234"} if store == "attacks" else set())
        assert not list((world.folder / store / "partial").iterdir())
    assert not (world.folder / "defenses" / "defenses").exists()


def test_answers_cannot_be_changed(defended: RunReport) -> None:
    found = by_label(defended, "defense")
    (none,), (changed,) = found["none"], found["answer-and-hide"]
    assert changed.lineage.release == none.lineage.release and changed.outcome == none.outcome


def test_what_a_process_says_of_itself_is_held_against_what_was_seen(defended: RunReport) -> None:
    found = by_label(defended, "defense")
    for name in ("no number", "below nothing", "beyond floats", "ages"):
        cost = found[name][0].cost.protect
        assert cost is not None and 0 < cost.seconds < 60 and 1 < cost.peak_memory_mb < 10_000
    environment = found["another machine"][0].environment
    assert len(environment.device) < 500


def test_what_is_printed_is_cut(defended: RunReport) -> None:
    (record,) = by_label(defended, "defense")["print-much"]
    assert record.failure is not None
    assert len(record.failure.traceback) < 10_000 and record.failure.traceback.endswith("the end")
