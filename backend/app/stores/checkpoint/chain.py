"""The hash chain of a run: each step's hash covers its parent, its id, its input and its output.

``root = SHA-256("nova-run-1", tenant, root run id)``; ``step = SHA-256(parent, step id, input fingerprint, output
digest)``. Every part is written with its length in front, so no two lists of parts give the same bytes. A fork keeps
the root of the run it came from, and with it the hashes of the steps that it copied.
"""

from __future__ import annotations

import hashlib

__all__ = ["behind_parent", "output_digest", "root_hash", "step_hash"]


def root_hash(*, tenant_id: str, root_run_id: str) -> bytes:
    """Return the 32 bytes in front of the first step."""
    return _digest(b"nova-run-1", tenant_id.encode(), root_run_id.encode())


def step_hash(parent: bytes, *, step_id: str, fingerprint: str, digest: bytes) -> bytes:
    """Return the 32 bytes of a step; ``digest`` is that of its canonical output."""
    return _digest(b"nova-step-1", parent, step_id.encode(), fingerprint.encode(), digest)


def behind_parent(*, step_id: str, fingerprint: str, digest: bytes) -> bytes:
    """Return what stands behind the parent's 32 bytes in the bytes that a step's hash is of.

    A database that has SHA-256 can so make the hash of a step in the statement that reads the parent's.
    """
    return _joined(step_id.encode(), fingerprint.encode(), digest)


def output_digest(canonical: bytes) -> bytes:
    """Return SHA-256 of an output in canonical JSON."""
    return hashlib.sha256(canonical).digest()


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(_joined(*parts)).digest()


def _joined(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
