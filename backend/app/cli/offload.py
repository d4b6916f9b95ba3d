"""``nova offload``: the offload job, with the arguments and exit codes of its program."""

from __future__ import annotations

import typer

from app.cli.session import session_of

__all__ = ["offload"]


def offload(ctx: typer.Context) -> None:
    """Move old runs to the archive, and look after it; its exit codes are its own (docs/offload.md)."""
    from app.stores.offload.command import run

    session = session_of(ctx)
    arguments = list(ctx.args)
    if session.tenant != "default" and "--tenant" not in arguments:
        arguments += ["--tenant", session.tenant]
    raise typer.Exit(run(arguments, load=lambda: session.settings, program="nova offload"))
