"""The keys of objects. None is ever used twice: an object that comes late can never be taken for another.

::

    v1/store.json                                                      whose archive it is
    v1/seg/{tenant}/{yyyymmdd}/{segment id}-e{epoch}.jsonl.zst         runs of one tenant
    v1/tomb/{yyyymmdd}/{id}-e{epoch}.json                              what was deleted

``tenant`` is the first 16 hexadecimal digits of SHA-256 of the tenant's id, so that any id makes a key and the runs of
one tenant lie below one prefix. Ids are UUIDs of version 7 (RFC 9562): they sort by time.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from datetime import UTC, datetime
from typing import Final

__all__ = ["SEGMENTS", "STORE", "TOMBSTONES", "new_id", "segment_key", "tenant_prefix", "tombstone_key"]

STORE: Final = "v1/store.json"
SEGMENTS: Final = "v1/seg/"
TOMBSTONES: Final = "v1/tomb/"

_SEGMENT: Final = re.compile(r"v1/seg/[0-9a-f]{16}/\d{8}/[0-9a-f-]{36}-e\d+\.jsonl\.zst")


def new_id(now_ms: int) -> str:
    """Return a UUID of version 7."""
    value = (now_ms & (2**48 - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def segment_key(tenant_id: str, segment_id: str, *, epoch: int, now_ms: int) -> str:
    """Return the key of a segment."""
    return f"{tenant_prefix(tenant_id)}{_day(now_ms)}/{segment_id}-e{epoch}.jsonl.zst"


def tenant_prefix(tenant_id: str) -> str:
    """Return the prefix below which all segments of a tenant lie."""
    return f"{SEGMENTS}{hashlib.sha256(tenant_id.encode()).hexdigest()[:16]}/"


def tombstone_key(tombstone_id: str, *, epoch: int, now_ms: int) -> str:
    """Return the key of an object with tombstones."""
    return f"{TOMBSTONES}{_day(now_ms)}/{tombstone_id}-e{epoch}.json"


def is_segment_key(key: str) -> bool:
    """Whether a key is one that Nova gives to segments."""
    return _SEGMENT.fullmatch(key) is not None


def _day(now_ms: int) -> str:
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d")
