"""A server as a child process that tests start, kill, freeze and restart."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from tests.support.searched.search import SEARCH

__all__ = ["Server", "free_port"]

_START_S: Final = 60.0
_STOP_S: Final = 20.0
_POLL_S: Final = 0.01


def free_port() -> int:
    """Return a TCP port of loopback that nobody listens on now; below 50,000, since some servers use port + 10,000."""
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 50_000:
            return port


class Server(ABC):
    """One server with a data directory of its own, which goes with it; a context manager.

    Attributes:
        directory: where its data and its log lie.
        port: the port on 127.0.0.1; it stays the same over restarts.
    """

    stop_signal = signal.SIGTERM
    """What ends the server in good order."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="nova-server-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line that serves in the foreground."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server answers a request now."""

    def environment(self) -> Mapping[str, str]:
        """Return the environment of the process."""
        return os.environ

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server wrote to its output so far."""
        return (self.directory / "log").read_text(errors="replace")

    def start(self) -> Self:
        """Start the server on its data and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer within a minute; the text has its log.
        """
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment()
            )
        deadline = time.monotonic() + _START_S
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{type(self).__name__} did not start:\n{self.log[-4000:]}")
            time.sleep(_POLL_S)
        return self

    def kill(self) -> None:
        """End the server by SIGKILL, as a crash of its host would, and wait for its end."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in good order."""
        self._end(self.stop_signal)

    def restart(self) -> None:
        """Start a server that was killed or stopped again, on the same port and data."""
        if self._process is not None:
            self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop the server's clock: connections stay open and nothing answers, until ``thaw``."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove its data."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)
            self.stop()
        if (self.directory / "log").exists():
            SEARCH.look(self.log, where="the log of a server")
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, with_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        assert process is not None, "the server does not run"
        process.send_signal(with_signal)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(self, *_: object) -> None:
        self.close()
