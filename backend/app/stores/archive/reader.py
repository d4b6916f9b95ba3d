"""What a checkpoint store gets of the archive: the steps of one run, in one ranged GET, verified. Never the job."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from app.errors import ArchiveObjectMissingError, CheckpointCorruptError
from app.metrics import guard_metrics
from app.stores.archive.contract import ObjectStore
from app.stores.checkpoint.rows import StoredStep, off_loop
from app.stores.checkpoint.tables import ArchivedCopy

__all__ = ["CACHE_BYTES", "ArchiveReader"]

CACHE_BYTES: Final = 32 * 1024 * 1024
"""How many bytes of frames a reader keeps, as they are stored; the least recently used go first."""


class ArchiveReader:
    """Reads archived runs; frames that verified are kept, up to a bound.

    Args:
        open_archive: makes the object store at the first read. It may raise ``ConfigurationError``: a store works
            without an archive until somebody asks for a run that lies there.
        cache_bytes: how much is kept; 0 keeps nothing.
    """

    def __init__(self, open_archive: Callable[[], ObjectStore], *, cache_bytes: int = CACHE_BYTES) -> None:
        self._open_archive = open_archive
        self._archive: ObjectStore | None = None
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._size_bytes = 0

    async def steps(self, copy: ArchivedCopy, *, tenant_id: str, run_id: str) -> tuple[StoredStep, ...]:
        """Return the steps of a run, with their bodies, verified against its chain.

        Raises:
            CheckpointCorruptError: the object is missing or not what was stored; names the run and the key.
            ArchiveUnavailableError: the archive did not answer.
            ConfigurationError: no archive is configured, or it refuses the credentials.
        """
        from app.stores.archive.segment import decode_run

        families = await guard_metrics()
        kept = (copy.object_key, copy.offset) in self._cached
        frames = await self._frames(copy, tenant_id=tenant_id, run_id=run_id)
        try:
            archived = await off_loop(
                lambda: decode_run(frames, tenant_id=tenant_id, sha256=copy.sha256), size_bytes=len(frames)
            )
            if archived.head.run_id != run_id or len(archived.steps) != copy.steps:
                raise ValueError("it is another run")
        except (ValueError, CheckpointCorruptError) as error:
            families.archive_reads.labels("damaged").inc()
            raise _corrupt(copy, str(error), tenant_id=tenant_id, run_id=run_id) from error
        # Only what verified is kept: a damaged answer must not be given again.
        self._keep((copy.object_key, copy.offset), frames)
        families.archive_reads.labels("memory" if kept else "archive").inc()
        return archived.steps

    async def close(self) -> None:
        """Let go of connections and of what is kept."""
        archive, self._archive = self._archive, None
        self._cached.clear()
        self._size_bytes = 0
        if archive is not None:
            await archive.close()

    async def _frames(self, copy: ArchivedCopy, *, tenant_id: str, run_id: str) -> bytes:
        place = (copy.object_key, copy.offset)
        kept = self._cached.get(place)
        if kept is not None:
            self._cached.move_to_end(place)
            return kept
        if self._archive is None:
            self._archive = self._open_archive()
        try:
            return await self._archive.get_range(copy.object_key, copy.offset, copy.length)
        except ArchiveObjectMissingError as error:
            raise _corrupt(copy, "the object is missing", tenant_id=tenant_id, run_id=run_id) from error

    def _keep(self, place: tuple[str, int], frames: bytes) -> None:
        if place in self._cached or len(frames) > self._cache_bytes:
            return
        self._cached[place] = frames
        self._size_bytes += len(frames)
        while self._size_bytes > self._cache_bytes:
            _, dropped = self._cached.popitem(last=False)
            self._size_bytes -= len(dropped)


def _corrupt(copy: ArchivedCopy, what: str, *, tenant_id: str, run_id: str) -> CheckpointCorruptError:
    return CheckpointCorruptError(
        f"run {run_id!r} lies in the archive, and its copy there cannot be used: {what} "
        f"({copy.object_key}, {copy.length} bytes from {copy.offset}). Other runs are not affected; restore the object "
        "from a backup of the bucket",
        run_id=run_id,
        step_id=None,
        tenant_id=tenant_id,
    )
