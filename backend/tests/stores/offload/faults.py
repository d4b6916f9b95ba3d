"""Jobs that die, sleep and are lied to: what the campaign puts between the offload and what it works on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from app.errors import ArchiveUnavailableError
from app.stores.archive.contract import ObjectInfo, ObjectStore

__all__ = ["Death", "FaultyArchive", "Mortal", "Mortality"]


class Death(BaseException):
    """The process of a job is gone: nothing of it runs any more."""


@dataclass
class Mortality:
    """When one job dies or sleeps: at a numbered step, which lies before or after each of its verbs.

    Attributes:
        dies_at: the number of the step; None lives on.
        sleeps_at: steps at which the job sleeps for longer than its lease.
        sleep: lets that time pass.
        steps: the names of those that it passed.
        died_at: the name of the one at which it died; empty while it lives.
    """

    dies_at: int | None = None
    sleeps_at: frozenset[int] = frozenset()
    sleep: Callable[[], None] = lambda: None
    steps: list[str] = field(default_factory=list)
    died_at: str = ""

    async def step(self, name: str) -> None:
        """Pass a step, or die at it; a dead job gets no further, whatever it still tries."""
        if self.died_at or len(self.steps) == self.dies_at:
            self.died_at = self.died_at or name
            raise Death(name)
        if len(self.steps) in self.sleeps_at:
            self.sleep()
        self.steps.append(name)
        await asyncio.sleep(0)  # let the other jobs and the readers have a turn


class Mortal:
    """Something of one job: each of its verbs lies between two steps."""

    def __init__(self, inner: Any, mortality: Mortality) -> None:
        self._inner = inner
        self._mortality = mortality

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._inner, name)
        if name == "list":
            return self._list
        if not asyncio.iscoroutinefunction(verb):
            return verb

        async def between(*args: Any, **kwargs: Any) -> Any:
            await self._mortality.step(f"before {name}")
            result = await verb(*args, **kwargs)
            await self._mortality.step(f"after {name}")
            return result

        return between

    async def _list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        await self._mortality.step("before list")
        async for info in self._inner.list(prefix):
            yield info


class FaultyArchive:
    """An archive that loses uploads, loses answers, delivers late, flips bits and cuts answers, by a seed.

    Args:
        inner: where the objects lie.
        generator: decides.
        rate: how often each verb goes wrong.
    """

    def __init__(self, inner: ObjectStore, generator: random.Random, *, rate: float) -> None:
        self._inner = inner
        self._generator = generator
        self._rate = rate
        self.late: list[tuple[str, bytes]] = []

    @property
    def location(self) -> str:
        """Where the objects lie."""
        return self._inner.location

    async def put_new(self, key: str, data: bytes) -> None:
        """Store an object, or one of the things that go wrong."""
        fault = self._fault("lost", "no answer", "twice", "late")
        if fault == "late":
            self.late.append((key, data))
        if fault in {"lost", "late"}:
            raise ArchiveUnavailableError(f"{fault}: {key}")
        await self._inner.put_new(key, data)
        if fault == "twice":
            await self._inner.put_new(key, data)
        if fault == "no answer":
            raise ArchiveUnavailableError(f"{fault}: {key}")

    async def get(self, key: str) -> bytes:
        """Return an object, perhaps damaged on the way."""
        return self._damaged(await self._inner.get(key))

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a part, perhaps damaged on the way."""
        return self._damaged(await self._inner.get_range(key, offset, length))

    async def size(self, key: str) -> int | None:
        """Return a size, or no answer."""
        self._maybe_silent(key)
        return await self._inner.size(key)

    async def delete(self, key: str) -> None:
        """Delete, or give no answer before or after it."""
        self._maybe_silent(key)
        await self._inner.delete(key)
        self._maybe_silent(key)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """List."""
        self._maybe_silent(prefix)
        async for info in self._inner.list(prefix):
            yield info

    async def close(self) -> None:
        """Do nothing."""

    async def deliver_late(self) -> None:
        """Let the uploads arrive that were thought lost."""
        late, self.late = self.late, []
        for key, data in late:
            if await self._inner.size(key) is None:
                await self._inner.put_new(key, data)

    def _fault(self, *kinds: str) -> str | None:
        return self._generator.choice(kinds) if self._generator.random() < self._rate else None

    def _maybe_silent(self, key: str) -> None:
        if self._fault("silent"):
            raise ArchiveUnavailableError(f"no answer: {key}")

    def _damaged(self, data: bytes) -> bytes:
        fault = self._fault("flipped", "cut", "silent") if data else None
        if fault == "silent":
            raise ArchiveUnavailableError("no answer")
        place = self._generator.randrange(max(1, len(data)))
        if fault == "cut":
            return data[:place]
        if fault == "flipped":
            return data[:place] + bytes([data[place] ^ 1 << self._generator.randrange(8)]) + data[place + 1 :]
        return data
