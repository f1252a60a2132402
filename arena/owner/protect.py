"""Protect a data owner's folder: clean samples in, a release and an honest report out; resumable."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from arena.budget import Budget
from arena.data import trained
from arena.data.pictures.encoding import PNG, Encoding
from arena.data.sample import digest
from arena.engine.describe import Model, Plugins
from arena.errors import ArenaError, UsageError
from arena.files import write_atomically
from arena.owner.earlier import already_protected
from arena.owner.estimate import Before, Prepared
from arena.owner.intake import not_all
from arena.owner.originals import read_originals
from arena.owner.phases import Phases, Progress
from arena.owner.released import read_released
from arena.owner.report import FILE, Report, Request, read_report
from arena.owner.seen import Seen
from arena.owner.session import Session
from arena.paths import exists, is_file, is_folder, unreadable
from arena.plugins.registry import Registry

WORK = ".work"


def protect_folder(
    source: str | Path,
    out: str | Path,
    defense: str,
    surrogates: Sequence[str] = (),
    *,
    config: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    limit: int | None = None,
    encoding: Encoding = PNG,
    keep_exif: bool = False,
    strict: bool = False,
    resume: bool = False,
    reuse: str | Path | None = None,
    progress: Progress | None = None,
    before: Before | None = None,
    isolated: bool = True,
) -> Report:
    """Protect the samples of `source` and write the release and its report into the folder `out`.

    `source`, `columns`, `split`, `limit`, `encoding` and `keep_exif` are those of
    `arena.owner.originals.read_originals`; the source is only read. A picture that cannot be released is named in the
    report; with `strict` it is an error, before anything is crafted. `defense` is a registered id, `config` its
    settings, of which `views` and `copies` are on unless it says otherwise; `surrogates` are names as `surrogate` takes
    them. `budget` is 8/255 and 5 words by default. `progress` is called with the share done, 0 to 1, and a note, and
    `before` with all that is known before crafting starts: what it estimates is how `progress` is told, and it may
    raise `arena.owner.estimate.DryRun`. Defense and surrogates run in processes of their own unless `isolated` is off,
    which is for debugging. The same arguments give the same release on one machine and thread count.

    ``out/data`` becomes an imagefolder with the pictures' own names, with the ending of the `encoding`;
    ``out/report.json`` and ``out/report.html`` tell what was measured on it, and what was changed beside. Until then
    everything is in ``out/.work``, and `resume` goes on with what an interrupted run left there; of a finished run it
    gives the report, if the release is as that says. Otherwise `out` must be empty or new.

    Where the defense keeps what it trained, that is in ``out/trained``, and `reuse`, the folder `out` of an earlier
    run, applies it to these samples, with the settings of then, the same surrogates and budget.

    Raises `UsageError` for a wrong request or folder, `BudgetError` for a defense beyond its budget, `ArenaError` for
    damaged data, a failing defense or a failing disk.
    """
    origin, out = str(Path(source).absolute() if exists(source) else source), Path(out).absolute()
    _check_place(Path(origin), out, resume)
    plugins = Plugins(Registry(), apart=isolated)
    budget = budget or Budget()
    models = [surrogate(name, plugins) for name in surrogates]
    config = {**_defaults(defense, plugins), **(config or {})}
    if reuse is not None:
        config = _reusing(Path(reuse).absolute(), defense, config, models, budget, plugins)
    card, spec = plugins.plugin("defense", defense, config)
    _check_needs(defense, card.needs, models)
    tell = Phases(progress)
    tell(0.0, "reading the samples")
    originals = read_originals(*(origin, columns, split, limit, encoding, keep_exif), tell=lambda note: tell(0.0, note))
    if strict and originals.refused:
        raise not_all(originals.refused)
    seen = Seen.of(tell.each(originals.samples, "looking at the pictures"))
    warnings = tuple(already_protected(seen, origin, out))
    request = Request(
        source=origin,
        split=split,
        columns=dict(columns or {}),
        limit=limit,
        samples=len(originals.samples),
        digest=digest(originals.samples),
        defense=plugins.reference(spec).model_dump(),
        surrogates=[m.reference.model_dump() for m in models],
        budget=budget,
        seed=seed,
        encoding=encoding,
        keep_exif=keep_exif,
    )
    work = out / WORK
    if exists(out / FILE):
        report = read_report(out)
        _compare(report.request, request, out)
        if strict and report.refused:
            raise not_all(report.refused)
        read_released(out, report)
    else:
        specs = tuple(model.spec for model in models)
        prepared = Prepared(request, originals, spec, specs, seen, warnings, isolated)
        if before is not None:
            tell(0.0, "estimating how long it takes")
            if (expected := before(prepared)) is not None:
                tell.expect(expected.seconds)
        try:
            work.mkdir(parents=True, exist_ok=True)
            with FileLock(work / "lock", timeout=0):
                resumed = _begin(work, request)
                session = Session(
                    *(request, originals, spec, card.needs, specs, work, tell, resumed, seen, warnings),
                    *(isolated, strict),
                )
                report = session.run()
                _publish(work, out)
        except Timeout:
            raise UsageError(f"{out}: another process is protecting into this folder: let it finish") from None
        except OSError as error:
            raise ArenaError(
                f"{out} cannot be written: {error}. What is finished is kept there: repair the cause and use --resume"
            ) from error
    shutil.rmtree(work, ignore_errors=True)
    return report


def surrogate(name: str, plugins: Plugins) -> Model:
    """The model of a registered id, or of ``ID=CHECKPOINT`` with a path or hub id, such as ``llava=PATH``.

    A checkpoint is loaded onto the GPU where there is one. Raises `UsageError` for an unknown id.
    """
    id, given, checkpoint = name.partition("=")
    settings: dict[str, Any] = {}
    if given:
        path = Path(checkpoint)
        settings["checkpoint"] = str(path.absolute()) if exists(path) else checkpoint
        if "device" in plugins.registry.get("model", id).load().Config.model_fields:
            import torch

            settings |= {"device": "cuda"} if torch.cuda.is_available() else {}
    return plugins.model(id, settings)


def _defaults(defense: str, plugins: Plugins) -> dict[str, Any]:
    """Settings that an owner has other defaults for than a suite: no part of a picture is left out, and near copies
    share a perturbation."""
    known = plugins.registry.get("defense", defense).load().Config.model_fields
    return {name: value for name, value in {"views": True, "copies": "near"}.items() if name in known}


def _reusing(
    earlier: Path, defense: str, config: Mapping[str, Any], models: Sequence[Model], budget: Budget, plugins: Plugins
) -> dict[str, Any]:
    """The settings under which a defense applies what it trained in an earlier run. Raises `UsageError` where it
    cannot, or is asked otherwise than then."""
    if "reuse" not in plugins.registry.get("defense", defense).load().Config.model_fields:
        raise UsageError(f"defense {defense!r} trains nothing that other samples could be given: leave out --reuse")
    before = read_report(earlier).request
    now = plugins.reference(plugins.plugin("defense", defense, config)[1]).model_dump()
    asked = {
        "defense": {name: now[name] for name in ("id", "version", "config")},
        "surrogates": [model.reference.model_dump() for model in models],
        "budget": budget,
    }
    then = {
        "defense": {name: before.defense.get(name) for name in ("id", "version", "config")},
        "surrogates": before.surrogates,
        "budget": before.budget,
    }
    if other := [name for name, value in asked.items() if value != then[name]]:
        raise UsageError(
            f"{earlier} was asked for otherwise ({', '.join(other)} differ), and what was trained there fits that "
            "alone: repeat the arguments of then, or leave out --reuse"
        )
    if not is_file(earlier / trained.FOLDER / trained.FILE):
        raise UsageError(f"{earlier} has no {trained.FOLDER}/{trained.FILE}: name a folder in which it was kept")
    return {**config, "reuse": str(earlier / trained.FOLDER)}


def _check_place(source: Path, out: Path, resume: bool) -> None:
    """Refuse an output that is in use, or that would write into the input."""
    there = exists(out)
    if exists(source):
        inner, outer = out.resolve(), source.resolve()
        if inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise UsageError(f"{out} and the source {source} lie in each other: name an output folder apart from it")
    if there and not is_folder(out):
        raise UsageError(f"{out} is a file: name a new folder")
    try:
        found = sorted(p.name for p in out.iterdir()) if there else []
    except OSError as error:
        raise unreadable(out, error) from error
    ours = is_file(out / FILE) or is_file(out / WORK / "request.json") or found == [WORK]
    if not found or (resume and ours):
        return
    if resume:
        raise UsageError(f"{out} holds no run of `arena protect` to go on with ({found[0]!r} is in it): name another")
    remedy = "--resume goes on with the run in it, or name a new folder" if ours else "name a new one"
    raise UsageError(f"{out} is not empty ({found[0]!r} is in it): {remedy}")


def _check_needs(name: str, needs: frozenset[str], surrogates: Sequence[Model]) -> None:
    if "surrogates" in needs and not surrogates:
        raise UsageError(
            f"defense {name!r} needs a surrogate model: name one with --surrogate, see `arena list models`"
        )
    if "auxiliary" in needs:
        raise UsageError(f"defense {name!r} needs public auxiliary samples, which only a suite can grant")


def _begin(work: Path, request: Request) -> bool:
    """Note the request, or see that an earlier session was given the same; whether there was one."""
    path = work / "request.json"
    if path.exists():
        try:
            before = Request.model_validate_json(path.read_bytes())
        except OSError as error:
            raise unreadable(path, error) from error
        except ValidationError as error:
            raise ArenaError(f"{path} is damaged or from another version: start anew in another folder") from error
        _compare(before, request, work.parent)
        return True
    write_atomically(path, request.model_dump_json(indent=1).encode())
    return False


def _compare(before: Request, now: Request, out: Path) -> None:
    other = [name for name in Request.model_fields if getattr(before, name) != getattr(now, name)]
    if other:
        raise UsageError(
            f"{out} holds a run of another request ({', '.join(other)} differ): repeat its arguments, on unchanged "
            "data and packages, or name a new folder"
        )


def _publish(work: Path, out: Path) -> None:
    """Move what is finished to its place; the report last, which marks the end."""
    kept = [trained.FOLDER] if exists(work / trained.FOLDER) else []
    for name in ("data", *kept, "report.html", FILE):
        target = out / name
        if target.is_dir():  # an earlier session ended while moving
            shutil.rmtree(target)
        (work / name).replace(target)
