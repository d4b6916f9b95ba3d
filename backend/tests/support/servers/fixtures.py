"""A Valkey server for tests: one for a whole session, emptied before each test that asks for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.servers.valkey import ValkeyServer


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[ValkeyServer]:
    """Give a server for the whole session; a test that breaks its server starts one of its own."""
    with ValkeyServer(durable=False) as server:
        yield server


@pytest.fixture
def valkey(shared_valkey: ValkeyServer) -> ValkeyServer:
    """Give the shared server with no key on it."""
    with socket.create_connection(("127.0.0.1", shared_valkey.port), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(64) == b"+OK\r\n"
    return shared_valkey
