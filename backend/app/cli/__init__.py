"""``nova``, the command line: it explains what the stores report and the policies decide."""

from __future__ import annotations

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

    try:
        from app.cli.tree import app

        app(args=None if arguments is None else list(arguments), prog_name="nova")
        code: int = ExitCode.OK
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else ExitCode.OK
    except KeyboardInterrupt:  # before a command had begun
        code = ExitCode.INTERRUPTED
    sys.exit(_flushed(code))


def _flushed(code: int) -> int:
    """Write out what is buffered, so that the interpreter's end has nothing left to complain about."""
    from app.cli.exits import ExitCode

    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except BrokenPipeError:
            code = code or ExitCode.CLOSED_PIPE
        except OSError as error:
            if descriptor == 1:
                sys.stderr.write(f"error: the output could not be written: {error.strerror}\n")
            code = code or ExitCode.OUTPUT
        else:
            continue
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return int(code)
