"""The servers that tests run against start, survive a kill as real ones do, and are gone afterwards."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from tests.support.servers.postgres import PostgresServer
from tests.support.servers.process import Server
from tests.support.servers.proxy import FaultProxy
from tests.support.servers.s3 import S3Server
from tests.support.servers.valkey import ValkeyServer


def ask(port: int, request: bytes) -> bytes:
    """Send one command of Redis and return the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request + b"\r\n")
        return connection.recv(4096)


def test_what_valkey_acknowledged_survives_a_kill() -> None:
    """``appendfsync always`` is what durable means."""
    with ValkeyServer() as server:
        assert ask(server.port, b"SET kept yes") == b"+OK\r\n"
        server.kill()
        server.restart()

        assert ask(server.port, b"GET kept") == b"$3\r\nyes\r\n"


def test_what_postgres_committed_survives_a_kill() -> None:
    """The server recovers on the same port, without a database lost."""
    with PostgresServer() as server:
        server.execute("CREATE TABLE kept AS SELECT 1 AS n")
        server.kill()
        server.restart()

        assert server.execute("SELECT n FROM kept") == [(1,)]


@pytest.mark.parametrize("kind", [ValkeyServer, PostgresServer, S3Server])
def test_a_server_leaves_nothing_behind(kind: type[Server]) -> None:
    """Neither the process nor its data outlives the block."""
    with kind() as server:
        pid, directory = server.pid, server.directory
        assert directory.exists()

    assert not Path(directory).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_proxy_loses_an_answer_and_not_the_question() -> None:
    """What was asked takes effect; the one who asked sees a broken connection."""
    with await asyncio.to_thread(ValkeyServer) as server:
        async with FaultProxy(server.port) as proxy:
            proxy.lose_answers(1)
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"SET lost answer\r\n")
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(5)

            assert await asyncio.to_thread(ask, server.port, b"GET lost") == b"$6\r\nanswer\r\n"


async def test_a_proxy_refuses_cuts_and_goes_on() -> None:
    """Each fault ends with the word that began it."""
    with await asyncio.to_thread(ValkeyServer, durable=False) as server:
        async with FaultProxy(server.port) as proxy:
            proxy.refusing = True
            with pytest.raises(OSError, match=r".*"):
                await asyncio.to_thread(ask_and_read_to_the_end, proxy.port)
            proxy.refusing = False

            assert await asyncio.to_thread(ask, proxy.port, b"PING") == b"+PONG\r\n"


def ask_and_read_to_the_end(port: int) -> None:
    """Send a command and demand an answer."""
    if not ask(port, b"PING"):
        raise ConnectionError("closed")
