"""``nova doctor``: what is in force, why, whether it answers, and what to set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from app.cli.exits import ExitCode
from app.cli.session import JsonOption, session_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.cli.finding import Finding

__all__ = ["doctor"]

_STATE_STYLE = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(ctx: typer.Context, *, json: JsonOption = False) -> None:
    """Look at every part: which backend is in force and why, whether it answers, and what to set.

    Nothing is changed and no model is called; in an archive that is there a probe is stored, read and deleted.
    The exit code is that of the first problem, 0 without one.

    Example:  nova doctor --json
    """
    from app.cli.checks import examine

    session = session_of(ctx, json=json)
    findings = list(examine(session))
    session.show(
        {"ok": all(each.state != "problem" for each in findings), "parts": [_document(each) for each in findings]},
        lambda: _view(findings),
    )
    code = next((each.exit_code for each in findings if each.state == "problem"), ExitCode.OK)
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def _document(finding: Finding) -> dict[str, Any]:
    return {
        "part": finding.part,
        "state": finding.state,
        "in_force": finding.in_force,
        "library": finding.library or finding.in_force,
        "why": finding.why,
        "remedy": finding.remedy,
        "latency_ms": None if finding.latency_ms is None else round(finding.latency_ms, 3),
    }


def _view(findings: Sequence[Finding]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from app.cli.output import printable

    view = Table.grid(padding=(0, 2))
    view.add_column(no_wrap=True)
    view.add_column(no_wrap=True, style="bold")
    view.add_column(overflow="fold")
    for each in findings:
        told = Text(printable(each.in_force))
        if each.library:
            told.append(f" (library: {each.library})")
        told.append(f"\n{printable(each.why)}", style="dim")
        if each.remedy:
            told.append(f"\nto do: {printable(each.remedy)}", style="yellow")
        view.add_row(Text(each.state, style=_STATE_STYLE[each.state]), each.part, told)
    return view
