"""``pytest --arena arena-stress.yaml``: each requirement of a file is a test.

pytest loads this module in every run, so that it imports nothing else of the arena, and does nothing without the
option.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from arena.stress.run import Outcome
    from arena.stress.settings import Asked
    from arena.stress.verdicts import Verdict

_PROPERTY = "arena"
"""Under this name a report has what was measured."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.getgroup("arena", "stress tests of data protections").addoption(
        "--arena",
        action="append",
        default=[],
        metavar="FILE",
        help="an arena-stress.yaml whose requirements are tests; where no path is named, nothing else is run. "
        "Repeatable",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have the files collected."""
    if not (named := config.getoption("--arena")):
        return
    files = [config.invocation_params.dir / name for name in named]
    files = list(dict.fromkeys(file.resolve() for file in files))
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = []
    there = {(config.invocation_params.dir / arg.partition("::")[0]).resolve() for arg in config.args}
    config.args += [str(file) for file in files if file not in there]
    config.pluginmanager.register(_Stress(files), "arena-stress")


class _Stress:
    """The hooks of a run that has the option."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return StressFile.from_parent(parent, path=file_path) if file_path.resolve() in self.files else None

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        said = dict(getattr(report, "user_properties", ())).get(_PROPERTY)
        if said is None or report.when != "call":
            return None
        letter, word = (".", "PASSED") if report.passed else ("F", "FAILED")
        return report.outcome, letter, f"{word} {said}"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """What was measured, a line a requirement."""
        words = {"passed": "met", "failed": "failed", "error": "undecided"}
        lines = [
            f"{words[status]}: {report.nodeid}: {said}"
            for status in words
            for report in terminalreporter.stats.get(status, ())
            if (said := dict(getattr(report, "user_properties", ())).get(_PROPERTY)) is not None
        ]
        if lines:
            terminalreporter.section("arena stress")
            for line in lines:
                terminalreporter.line(line)


class StressFile(pytest.File):
    """A file of requirements. It is computed once; processes of xdist wait for the one that does, and read its
    records."""

    _asked: Asked
    _ended: Outcome | Exception | None = None

    def collect(self) -> Iterable[pytest.Item]:
        from arena.errors import ArenaError
        from arena.stress.run import BUDGET, COMPARE
        from arena.stress.settings import read_file

        try:
            self._asked = read_file(self.path)
        except ArenaError as error:
            raise self.CollectError(str(error)) from None
        names = {BUDGET: BUDGET, **{one.text: one.name for one in self._asked.requirements}}
        if self._asked.settings.compare is not None:
            names[COMPARE] = COMPARE
        return list(self._items(names))

    def _items(self, names: dict[str, str]) -> Iterator[pytest.Item]:
        manager = self.config.pluginmanager
        for name, verdict in names.items():
            item = StressItem.from_parent(self, name=name, verdict=verdict)
            if manager.hasplugin("xdist"):
                item.add_marker(pytest.mark.xdist_group(self.nodeid))  # with --dist loadgroup one process has them all
            if manager.hasplugin("timeout"):
                item.add_marker(pytest.mark.timeout(0))  # the suite says how long its stages may take
            yield item

    def outcome(self) -> Outcome:
        """What came out. Raises `ArenaError` for what cannot be asked."""
        if self._ended is None:
            try:
                self._ended = self._compute()
            except Exception as error:
                self._ended = error
        if isinstance(self._ended, Exception):
            raise self._ended
        return self._ended

    def _compute(self) -> Outcome:
        from contextlib import nullcontext
        from hashlib import sha256

        from filelock import FileLock

        from arena.console import PlainConsole
        from arena.store.local import Store
        from arena.stress.run import FOLDER, stress

        capture = self.config.pluginmanager.getplugin("capturemanager")
        name = sha256(str(self.path).encode()).hexdigest()[:16]
        FOLDER.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(FOLDER / f".{name}.lock"),
            capture.global_and_fixture_disabled() if capture is not None else nullcontext(),
        ):
            return stress(self._asked, PlainConsole(stderr=True), Store())


class StressItem(pytest.Item):
    """One requirement: it fails where it is not met, and is an error where that cannot be decided."""

    def __init__(self, *, verdict: str, **named: Any) -> None:
        super().__init__(**named)
        self._name = verdict

    def setup(self) -> None:
        from arena.errors import ArenaError
        from arena.stress.report import line
        from arena.text import printable

        try:
            verdict = self._verdict()
        except ArenaError as error:
            pytest.fail(printable(str(error)), pytrace=False)
        self.user_properties.append((_PROPERTY, line(verdict.why)))
        if verdict.status == "undecided":
            pytest.fail(line(verdict.why), pytrace=False)

    def runtest(self) -> None:
        from arena.stress.report import line

        verdict = self._verdict()
        if verdict.status == "failed":
            rows = [f"  {line(one.where)}: {line(one.shown)}" for one in verdict.measured]
            pytest.fail("\n".join([line(f"{verdict.name}: {verdict.why}"), *rows]), pytrace=False)

    def _verdict(self) -> Verdict:
        parent = self.parent
        assert isinstance(parent, StressFile)
        return next(verdict for verdict in parent.outcome().verdicts if verdict.name == self._name)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"[{self.name}]"  # without brackets pytest shows the dot of 0.5 as ::
