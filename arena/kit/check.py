"""The conformance kit: everything that holds for a plugin of a kind, tried out (`arena check`)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from arena.errors import ArenaError, UsageError, describe_error
from arena.kit import behaviour, declared, edges
from arena.kit.bench import Bench, Failed, Skipped, Unavailable, refuse_settings
from arena.kit.models import Models
from arena.kit.outcome import Outcome, Report
from arena.plugins.card import BrokenPlugin
from arena.plugins.registry import BASES, Entry, Kind, Registry, near_misses

SECONDS = 300.0
"""What a stage of a plugin may take while it is tried."""


@dataclass(frozen=True)
class Check:
    """A check by its name, for some kinds of plugins; its function's docstring says what holds."""

    name: str
    kinds: frozenset[Kind]
    run: Callable[[Bench], str]
    runs: bool = True
    """Whether it has the plugin do its work, which is pointless where it does not get through plain samples."""

    @property
    def about(self) -> str:
        """What holds where it passes."""
        return " ".join((self.run.__doc__ or "").split())


ALL: frozenset[Kind] = frozenset(get_args(Kind))
CRAFTS: frozenset[Kind] = frozenset({"defense", "attack"})
READS: frozenset[Kind] = CRAFTS | {"model"}
DEFENSES: frozenset[Kind] = frozenset({"defense"})

CHECKS: tuple[Check, ...] = (
    Check("documented", ALL, declared.documented, runs=False),
    Check("settings", ALL, declared.settings, runs=False),
    Check("recorded", ALL, declared.recorded, runs=False),
    Check("granted", ALL, declared.granted, runs=False),
    Check("contract", ALL, behaviour.contract),
    Check("budget", DEFENSES, behaviour.budget),
    Check("answer-words", DEFENSES, behaviour.answer_words),
    Check("property", DEFENSES, behaviour.prop),
    Check("determinism", ALL, behaviour.determinism),
    Check("threads", CRAFTS, behaviour.threads),
    Check("seed", CRAFTS | {"dataset"}, behaviour.seed),
    Check("needs", CRAFTS, behaviour.needs),
    Check("firewall", ALL, behaviour.firewall),
    Check("leftovers", ALL, behaviour.leftovers),
    Check("one-sample", READS, edges.one_sample),
    Check("modes", READS, edges.modes),
    Check("sizes", READS, edges.sizes),
    Check("texts", READS, edges.texts),
    Check("repeated", READS, edges.repeated),
    Check("placeholder", CRAFTS, edges.placeholder),  # how a prompt is put together is the arena's, not a model's
    Check("families", CRAFTS | {"recipe"}, behaviour.families),
    Check("cost", ALL, behaviour.cost),
)
"""Every check, in the order in which they are tried."""


def find(registry: Registry, name: str) -> Entry:
    """The entry of an id, or of ``kind/id`` where plugins of two kinds have one. Raises `UsageError`."""
    kind, _, id = name.rpartition("/")
    if kind:
        if kind not in BASES:
            raise UsageError(f"there is no kind {kind!r} of plugins{near_misses(kind, BASES)}: {', '.join(BASES)}")
        return registry.get(next(k for k in BASES if k == kind), id)
    known = {each: {entry.id for entry in registry.entries(each)} for each in BASES}
    kinds = [each for each in BASES if id in known[each]]
    if not kinds:
        raise UsageError(f"no plugin is called {id!r}: see `arena list`{near_misses(id, set().union(*known.values()))}")
    if len(kinds) > 1:
        listed = " and ".join(f"an {k}" if k == "attack" else f"a {k}" for k in kinds)
        raise UsageError(f"{id!r} is {listed}: name one, as in `arena check {kinds[0]}/{id}`")
    return registry.get(kinds[0], id)


def check_plugin(
    name: str,
    config: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    but: Sequence[str] = (),
    seconds: float = SECONDS,
    folder: Path | None = None,
    tell: Callable[[str], None] = lambda name: None,
) -> Report:
    """Try a plugin, named as `find` has it, with settings, by all checks of its kind, or by those named in `only`, and
    never by those named in `but`.

    Its code runs in processes of its own, as in a suite, with the settings of its dry run under the given ones; each
    stage has `seconds`. What stands for models is written to `folder`, and kept there; to a temporary one where None.
    `tell` hears of every check before it begins. Raises `UsageError` for an unknown plugin, check or setting.
    """
    registry = Registry()
    entry = find(registry, name)
    fitting = [check for check in CHECKS if entry.kind in check.kinds]
    for word in (*only, *but):
        if word not in {check.name for check in CHECKS}:
            known = ", ".join(check.name for check in fitting)
            raise UsageError(f"there is no check {word!r}{near_misses(word, (c.name for c in CHECKS))} ({known})")
    if strange := [word for word in only if word not in {check.name for check in fitting}]:
        raise UsageError(f"the check {strange[0]!r} is not for {entry.kind}s: {', '.join(c.name for c in fitting)}")
    wanted = [check for check in fitting if (not only or check.name in only) and check.name not in but]
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arena-check-")))
        models = Models(registry, place / "models")
        bench = Bench(registry, entry, config or {}, place / "runs", models, seconds)
        return Report(entry.kind, entry.id, list(_tried(bench, wanted, tell)))


def _tried(bench: Bench, checks: Sequence[Check], tell: Callable[[str], None]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    hopeless = ""
    for check in checks:
        tell(check.name)
        started = time.perf_counter()
        if hopeless and (check.runs or hopeless != _RUNS):
            outcomes.append(Outcome(check.name, "skipped", hopeless))
            continue
        try:
            found = Outcome(check.name, "passed", check.run(bench))
        except Failed as failed:
            found = Outcome(check.name, "failed", failed.what, failed.where)
            hopeless = _RUNS if check.name == "contract" else hopeless
        except Unavailable as missing:
            found, hopeless = Outcome(check.name, "skipped", str(missing)), _MISSING
        except Skipped as skipped:
            found = Outcome(check.name, "skipped", str(skipped))
        except BrokenPlugin as broken:
            found, hopeless = Outcome(check.name, "failed", str(broken), bench.source.line()), _DESCRIBED
        except UsageError as error:
            raise refuse_settings(error, bench.kind, bench.entry.id) from error
        except ArenaError as error:
            found = Outcome(check.name, "failed", describe_error(error), bench.source.work)
        took = time.perf_counter() - started
        outcomes.append(Outcome(found.check, found.status, found.said, found.where, took))
    return outcomes


_RUNS = "it does not get through plain samples: see above"
_MISSING = "what it loads is not here: see above"
_DESCRIBED = "it cannot be described: see above"
