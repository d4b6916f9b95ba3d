"""``nova``, the command line: it explains what the stores report and the policies decide."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``nova`` and end the process with one of :class:`app.cli.exits.ExitCode`.

    Args:
        arguments: without the program's name; None takes the process's own.
    """
    from app.cli.exits import ExitCode

    _open_streams()
    try:
        from app.cli.tree import app

        app(args=None if arguments is None else list(arguments), prog_name="nova")
        code: int = ExitCode.OK
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else ExitCode.OK
    except KeyboardInterrupt:  # before a command had begun
        code = ExitCode.INTERRUPTED
    except OSError as error:  # while help or a usage error was written, which is not a command yet
        code = _unwritten(error)
    sys.exit(_flushed(code))


def _open_streams() -> None:
    """Put the null device in the place of standard streams that are closed, before a database gets their numbers.

    And let no letter of a document end a command where the terminal's encoding does not have it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - it stays open as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flushed(code: int) -> int:
    """Write out what is buffered, so that the interpreter's end has nothing left to complain about."""
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except OSError as error:
            if descriptor == 1:
                code = code or _unwritten(error)
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return int(code)


def _unwritten(error: OSError) -> int:
    """Say that the output could not be written, and return the exit code for it; quietly where nobody reads."""
    from app.cli.exits import ExitCode

    if isinstance(error, BrokenPipeError):
        return ExitCode.CLOSED_PIPE
    with contextlib.suppress(OSError):
        sys.stderr.write(f"error: the output could not be written: {error.strerror}\n")
        sys.stderr.flush()
    return ExitCode.OUTPUT
