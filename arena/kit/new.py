"""A package of a plugin, to start from (`arena new`): it installs, passes its own tests and `arena check` as it is."""

from __future__ import annotations

import keyword
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import jinja2

from arena.errors import UsageError
from arena.plugins.registry import ID, Kind, Registry

BASE: dict[Kind, str] = {
    "defense": "ImageDefense",
    "attack": "ImageAttack",
    "recipe": "Recipe",
    "dataset": "Dataset",
    "model": "ModelSource",
}

_PACKAGING = frozenset({"setup", "conftest", "test", "tests", "build", "dist", "docs", "suite"})
"""Names that mean something else in the folder of a package, or beside its modules when it is installed."""

_LONGEST = 60
"""Characters of an id for which a package is written."""


@dataclass(frozen=True)
class Written:
    """A package on disk: its folder, and the files below it."""

    folder: Path
    files: tuple[Path, ...]


def write_package(kind: Kind, name: str, folder: Path | None = None) -> Written:
    """Write a package with a plugin of a kind, which has the id `name`, into a new or empty folder.

    Raises `UsageError` for a name that cannot be one, or is taken, and for a folder in use; nothing is written then.
    """
    module = _module(kind, name)
    target = (folder or Path(name)).absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{target} is there already and is not an empty folder: name a new one")
    names = {
        "kind": kind,
        "id": name,
        "module": module,
        "cls": "".join(word.capitalize() for word in name.split("-")),
        "base": BASE[kind],
        "version": version("mmguard-arena"),
    }
    files = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        f"{module}.py": f"{kind}.py.j2",
        "suite.yaml": "suite.yaml.j2",
        f"tests/test_{module}.py": "tests.py.j2",
    }
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("arena.kit"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # programs and plain text, made of names that were checked
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{name[:40]}-", dir=target.parent))
        try:
            for file, template in files.items():
                (part / file).parent.mkdir(exist_ok=True)
                (part / file).write_text(templates.get_template(template).render(names), encoding="utf-8")
            part.chmod(0o755)
            os.rename(part, target)  # noqa: PTH104  # whole, also onto an empty folder
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"{target} cannot be written ({error.strerror}): name another folder") from error
    return Written(target, tuple(map(Path, files)))


def _module(kind: Kind, name: str) -> str:
    """The module of a plugin's package. Raises `UsageError`."""
    if len(name) > _LONGEST:
        raise UsageError(f"an id of {len(name)} characters names no file: choose one of at most {_LONGEST}")
    if not ID.fullmatch(name) or not name[0].isalpha():
        raise UsageError(
            f"{name!r} cannot be a plugin's id: it is made of lower case letters, digits and hyphens, and begins with "
            "a letter, since a module is called so too"
        )
    taken = {entry.id: entry for entry in Registry().entries(kind)}
    if name in taken:
        raise UsageError(
            f"{kind} {name!r} is there already, of package {taken[name].origin}: choose another name, or uninstall it"
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in _PACKAGING or find_spec(module) is not None:
        raise UsageError(f"a module cannot be called {module!r}, which Python or a package has already: choose another")
    return module
