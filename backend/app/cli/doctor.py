"""``nova doctor``: what is in force, why, whether it answers, and what to set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from app.cli.exits import ExitCode
from app.cli.session import JsonOption, session_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.cli.checks import Finding

__all__ = ["doctor"]

_STATE_STYLE = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(ctx: typer.Context, *, json: JsonOption = False) -> None:
    """Look at every part: which backend is in force and why, whether it answers, and what to set.

    Nothing is changed, and no language model is called. The exit code is that of the first problem, 0 without one.

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
    }


def _view(findings: Sequence[Finding]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from app.cli.output import printable, table

    made = table("part", "", "in force", "why")
    for each in findings:
        in_force = each.in_force + (f" (library: {each.library})" if each.library else "")
        made.add_row(
            each.part, Text(each.state, style=_STATE_STYLE[each.state]), printable(in_force), printable(each.why)
        )
    remedies = [Text(f"{each.part}: {each.remedy}") for each in findings if each.remedy]
    return Group(made, *remedies)
