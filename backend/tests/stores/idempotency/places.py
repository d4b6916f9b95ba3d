"""Where the stores of several processes meet: a file, or a server; only what the place needs is imported."""

from __future__ import annotations

from pathlib import Path

from app.stores.clock import Clock
from app.stores.idempotency.contract import IdempotencyStore

__all__ = ["open_store"]


def open_store(place: str, *, clock: Clock | None = None) -> IdempotencyStore:
    """Return a store on a file, or on the server of a ``redis://`` address."""
    if place.startswith("redis://"):
        from app.credentials import fixed
        from app.stores.idempotency.redis import RedisIdempotencyStore

        return RedisIdempotencyStore(fixed(place), clock=clock)
    from app.stores.idempotency.sqlite import SqliteIdempotencyStore

    return SqliteIdempotencyStore(Path(place), clock=clock)
