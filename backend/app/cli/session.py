"""One invocation of ``nova``: its global options, its settings, its stores, and how it speaks."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from app.cli.exits import ExitCode, Explanation, explain

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.cli.output import NovaConsole
    from app.settings import Settings
    from app.stores.budget.contract import BudgetStore
    from app.stores.checkpoint.contract import CheckpointStorage

__all__ = ["JsonOption", "Session", "is_terminal", "session_of"]

T = TypeVar("T")

JsonOption = Annotated[
    bool, typer.Option("--json", help="Write one JSON document to standard output, and nothing else there.")
]


@dataclass(kw_only=True)
class Session:
    """What the commands share. Only the root command makes one; ``json`` is the one thing that a command sets."""

    data_dir: Path | None = None
    tenant: str = "default"
    color: bool = True
    json: bool = False
    environment: Settings | None = field(default=None, repr=False)

    @cached_property
    def library_settings(self) -> Settings:
        """What the environment says, as the library's factories read it."""
        from app.settings import load_settings

        return self.environment or load_settings()

    @cached_property
    def settings(self) -> Settings:
        """What the commands work with.

        Raises:
            ConfigurationError: a variable cannot be met.
        """
        from app.cli.configuration import for_command_line

        return for_command_line(self.library_settings, data_dir=self.data_dir)

    @cached_property
    def out(self) -> NovaConsole:
        """Standard output: results, and nothing but results."""
        from app.cli.output import console

        return console(color=self.color)

    @cached_property
    def err(self) -> NovaConsole:
        """Standard error: progress, hints and errors."""
        from app.cli.output import console

        return console(stderr=True, color=self.color)

    @property
    def nova(self) -> str:
        """How this program was called, global options included, for commands that a user can paste."""
        parts = ["nova"]
        if self.data_dir is not None:
            parts += ["--data-dir", str(self.data_dir)]
        if self.tenant != "default":
            parts += ["--tenant", self.tenant]
        return shlex.join(parts)

    def budget(self) -> BudgetStore:
        """Return the budget store."""
        from app.stores import get_budget_store

        return get_budget_store(self.settings)

    def checkpoints(self) -> CheckpointStorage:
        """Return the checkpoint store."""
        from app.stores import get_checkpoint_store

        return get_checkpoint_store(self.settings)

    def execute(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in a loop of its own, and close the stores behind it."""
        import asyncio

        from app.logs import logging_as_configured
        from app.stores import close_stores

        async def whole() -> T:
            try:
                return await work()
            finally:
                await close_stores()

        try:
            with logging_as_configured(self.library_settings):
                return asyncio.run(whole())
        finally:
            self._write_metrics()

    def _write_metrics(self) -> None:
        from app.errors import ConfigurationError
        from app.exposition import write_as_configured

        try:
            write_as_configured(self.library_settings)
        except ConfigurationError:  # which the command itself has told
            return

    def show(self, document: object, render: Callable[[], RenderableType], *, wrap: bool = True) -> None:
        """Give the result: the document with ``--json``, else what ``render`` draws; without ``wrap`` line by line."""
        if self.json:
            from app.cli.output import write_json

            write_json(document)
        else:
            self.out.print(render(), soft_wrap=not wrap)

    def give(self, document: object, value: object) -> None:
        """Give a recorded value as the result: the document with ``--json``, else the value.

        On a terminal it is wrapped between words, which a terminal would break; elsewhere it is as it was recorded.
        """
        from app.cli.output import text_of, wrapped, write_json, write_text

        if self.json:
            write_json(document)
        elif value is not None:
            text = text_of(value)
            write_text((wrapped(text, self.out.width) if sys.stdout.isatty() else text) + "\n")

    def note(self, text: str) -> None:
        """Say something beside the result, on standard error."""
        self.err.print(text, style="dim", soft_wrap=True)

    def report(self, error: BaseException) -> ExitCode:
        """Tell the user about an error, and return the exit code that belongs to it."""
        explanation = explain(error, nova=self.nova)
        if explanation.exit_code is ExitCode.CLOSED_PIPE:
            return explanation.exit_code
        if explanation.exit_code is ExitCode.UNEXPECTED and self._debugging():
            from app.logs import redacted_traceback

            sys.stderr.write(redacted_traceback(error) + "\n")
        self._tell(explanation)
        if self.json:
            from app.cli.output import write_json

            write_json({**explanation.document, "error": error_document(explanation)})
        return explanation.exit_code

    def _tell(self, explanation: Explanation) -> None:
        from app.cli.output import printable
        from app.redaction import redact

        word, style = ("stopped", "yellow") if explanation.exit_code in _STOPPED else ("error", "bold red")
        self.err.print(f"{word}: ", style=style, end="")
        self.err.print(printable(redact(explanation.message)), soft_wrap=True)
        if explanation.remedy is not None:
            self.err.print(f"  {printable(redact(explanation.remedy))}", style="dim", soft_wrap=True)

    def _debugging(self) -> bool:
        from app.errors import ConfigurationError

        try:
            return self.library_settings.nova_debug
        except ConfigurationError:
            return False


_STOPPED = {ExitCode.HANGUP, ExitCode.INTERRUPTED, ExitCode.TERMINATED, ExitCode.RUN_WAITING}


def error_document(explanation: Explanation) -> dict[str, Any]:
    """Return what ``--json`` shows of an error."""
    from app.redaction import redact

    return {
        "code": explanation.code,
        "exit_code": int(explanation.exit_code),
        "message": redact(explanation.message),
        "remedy": None if explanation.remedy is None else redact(explanation.remedy),
    }


def session_of(ctx: typer.Context, *, json: bool = False) -> Session:
    """Return the invocation's session, told whether its result is for a program."""
    session: Session = ctx.obj
    session.json = session.json or json
    return session


def is_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()
