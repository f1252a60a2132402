"""A plugin's wheel, held against what is installed: so that what others get is the code that ran."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from arena.errors import UsageError
from arena.paths import is_file
from arena.plugins.registry import Entry
from arena.plugins.source import locate
from arena.submissions.bundle import LIMITS
from arena.text import shortened

UNPACKED = 256 * 2**20
"""Bytes of all files of a wheel together, at most."""


def read_wheel(path: Path, plugins: Sequence[Entry]) -> bytes:
    """The content of a wheel that declares these plugins and has the modules that are installed. Raises `UsageError`
    for another one."""
    if not is_file(path):
        raise UsageError(f"there is no file {path}: `pip wheel --no-deps FOLDER` builds a wheel")
    content = path.read_bytes()
    if len(content) > LIMITS["wheel"]:
        raise UsageError(f"{path} has {len(content):,} bytes, and {LIMITS['wheel']:,} is the most for a wheel")
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(info.file_size for info in packed.infolist()) > UNPACKED:
                raise UsageError(f"{path} has more than {UNPACKED:,} bytes when unpacked: leave data out of the wheel")
            _refuse_others(path, packed, plugins)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UsageError(f"{path} is no whole wheel ({shortened(str(error), 200)}): build it anew") from error
    return content


def _refuse_others(path: Path, packed: zipfile.ZipFile, plugins: Sequence[Entry]) -> None:
    names = {name for name in packed.namelist() if name.endswith(".py")}
    dist = next(iter(distributions(path=[str(path)])), None)
    for plugin in plugins:
        group, origin = f"mmguard_arena.{plugin.kind}s", plugin.origin
        if dist is None or not _declares(dist, group, plugin):
            raise UsageError(
                f"{path} does not declare {plugin.kind} {plugin.id!r}, as {origin.package} does: name its wheel"
            )
        if (_canonical(dist.name), dist.version) != (_canonical(origin.package), origin.version):
            raise UsageError(
                f"{path} is of {dist.name} {dist.version}, and {plugin.id!r} runs here from {origin}: install "
                "the same version of both"
            )
        root = _root(plugin)
        for name in sorted(names):
            here = root / name
            if (
                here.is_file()
                and here.stat().st_size == packed.getinfo(name).file_size
                and here.read_bytes() == packed.read(name)
            ):
                continue
            raise UsageError(f"{path}: {name} is not what is installed here: build the wheel anew, or install it")
        if plugin.point.module.replace(".", "/") not in {
            name.removesuffix(".py").removesuffix("/__init__") for name in names
        }:
            raise UsageError(f"{path} does not have the module {plugin.point.module} of {plugin.id!r}: build it anew")


def _declares(dist: Distribution, group: str, plugin: Entry) -> bool:
    points = dist.entry_points.select(group=group, name=plugin.id)
    return any(point.value == plugin.point.value for point in points)


def _root(plugin: Entry) -> Path:
    """The folder that the plugin's top-level module is in, which is not imported."""
    file = locate(plugin.point.module)
    if file is None:
        raise UsageError(f"module {plugin.point.module!r} of {plugin.id!r} has no source file here: reinstall it")
    parts = plugin.point.module.split(".")
    return file.parents[len(parts) if file.stem == "__init__" else len(parts) - 1]


def _canonical(name: str) -> str:
    """A package's name as packaging compares them (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
