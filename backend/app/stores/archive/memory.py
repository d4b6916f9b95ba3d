"""An archive in the memory of this process, for tests: the model that the other object stores are held against."""

from __future__ import annotations

from collections.abc import AsyncIterator

from app.errors import ArchiveObjectExistsError, ArchiveObjectMissingError
from app.stores.archive.contract import ObjectInfo, check_key

__all__ = ["MemoryArchive"]


class MemoryArchive:
    """Objects that live as long as this object."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    @property
    def location(self) -> str:
        """Where the objects lie."""
        return "memory"

    async def put_new(self, key: str, data: bytes) -> None:
        """Store an object; see :meth:`ObjectStore.put_new`."""
        if check_key(key) in self.objects:
            raise ArchiveObjectExistsError(f"there is an object {key!r} already", key=key)
        self.objects[key] = bytes(data)

    async def get(self, key: str) -> bytes:
        """Return an object; see :meth:`ObjectStore.get`."""
        return self._found(key)

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a part of an object; see :meth:`ObjectStore.get_range`."""
        return self._found(key)[offset : offset + length]

    async def size(self, key: str) -> int | None:
        """Return an object's size; see :meth:`ObjectStore.size`."""
        found = self.objects.get(check_key(key))
        return None if found is None else len(found)

    async def delete(self, key: str) -> None:
        """Remove an object; see :meth:`ObjectStore.delete`."""
        self.objects.pop(check_key(key), None)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Give the objects below a prefix; see :meth:`ObjectStore.list`."""
        for key, data in list(self.objects.items()):
            if key.startswith(prefix):
                yield ObjectInfo(key=key, size_bytes=len(data))

    async def close(self) -> None:
        """Do nothing."""

    def _found(self, key: str) -> bytes:
        try:
            return self.objects[check_key(key)]
        except KeyError:
            raise ArchiveObjectMissingError(f"there is no object {key!r}", key=key) from None
