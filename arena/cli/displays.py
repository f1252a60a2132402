"""What commands print beside plans and plugins: costs of a suite, modules that a recipe trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from arena.engine.cost import Costs
    from arena.engine.graph import Plan
    from arena.engine.stages import Stage
    from arena.plugins.registry import Registry


def show_costs(costs: Costs, out: Console) -> None:
    """The total of a plan by the cost model, and what that assumes."""
    from arena.engine.cost import assumptions

    disk = gigabytes(sum(costs.disk.values()))
    out.print(
        f"about {hours(costs.gpu_hours())} GPU hours and {disk} of artifacts, beside {gigabytes(costs.downloads)} of "
        "base models"
    )
    if costs.unknown:
        out.print(f"not counted, since nobody said how many parameters they have: {', '.join(costs.unknown)}")
    out.print(assumptions())


def counted(count: int, what: str) -> str:
    """``1 cell``, ``2 cells``."""
    return f"{count} {what}" + "s" * (count != 1)


def hours(count: float) -> str:
    """GPU hours as text."""
    return f"{count:,.1f}" if count < 100 else f"{count:,.0f}"


def gigabytes(count: float) -> str:
    """Bytes as text."""
    return f"{count / 1e9:,.1f} GB" if count < 1e12 else f"{count / 1e12:,.1f} TB"


def show_why(plan: Plan, reasons: Mapping[str, str], missing: Sequence[Stage], out: Console) -> None:
    """What makes each cell and each stage of a plan run: `reasons` by cell as of `arena.engine.execute.why_cells`, and
    the stages that are `missing` for these cells."""
    from arena.engine.why import why_stages

    todo = [cell for cell in plan.cells if cell.key in reasons]
    for reason in dict.fromkeys(reasons[cell.key] for cell in todo):
        same = [cell for cell in todo if reasons[cell.key] == reason]
        out.print(f"{counted(len(same), 'cell')}: {reason}", markup=False, soft_wrap=True)
        for cell in same:
            out.print(f"  {cell.key[:12]} {cell.label}", markup=False, highlight=False, soft_wrap=True)
    found = why_stages(plan, missing)
    for reason in dict.fromkeys(found[stage.name] for stage in missing):
        alike = [stage for stage in missing if found[stage.name] == reason]
        out.print(f"{counted(len(alike), 'stage')}: {reason}", markup=False, soft_wrap=True)
        for stage in alike:
            out.print(f"  {stage.kind} {stage.label}", markup=False, highlight=False, soft_wrap=True)


def show_trained(registry: Registry, recipe: str, model: str, out: Console) -> None:
    """What a recipe trains in a model, which is loaded for it."""
    from rich.table import Table
    from rich.text import Text

    from arena.environment import quiet_libraries

    quiet_libraries()
    from arena.engine.describe import Plugins
    from arena.owner.protect import surrogate
    from arena.plugins.spec import load_model
    from arena.recipes.trained import trained_modules

    lvlm = load_model(surrogate(model, Plugins(registry)).spec)
    parts, total = trained_modules(registry.create("recipe", recipe), lvlm)
    table = Table(f"trained in {model}", "what", "parameters", "share", box=None, pad_edge=False, show_footer=True)
    for column in table.columns[2:]:
        column.justify = "right"
    for part in parts:
        table.add_row(Text(part.modules), part.what, f"{part.parameters:,}", f"{part.parameters / total:.2%}")
    learning = sum(part.parameters for part in parts)
    footers = ("all", f"of {total:,}", f"{learning:,}", f"{learning / total:.2%}")
    for column, footer in zip(table.columns, footers, strict=True):
        column.footer = footer
    out.print(table)
