"""Results as they are kept: one zstd frame, verified by the digest of what it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from app.stores.idempotency.contract import MAX_RESULT_BYTES
from app.stores.idempotency.record import result_digest

__all__ = ["aside", "pack", "unpack"]

T = TypeVar("T")

_ON_LOOP_BYTES: Final = 64 * 1024
"""Up to here packing and hashing take less than handing the work to a thread does (about 0.2 ms)."""


def pack(result: bytes) -> bytes:
    """Compress a result."""
    import zstandard

    return zstandard.ZstdCompressor(level=3).compress(result)


def unpack(packed: bytes, digest: bytes) -> bytes | None:
    """Return the result, None where it is damaged: it does not decompress, or is not what the digest says."""
    import zstandard

    try:
        result = zstandard.ZstdDecompressor().decompress(packed, max_output_size=MAX_RESULT_BYTES)
    except zstandard.ZstdError:
        return None
    return result if result_digest(result) == digest else None


async def aside(size_bytes: int, function: Callable[[], T]) -> T:
    """Run ``function`` here if it is about little data, else on a thread, so that the loop goes on."""
    return function() if size_bytes <= _ON_LOOP_BYTES else await asyncio.to_thread(function)
