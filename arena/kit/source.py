"""Which line of a plugin's own code to look at; nothing of it is imported."""

from __future__ import annotations

import ast
import re
from contextlib import suppress
from pathlib import Path

from arena.errors import ArenaError
from arena.plugins.registry import Entry
from arena.plugins.source import locate

METHODS = {
    "defense": ("perturb", "protect"),
    "attack": ("purify_images", "purify_texts", "purify", "training", "fit"),
    "recipe": ("prepare",),
    "dataset": ("load",),
    "model": ("load",),
}
"""What an author writes, by kind; the first that there is does the work."""

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


class Source:
    """The files of a plugin. Raises `ArenaError` where its module has no source."""

    def __init__(self, entry: Entry) -> None:
        self._kind = entry.kind
        module, self._name = entry.point.module, entry.point.attr.partition(".")[0]
        file = locate(module)
        if file is None:
            raise ArenaError(f"{entry.kind} {entry.id!r}: its module {module!r} has no source file: reinstall it")
        self.file = file.absolute()
        top = module.partition(".")[0]
        package = locate(top)
        whole = package is not None and package.name == "__init__.py" and top != "arena"
        self.own: tuple[str, ...] = (str(self.file), *((f"{package.absolute().parent}/",) if whole and package else ()))
        """What the names of its files begin with."""
        self._lines = dict(_definitions(self.file, self._name))

    def line(self, *names: str) -> str:
        """``file:line`` of the first of some methods or settings that the class has of its own, else of the class."""
        found = next((self._lines[name] for name in names if name in self._lines), self._lines.get("", 1))
        return _shown(self.file, found)

    @property
    def work(self) -> str:
        """``file:line`` of the method that does the work."""
        return self.line(*METHODS[self._kind])

    def in_trace(self, trace: str) -> str:
        """``file:line`` of the last frame of a traceback that is the plugin's own, else of the method that does the
        work. Files may be named below a folder that the interpreter finds packages in."""
        for name, number in reversed(_FRAME.findall(trace)):
            if (path := self._own(name)) is not None:
                return _shown(path, int(number))
        return self.work

    def refuses(self, trace: str) -> bool:
        """Whether a traceback is that of an error of the arena's own kind which the plugin's code raised itself."""
        frames, said = _FRAME.findall(trace), trace.rstrip().splitlines()
        at_the_end = bool(frames) and self._own(frames[-1][0]) is not None
        return at_the_end and any(line.startswith("arena.errors.") for line in said)

    def _own(self, name: str) -> Path | None:
        """The file of that name in a traceback, if it is the plugin's own."""
        for root in self.own:
            folder = Path(root) if root.endswith("/") else Path(root).parent
            for place in (folder, *folder.parents):
                if (path := place / name).is_file() and str(path).startswith(self.own):
                    return path
        return None


def _definitions(file: Path, name: str) -> list[tuple[str, int]]:
    """Lines of a class, under an empty name, of its methods and attributes, and of the settings of its Config."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            found.append(("", node.lineno))
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    found.append((part.name, part.lineno))
                elif isinstance(part, ast.Assign):
                    found += [(target.id, part.lineno) for target in part.targets if isinstance(target, ast.Name)]
                elif isinstance(part, ast.ClassDef) and part.name == "Config":
                    found.append(("Config", part.lineno))
                    fields = (field for field in part.body if isinstance(field, ast.AnnAssign))
                    found += [(f.target.id, f.lineno) for f in fields if isinstance(f.target, ast.Name)]
    return found


def _shown(path: Path, line: int) -> str:
    """As the reader would open it: below the present folder by its relative name."""
    with suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return f"{path}:{line}"
