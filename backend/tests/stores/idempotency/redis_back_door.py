"""Looks at the idempotency records of a Redis server without asking the store."""

from __future__ import annotations

import re
from typing import Any

from redis import Redis

from .contract import BackDoor

RECORD = re.compile(r"nova:\{(.*?)\}:idempotency:key:(.*)")


class RedisBackDoor(BackDoor):
    """A connection of its own for each look."""

    def __init__(self, url: str) -> None:
        self._url = url

    def rows(self) -> dict[tuple[str, str], tuple[Any, ...]]:
        """Return the fields of each record, and when Redis will remove it."""
        rows: dict[tuple[str, str], tuple[Any, ...]] = {}
        with Redis.from_url(self._url) as server:
            for name in server.scan_iter("nova:*", count=1_000):
                found = RECORD.fullmatch(name.decode())
                if found:
                    rows[found[1], found[2]] = (sorted(server.hgetall(name).items()), server.pexpiretime(name))
        return rows

    def fields(self, key: str = "k", *, tenant_id: str = "default") -> dict[str, bytes]:
        """Return the fields of one record."""
        with Redis.from_url(self._url) as server:
            return {name.decode(): value for name, value in server.hgetall(self.name(key, tenant_id)).items()}

    def set(self, field: str, value: bytes | str | None, key: str = "k", *, tenant_id: str = "default") -> None:
        """Change a field of a record; None removes it."""
        with Redis.from_url(self._url) as server:
            name = self.name(key, tenant_id)
            server.hdel(name, field) if value is None else server.hset(name, field, value)

    def do(self, *command: str | int) -> Any:
        """Send any command."""
        with Redis.from_url(self._url) as server:
            return server.execute_command(*command)

    def empty(self) -> None:
        """Remove everything, as the loss of the server's data would."""
        self.do("FLUSHALL")

    @staticmethod
    def name(key: str, tenant_id: str) -> str:
        """Return the name of a record's key."""
        return f"nova:{{{tenant_id}}}:idempotency:key:{key}"
