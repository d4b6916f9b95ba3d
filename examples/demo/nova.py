"""``nova`` as the demo runs it: real child processes, in an environment that can reach nobody's account or state."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "DemoError", "Nova", "shown"]

ROOT: Final = Path(__file__).resolve().parents[2]

_NOT_HANDED_ON: Final = (
    "ANTHROPIC_",
    "BUDGET_STORE",
    "CHECKPOINT_",
    "DATABASE_URL",
    "ENV",
    "IDEMPOTENCY_STORE",
    "LLM_ADAPTER",
    "NOVA_",
    "OPENAI_",
    "R2_",
    "REDIS_URL",
)
_STOP_S: Final = 1.0
"""How long each of these is waited for."""


class DemoError(Exception):
    """The demo cannot go on; the text says what happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nova:
    """The command line on a directory of its own.

    Attributes:
        data_dir: where its ``nova.db`` lies.
        settings: the variables that are set for it, beside the data directory.
    """

    data_dir: Path
    settings: Mapping[str, str]

    @property
    def variables(self) -> dict[str, str]:
        """The variables that a user would export to get the same."""
        return {**self.settings, "NOVA_DATA_DIR": shown(self.data_dir)}

    def call(self, *arguments: str) -> None:
        """Run a command on this terminal.

        Raises:
            DemoError: it ended with another code than 0.
        """
        code = subprocess.run(self._command(arguments), cwd=ROOT, env=self._environment(), check=False).returncode
        if code != 0:
            raise DemoError(f"nova {shlex.join(arguments)} ended with code {code}")

    def output_of(self, *arguments: str) -> str:
        """Run a command whose result goes to the demo, and whose progress to this terminal; return the result.

        Raises:
            DemoError: it ended with another code than 0.
        """
        done = subprocess.run(
            self._command(arguments), cwd=ROOT, env=self._environment(), check=False, stdout=subprocess.PIPE, text=True
        )
        if done.returncode != 0:
            raise DemoError(f"nova {shlex.join(arguments)} ended with code {done.returncode}")
        return done.stdout

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a command on this terminal; whatever happens, it does not outlive the block."""
        process = subprocess.Popen(self._command(arguments), cwd=ROOT, env=self._environment())
        try:
            yield process
        finally:
            _end(process)

    def _command(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        return (sys.executable, "-m", "app.cli", *arguments)

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(_NOT_HANDED_ON)}
        paths = [str(ROOT / "backend"), *filter(None, [inherited.get("PYTHONPATH")])]
        return {
            **inherited,
            **self.settings,
            "NOVA_DATA_DIR": str(self.data_dir),
            "PYTHONPATH": os.pathsep.join(paths),
        }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, then to end at once, and then do not ask."""
    for ask in (process.terminate, process.terminate, process.kill):
        if process.poll() is not None:
            return
        ask()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    process.wait()


def shown(path: Path) -> str:
    """Return a path as it is written from the root of the checkout."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
