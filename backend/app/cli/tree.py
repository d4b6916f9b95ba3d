"""The command tree: the root with its global options, and the groups below it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from app.cli import ask, budget, db, doctor, metrics, models, offload, prices, running, runs
from app.cli.exits import Ended
from app.cli.session import JsonOption, Session, session_of

__all__ = ["app"]


_GLOBAL_OPTIONS: Final = ("--data-dir", "--no-color", "--tenant")


class _FlagsWithoutType:
    """A flag takes no value, so its help names no type."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, ``--help`` included."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
        return params


class NovaGroup(_FlagsWithoutType, TyperGroup):
    """The root command: the one place where errors become messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except typer.TyperException as caught:
            option = getattr(caught, "option_name", None)
            if option in _GLOBAL_OPTIONS:
                caught.message = f"{option} stands before the command: nova {option} ... {ctx.invoked_subcommand} ..."
            raise
        except typer.Exit:
            raise
        except typer.Abort:
            error: BaseException = Ended.interrupted("nothing was changed")
        except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001 - whatever a user meets is told here, once
            error = caught
        session = ctx.obj if isinstance(ctx.obj, Session) else Session()
        raise typer.Exit(session.report(error))


class _Command(_FlagsWithoutType, TyperCommand):
    """A command as its help shows it."""


class _Group(_FlagsWithoutType, TyperGroup):
    """A group below the root, as its help shows it."""


def _show_flags_without_type(tree: typer.Typer) -> None:
    for command in tree.registered_commands:
        command.cls = _Command
    for group in tree.registered_groups:
        if group.typer_instance is not None:
            group.typer_instance.info.cls = _Group
            _show_flags_without_type(group.typer_instance)


app = typer.Typer(
    name="nova",
    cls=NovaGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes and every command: docs/cli.md. What is configured, and what to set: nova doctor.",
)


@app.callback()
def root(
    ctx: typer.Context,
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="DIR",
            help="Where nova.db lies. Default: NOVA_DATA_DIR, else your user's data directory.",
        ),
    ] = None,
    tenant: Annotated[
        str, typer.Option("--tenant", metavar="NAME", help="Whose runs, budgets and keys.", show_default=True)
    ] = "default",
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours; NO_COLOR does the same.")] = False,
) -> None:
    """LLM work that does not lose its place and does not overspend.

    A first run:  nova run examples/brief.yaml --input documents=examples/documents --budget '$0.50'
    """
    ctx.obj = Session(data_dir=data_dir, tenant=tenant, color=not no_color)


@app.command("version")
def version(ctx: typer.Context, *, json: JsonOption = False) -> None:
    """Show which Nova this is, and what it runs on.

    Example:  nova version --json
    """
    import platform
    import sqlite3
    from importlib import metadata

    from app.cli.output import facts

    session = session_of(ctx, json=json)
    try:
        nova = metadata.version("nova-llm")
    except metadata.PackageNotFoundError:  # a checkout with backend/ on the import path
        nova = "not installed"
    document = {"nova": nova, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    session.show(document, lambda: facts(document.items()))


app.command("run")(running.run)
app.command("resume")(running.resume)
app.command("ask")(ask.ask)
app.command("prices")(prices.prices)
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)
app.command(
    "offload", add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)(offload.offload)
app.add_typer(runs.group, name="runs")
app.add_typer(budget.group, name="budget")
app.add_typer(db.group, name="db")
app.add_typer(metrics.group, name="metrics")

_show_flags_without_type(app)
