"""One pooled client per event loop, closed no later than its loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["Closable", "LoopClients"]


class Closable(Protocol):
    """What a client of any service has: connections that it can close."""

    async def close(self) -> None:
        """Close every connection."""


ClientT = TypeVar("ClientT", bound=Closable)


@dataclass(frozen=True, slots=True)
class _Open(Generic[ClientT]):
    """A client, and the generator whose end closes it."""

    client: ClientT
    life: AsyncGenerator[ClientT, None]


class LoopClients(Generic[ClientT]):
    """Hands out the client of the running loop; connections belong to the loop that opened them.

    A loop that ends in good order (``asyncio.run``, ``asyncio.Runner``) finalises its asynchronous generators while it
    can still run them. The client lives inside one, so its connections are closed in their own loop, even where
    nobody called ``aclose``.

    Args:
        build: makes a client; it runs in a thread, because it imports an SDK or a driver and reads certificates.
    """

    def __init__(self, build: Callable[[], ClientT]) -> None:
        self._build = build
        self._open: dict[asyncio.AbstractEventLoop, asyncio.Future[_Open[ClientT]]] = {}

    async def get(self) -> ClientT:
        """Return the client of the running loop, building it at the first call; concurrent first calls share it."""
        loop = asyncio.get_running_loop()
        while True:
            found = self._open.get(loop)
            if found is not None:
                # Shielded: one caller that gives up must not take the client from the others.
                return (found.result() if found.done() else await asyncio.shield(found)).client
            # No await between the look above and this entry: two callers never build twice.
            self._forget_closed_loops()
            opening = self._open[loop] = asyncio.ensure_future(self._start())
            opening.add_done_callback(lambda done: self._drop_failed(loop, done))

    async def aclose(self) -> None:
        """Close the client of the running loop, if there is one."""
        opening = self._open.pop(asyncio.get_running_loop(), None)
        if opening is not None:
            await (await opening).life.aclose()

    async def _start(self) -> _Open[ClientT]:
        client = await asyncio.to_thread(self._build)
        life = self._live(client)
        await anext(life)
        return _Open(client, life)

    async def _live(self, client: ClientT) -> AsyncGenerator[ClientT, None]:
        loop = asyncio.get_running_loop()
        try:
            yield client
        finally:
            self._open.pop(loop, None)
            await client.close()

    def _drop_failed(self, loop: asyncio.AbstractEventLoop, opening: asyncio.Future[_Open[ClientT]]) -> None:
        """Let the next call try again; looking at the exception also marks it as seen."""
        if (opening.cancelled() or opening.exception() is not None) and self._open.get(loop) is opening:
            del self._open[loop]

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._open if loop.is_closed()]:
            del self._open[loop]
