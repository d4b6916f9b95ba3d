"""The contract of an object store: what the archive needs of one, and no more.

Objects are written once under keys that are never used again, so nothing here replaces an object. A key is a path of
names (letters, digits, ``.``, ``_``, ``-``, ``=``) with slashes between them.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

from app.errors import InvalidInputError

__all__ = ["ObjectInfo", "ObjectStore", "check_key"]

_KEY: Final = re.compile(r"(?:[A-Za-z0-9_=-][A-Za-z0-9._=-]*)(?:/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*")
MAX_KEY_BYTES: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """An object as a list shows it."""

    key: str
    size_bytes: int


class ObjectStore(Protocol):
    """Keeps objects. Safe for concurrent use by tasks, processes and machines.

    Raises, from every verb:
        ArchiveUnavailableError: it did not answer; for a put, whether the object is there is not known.
        ConfigurationError: it does not take the credentials, or has no such bucket.
        InvalidInputError: what was passed is not a key.
    """

    @property
    def location(self) -> str:
        """Where the objects lie, for people: a directory, or an endpoint and a bucket. Never a credential."""
        ...

    async def put_new(self, key: str, data: bytes) -> None:
        """Store an object that is whole or absent, and durable when this returns.

        Raises:
            ArchiveObjectExistsError: there is an object of this key. It may be this very one, stored by a try whose
                answer was lost: read it back to know.
        """
        ...

    async def get(self, key: str) -> bytes:
        """Return an object's bytes as they are stored; the caller verifies them.

        Raises:
            ArchiveObjectMissingError: there is none.
        """
        ...

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return the ``length`` bytes from ``offset`` on, in one request; fewer where the object ends before.

        Raises:
            ArchiveObjectMissingError: there is none.
        """
        ...

    async def size(self, key: str) -> int | None:
        """Return an object's size in bytes, or None where there is none."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object, and what a cut ``put_new`` of this key left; a no-op where there is none."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Give the objects below ``prefix``, which ends with a slash, in no particular order."""
        ...

    async def close(self) -> None:
        """Let go of connections. A later verb opens them again."""
        ...


def check_key(key: str) -> str:
    """Return ``key`` if it can be one.

    Raises:
        InvalidInputError: it is not a relative path of plain names.
    """
    if not isinstance(key, str) or len(key) > MAX_KEY_BYTES or _KEY.fullmatch(key) is None:
        raise InvalidInputError(f"not a key of the archive: {key!r:.200}")
    return key
