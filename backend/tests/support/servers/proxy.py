"""A TCP proxy on loopback that breaks connections as networks do: refused, cut, reset, silent, an answer lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

__all__ = ["FaultProxy"]

Chunk = Callable[[bytes], Awaitable[bytes | None]]

_SIZE = 64 * 1024


@dataclass(eq=False)
class _Link:
    """One client's connection and the one that the proxy opened for it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def cut(self, *, reset: bool) -> None:
        for writer in (self.client, self.server):
            raw = writer.get_extra_info("socket")
            if reset and raw is not None and raw.fileno() >= 0:
                # A linger of zero makes the kernel send RST instead of FIN.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort() if reset else writer.close()


class FaultProxy:
    """Forwards to a server of loopback until told otherwise; an async context manager of the running loop.

    Attributes:
        target: the server's port; connections that are made from now on go there.
        refusing: new connections are reset at once.
        silent: bytes are swallowed in both directions, connections stay open.
        deaf: only the server's answers are swallowed: what was asked takes effect, and nobody hears of it.
        accepted: how many connections were made.
        answers: how many chunks the server sent; with small answers and one client, how many round trips were made.

    Args:
        port: the server's.
        tls: terminate TLS in front of a server that has none.
    """

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.target = port
        self._tls = tls
        self._links: set[_Link] = set()
        self._lose_answers = 0
        self.refusing = False
        self.silent = False
        self.deaf = False
        self.accepted = 0
        self.answers = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = int(self._listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()
        pending = [task for link in self._links for task in link.tasks]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    def cut(self, *, reset: bool = True) -> None:
        """Cut every open connection, by RST or by an orderly end."""
        for link in list(self._links):
            link.cut(reset=reset)

    def lose_answers(self, count: int) -> None:
        """Swallow the next ``count`` chunks that the server sends, and cut each connection that they were for."""
        self._lose_answers = count

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            _Link(writer, writer).cut(reset=True)
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _Link(writer, writer).cut(reset=True)
            return
        link = _Link(writer, server_writer)
        self._links.add(link)
        link.tasks = [
            asyncio.create_task(self._pump(reader, server_writer, self._to_server)),
            asyncio.create_task(self._pump(server_reader, writer, lambda chunk: self._to_client(link, chunk))),
        ]
        try:
            await asyncio.wait(link.tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in link.tasks:
                task.cancel()
            self._links.discard(link)
            link.cut(reset=False)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pass_on: Chunk) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_SIZE):
                passed = await pass_on(chunk)
                if passed:
                    writer.write(passed)
                    await writer.drain()

    async def _to_server(self, chunk: bytes) -> bytes | None:
        return None if self.silent else chunk

    async def _to_client(self, link: _Link, chunk: bytes) -> bytes | None:
        self.answers += 1
        if self._lose_answers > 0:
            self._lose_answers -= 1
            link.cut(reset=True)
            return None
        return None if self.silent or self.deaf else chunk
