"""An archive in a local directory: each object is a file that is whole, named and on the disk, or not there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, TypeVar

from app.errors import ArchiveObjectExistsError, ArchiveObjectMissingError, ArchiveUnavailableError
from app.stores.archive.contract import ObjectInfo, check_key

__all__ = ["DirectoryArchive"]

T = TypeVar("T")

_PARTIAL: Final = ".partial"


class DirectoryArchive:
    """Objects as files below ``root``, which is created at the first put; every process of the host may share it.

    An object is written under a name that no key can have, synced, given its name by a hard link, which fails where
    that is taken, and its directory is synced. A crash leaves at most such an unnamed file; ``delete`` of its key
    removes it.
    """

    def __init__(self, root: Path | str) -> None:
        self._root = Path(root)

    @property
    def location(self) -> str:
        """The directory."""
        return str(self._root)

    async def put_new(self, key: str, data: bytes) -> None:
        """Store an object; see :meth:`ObjectStore.put_new`."""
        path = self._path(key)

        def work() -> None:
            _make_directories(path.parent)
            partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
            try:
                _write(partial, data)
                # A link never replaces a file, as a rename would.
                os.link(partial, path)
            except FileExistsError:
                raise ArchiveObjectExistsError(f"there is an object {key!r} already", key=key) from None
            finally:
                partial.unlink(missing_ok=True)
            _sync_directory(path.parent)

        await self._run(work)

    async def get(self, key: str) -> bytes:
        """Return an object; see :meth:`ObjectStore.get`."""
        path = self._path(key)
        return await self._run(path.read_bytes, key=key)

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a part of an object; see :meth:`ObjectStore.get_range`."""
        path = self._path(key)

        def work() -> bytes:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(length)

        return await self._run(work, key=key)

    async def size(self, key: str) -> int | None:
        """Return an object's size; see :meth:`ObjectStore.size`."""
        path = self._path(key)

        def work() -> int | None:
            try:
                return path.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

        return await self._run(work)

    async def delete(self, key: str) -> None:
        """Remove an object; see :meth:`ObjectStore.delete`."""
        path = self._path(key)

        def work() -> None:
            if not path.parent.is_dir():
                return
            for leftover in path.parent.glob(f".{path.name}.*{_PARTIAL}"):
                leftover.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            _sync_directory(path.parent)

        await self._run(work)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Give the objects below a prefix; see :meth:`ObjectStore.list`."""
        top = self._path(prefix.rstrip("/"))

        def work() -> list[ObjectInfo]:
            found: list[ObjectInfo] = []
            for directory, _, names in os.walk(top):
                for name in names:
                    path = Path(directory) / name
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        if not name.startswith("."):
                            key = path.relative_to(self._root).as_posix()
                            found.append(ObjectInfo(key=key, size_bytes=path.stat().st_size))
            return found

        for info in await self._run(work):
            yield info

    async def close(self) -> None:
        """Do nothing: no file stays open."""

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    async def _run(self, work: Callable[[], T], *, key: str = "") -> T:
        try:
            return await asyncio.to_thread(work)
        except (FileNotFoundError, NotADirectoryError) as error:
            if key:
                raise ArchiveObjectMissingError(f"there is no object {key!r} in {self.location!r}", key=key) from error
            raise self._unavailable(error) from error
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> ArchiveUnavailableError:
        return ArchiveUnavailableError(f"the archive in {self.location!r} cannot be used: {error.strerror or error}")


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_directories(path: Path) -> None:
    """Make a directory and those above it; each new one is on the disk, with its name in the one above."""
    missing = [path, *path.parents]
    for directory in reversed([each for each in missing if not each.exists()]):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        _sync_directory(directory.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system whose directories cannot be synced
            raise
    finally:
        os.close(descriptor)
