"""`arena stress`: a protection held against requirements, for continuous integration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arena.cli.console import stderr, stdout
from arena.cli.options import Results, StoreUrl, possible, read_budget, read_settings

if TYPE_CHECKING:
    from arena.stress.settings import Asked

commands = typer.Typer()


@commands.command()
def stress(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="A folder that `arena protect` made, any folder of released pictures, or a defense's id. By default "
            "that of the file.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            callback=possible,
            help="Target, suite and requirements; options stand above it. Without TARGET arena-stress.yaml.",
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", metavar="SUITE", help="ci (minutes), core, or the path of a suite file.")
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="'SCORE>=NUMBER'",
            help="What must hold, in quotes, such as 'protection>=0.3'. Repeatable; beside those of the file.",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="RECORDS|REF",
            help="Fail on a significant loss against a JSONL file of records, or against the code of a git revision.",
        ),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="KEY=VALUE", help="A setting of the defense. Repeatable."),
    ] = None,
    originals: Annotated[str | None, typer.Option("--originals", help="Of a folder: what it was made from.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="FIELD=COLUMN", help="Of a folder: where its questions are. Repeatable."),
    ] = None,
    test: Annotated[int | None, typer.Option("--test", min=1, help="Of a folder: originals to score on.")] = None,
    budget_image: Annotated[
        float | None, typer.Option("--budget-image", help="Largest change of a pixel, in 1/255.")
    ] = None,
    budget_text: Annotated[int | None, typer.Option("--budget-text", help="Most words inserted.")] = None,
    answer_words: Annotated[
        bool | None,
        typer.Option("--allow-answer-words/--forbid-answer-words", help="Whether these may be words of the answer."),
    ] = None,
    budget_only: Annotated[
        bool, typer.Option("--budget-only", help="Of a folder: check its budget, run nothing.")
    ] = False,
    store: StoreUrl = None,
    results: Results = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Local workers; by default one a core.")] = None,
    force_failed: Annotated[bool, typer.Option("--force-failed", help="Try cells recorded as failed again.")] = False,
    junit: Annotated[Path | None, typer.Option("--junit", callback=possible, help="JUnit XML to write.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", callback=possible, help="A page to write.")] = None,
    json: Annotated[Path | None, typer.Option("--json", callback=possible, help="JSON to write.")] = None,
) -> None:
    """Run a protection through a suite and hold it against requirements. Exits 0 where all are met, 1 where one is not,
    2 for what cannot be asked or done, 3 where one cannot be decided."""
    from arena.errors import ArenaError, UsageError
    from arena.plugins.registry import Registry
    from arena.stress.report import refuse_others, summary, workflow_commands, write
    from arena.stress.run import check_budget
    from arena.stress.run import stress as run

    given = {"target": target, "suite": suite, "compare": compare, "originals": originals, "test": test}
    given |= {"results": None if results is None else str(results)}
    changes: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if config:
        changes["config"] = read_settings(config)
    if column:
        changes["columns"] = {key: str(value) for key, value in read_settings(column, "--column").items()}
    asked = _asked(target, file, require or [], changes, budget_image, budget_text, answer_words)
    refuse_others(junit, markdown, json)
    for path in (junit, markdown, json):  # of an earlier test; should this one not get to its end, there is none
        if path is not None:
            path.unlink(missing_ok=True)
    try:
        if budget_only:
            outcome = check_budget(asked, Registry())
        else:
            from arena.store.local import Store

            opened = Store(store)
            try:
                outcome = run(asked, stderr(), opened, Registry(), workers=workers, force_failed=force_failed)
            except KeyboardInterrupt as stop:
                kept = f"finished cells are recorded and finished stages kept in {opened.url}; run again to go on"
                raise KeyboardInterrupt(*(stop.args or (kept,))) from stop
    except UsageError:
        raise
    except ArenaError as error:  # whose exit code would be that of a requirement which is not met
        raise UsageError(str(error)) from error
    for line in summary(outcome):
        stdout().print(line, soft_wrap=True)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in workflow_commands(outcome):
            stdout().print(line, soft_wrap=True)
    write(outcome, junit, markdown, json)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _asked(
    target: str | None,
    file: Path | None,
    require: list[str],
    changes: dict[str, object],
    budget_image: float | None,
    budget_text: int | None,
    answer_words: bool | None,
) -> Asked:
    """The settings of file and options together. Raises `UsageError`."""
    from dataclasses import replace

    from arena.errors import UsageError
    from arena.stress.requirements import parse_all
    from arena.stress.settings import FILE, Settings, read_file
    from arena.stress.settings import Asked as Both

    if target is None and file is None and not Path(FILE).is_file():
        raise UsageError(f"name a target, or a file that does with --file: there is no {FILE} here")
    alone = target is not None and file is None
    asked = Both(Settings(target=str(target)), ()) if alone else read_file(file or Path(FILE))
    if budget_image is not None or budget_text is not None or answer_words is not None:
        known = asked.settings.budget
        image, text = (known.image, known.text) if known else (8.0, 5)
        allowed = known is not None and not known.forbid_answer_words
        changes["budget"] = read_budget(
            image if budget_image is None else budget_image,
            text if budget_text is None else budget_text,
            allowed if answer_words is None else answer_words,
        )
    settings = asked.settings.model_copy(update=changes)
    requirements = parse_all([*(one.text for one in asked.requirements), *require])
    return replace(asked, settings=settings, requirements=tuple(requirements))
