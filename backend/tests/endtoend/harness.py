"""Real processes for end-to-end tests: the counting provider, and ``nova`` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

NOVA = (sys.executable, "-m", "app.cli")
BACKEND = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nova:
    """``nova`` with its environment: one data directory, one provider."""

    environment: dict[str, str]

    def run(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; an exit code outside ``ok`` fails the test with what was printed."""
        done = subprocess.run(
            [*NOVA, *arguments], env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode in ok, f"nova {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def json(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        return json.loads(self.run(*arguments, "--json", ok=ok).stdout)

    def start(self, *arguments: str, output: IO[str] | None = None) -> subprocess.Popen[str]:
        """Start a command in a session of its own; its output goes to a file, or to a pipe."""
        return subprocess.Popen(
            [*NOVA, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE if output is None else output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def kill(process: subprocess.Popen[str]) -> str:
    """End a process with SIGKILL, wait for it, and return what it had printed."""
    process.send_signal(signal.SIGKILL)
    return process.communicate(timeout=30)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """The counting provider while it runs."""

    port: int

    @property
    def base_url(self) -> str:
        """What ``OPENAI_BASE_URL`` is set to."""
        return f"http://127.0.0.1:{self.port}/v1"

    def received(self) -> int:
        """Return how many calls it received in full."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/count", timeout=10) as answer:
            return int(json.load(answer)["received"])


@contextmanager
def counting_provider(*, latency_s: float) -> Iterator[Provider]:
    """Run the provider as a process of its own."""
    script = Path(__file__).with_name("counting_server.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(latency_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Provider(port=int(process.stdout.readline()))
    finally:
        process.communicate(input="", timeout=30)


def nova_with(data_dir: Path, **variables: str) -> Nova:
    """Return ``nova`` on a data directory, with an environment of nothing else but ``variables``."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return Nova(
        environment={
            **kept,
            "PYTHONPATH": str(BACKEND),
            "NOVA_DATA_DIR": str(data_dir),
            "NO_COLOR": "1",
            **variables,
        }
    )
