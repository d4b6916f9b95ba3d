"""Many archives on one server: each below a prefix of its own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

from app.stores.archive.contract import ObjectInfo, ObjectStore

__all__ = ["Below"]


class Below:
    """An archive below a prefix of its own, so that tests on one server do not see each other's objects."""

    def __init__(self, archive: ObjectStore, *, prefix: str | None = None) -> None:
        self._archive = archive
        self.prefix = self._prefix = prefix or f"t{uuid.uuid4().hex}/"
        self.location = archive.location

    async def put_new(self, key: str, data: bytes) -> None:
        """Store it."""
        with _own_keys(self._prefix):
            await self._archive.put_new(self._prefix + key, data)

    async def get(self, key: str) -> bytes:
        """Return it."""
        with _own_keys(self._prefix):
            return await self._archive.get(self._prefix + key)

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a part of it."""
        with _own_keys(self._prefix):
            return await self._archive.get_range(self._prefix + key, offset, length)

    async def size(self, key: str) -> int | None:
        """Return its size."""
        return await self._archive.size(self._prefix + key)

    async def delete(self, key: str) -> None:
        """Delete it."""
        await self._archive.delete(self._prefix + key)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """List what is there."""
        async for info in self._archive.list(self._prefix + prefix):
            yield ObjectInfo(key=info.key.removeprefix(self._prefix), size_bytes=info.size_bytes)

    async def close(self) -> None:
        """Close what is below."""
        await self._archive.close()


class _own_keys:  # noqa: N801 - a context manager
    """Tell errors by the key that the test knows."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if error is not None and hasattr(error, "key"):
            error.key = error.key.removeprefix(self._prefix)
