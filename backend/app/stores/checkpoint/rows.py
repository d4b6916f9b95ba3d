"""What every backend stores of a run, and how it becomes what the contract returns: packed, verified, unpacked.

Nothing here knows a database. A backend keeps :class:`StoredHead` and :class:`StoredStep` as they are, and the bytes of
inputs and result beside them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeVar

from app.errors import CheckpointCorruptError, InvalidInputError
from app.stores.checkpoint.chain import output_digest, root_hash, step_hash
from app.stores.checkpoint.codec import JsonValue, canonical_json, decode, encode, parse_json
from app.stores.checkpoint.contract import Lease, RunHead, RunState, RunStatus, Step, StepRecord, WaitingFor
from app.stores.clock import from_ms
from app.stores.holder import Holder

__all__ = [
    "Packed",
    "StoredHead",
    "StoredRun",
    "StoredStep",
    "check_end",
    "check_whole",
    "head_of",
    "holder_of",
    "off_loop",
    "pack",
    "pack_all",
    "pack_canonical",
    "record_of",
    "repacked",
    "root_of",
    "rows_digest",
    "state_of",
    "verify_steps",
]

T = TypeVar("T")

OFF_LOOP_FROM_BYTES: Final = 64 * 1024
"""Compressing or unpacking as much takes about a millisecond; from here on a thread does it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A value as it is stored: its digest and size as canonical JSON, and its body."""

    digest: bytes
    size_bytes: int
    body: bytes


class StoredHead(NamedTuple):
    """A head without inputs and result, in the order of its columns.

    A tuple, because recording a step makes several of them: a frozen dataclass of as many fields takes four times as
    long to make.

    Attributes:
        inputs_digest, result_digest: of their canonical JSON; ``result_digest`` is None where there is no result.
        lease_token: the highest token that was given for the run.
        lease_holder: None where no lease is held; then ``lease_expires_ms`` is None too.
    """

    tenant_id: str
    run_id: str
    root_run_id: str
    workflow: str
    workflow_version: str
    status: RunStatus
    waiting_for: WaitingFor | None
    error: str | None
    version: int
    next_step_index: int
    head_hash: bytes
    inputs_digest: bytes
    result_digest: bytes | None
    lease_token: int
    lease_holder: str | None
    lease_expires_ms: int | None
    created_ms: int
    updated_ms: int
    tier: Literal["hot", "archived"] = "hot"
    crashes: int = 0


class StoredStep(NamedTuple):
    """A step, in the order of its columns.

    ``version`` is the run's after the write that recorded it; ``body`` is empty where it was not read.
    """

    number: int
    step_id: str
    fingerprint: str
    digest: bytes
    hash: bytes
    version: int
    size_bytes: int
    recorded_ms: int
    meta: bytes
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A head with the bodies of its inputs and its result."""

    head: StoredHead
    inputs: bytes
    result: bytes | None

    @property
    def size_bytes(self) -> int:
        """How much there is to unpack, compressed."""
        return len(self.inputs) + len(self.result or b"")


async def off_loop(work: Callable[[], T], *, size_bytes: int) -> T:
    """Run ``work`` here if it is small, else in a thread, so that the event loop goes on."""
    if size_bytes < OFF_LOOP_FROM_BYTES:
        return work()
    return await asyncio.to_thread(work)


async def pack(value: JsonValue, *, what: str) -> Packed:
    """Return a value as it is stored: as it is now, whatever the caller does to it later.

    Raises:
        StateNotStorableError: it is not JSON, too large, or nested too deeply.
    """
    # Before the first await: another task may change the value while a thread compresses it.
    canonical = canonical_json(value, what=what)
    return await off_loop(lambda: pack_canonical(canonical), size_bytes=len(canonical))


async def pack_all(values: Mapping[str, JsonValue]) -> tuple[dict[str, Packed], Packed]:
    """Return the outputs of steps by id as they are stored, and beside them the value None."""
    canonical = {key: canonical_json(value, what=f"the output of step {key!r}") for key, value in values.items()}

    def work() -> tuple[dict[str, Packed], Packed]:
        return {key: pack_canonical(value) for key, value in canonical.items()}, pack_canonical(b"null")

    return await off_loop(work, size_bytes=sum(map(len, canonical.values())))


def pack_canonical(canonical: bytes) -> Packed:
    """Return canonical JSON as it is stored."""
    return Packed(digest=output_digest(canonical), size_bytes=len(canonical), body=encode(canonical))


def root_of(head: StoredHead) -> bytes:
    """Return the hash in front of a run's first step."""
    return root_hash(tenant_id=head.tenant_id, root_run_id=head.root_run_id)


def holder_of(head: StoredHead) -> Holder | None:
    """Return who holds the lease, live or not.

    Raises:
        CheckpointCorruptError: what is stored is not a holder.
    """
    if head.lease_holder is None:
        return None
    try:
        return Holder.decode(head.lease_holder)
    except InvalidInputError as error:
        raise _corrupt(head, f"its lease cannot be read: {error}", step_id=None) from error


def head_of(run: StoredRun) -> RunHead:
    """Return the head as the contract has it.

    Raises:
        CheckpointCorruptError: inputs, result or lease are not what was stored.
    """
    head = run.head
    inputs = _unpacked(run.inputs, head.inputs_digest, head, what="inputs")
    result = None
    if head.result_digest is not None:
        result = _unpacked(run.result or b"", head.result_digest, head, what="result")
    return RunHead(
        tenant_id=head.tenant_id,
        run_id=head.run_id,
        root_run_id=head.root_run_id,
        workflow=head.workflow,
        workflow_version=head.workflow_version,
        status=head.status,
        waiting_for=head.waiting_for,
        inputs=inputs,
        result=result,
        error=head.error,
        version=head.version,
        next_step_index=head.next_step_index,
        head_hash=head.head_hash,
        lease=_lease_of(head),
        created_at=from_ms(head.created_ms),
        updated_at=from_ms(head.updated_ms),
        tier=head.tier,
        crashes=head.crashes,
    )


def state_of(run: StoredRun, steps: Sequence[StoredStep]) -> RunState:
    """Return the whole run, every step verified.

    Raises:
        CheckpointCorruptError: something does not verify; it names run and step.
    """
    outputs: list[bytes] = []
    end = verify_steps(run.head, steps, parent=root_of(run.head), outputs=outputs)
    check_end(run.head, count=len(steps), expected=run.head.next_step_index, end=end)
    return RunState(
        head=head_of(run),
        steps=tuple(_step_of(run.head, step, output) for step, output in zip(steps, outputs, strict=True)),
    )


def verify_steps(
    head: StoredHead,
    steps: Iterable[StoredStep],
    *,
    parent: bytes,
    first_index: int = 0,
    outputs: list[bytes] | None = None,
) -> bytes:
    """Recompute the chain over consecutive steps from their stored bodies and return its last hash.

    Args:
        head: the run's.
        steps: in the order of recording, with bodies.
        parent: the hash in front of the first of them.
        first_index: the index that the first of them must have.
        outputs: gets the canonical JSON of each.

    Raises:
        CheckpointCorruptError: the first step that is missing, out of order or changed.
    """
    for index, step in enumerate(steps, start=first_index):
        if step.number != index:
            raise _corrupt(head, f"step {index} is missing", step_id=step.step_id)
        try:
            canonical = decode(step.body)
        except ValueError as error:
            raise _corrupt(head, f"its output cannot be read: {error}", step_id=step.step_id) from error
        digest = output_digest(canonical)
        if digest != step.digest:
            raise _corrupt(head, "its output is not the one that was recorded", step_id=step.step_id)
        parent = step_hash(parent, step_id=step.step_id, fingerprint=step.fingerprint, digest=digest)
        if parent != step.hash:
            raise _corrupt(head, "its id, input or place is not the one that was recorded", step_id=step.step_id)
        if outputs is not None:
            outputs.append(canonical)
    return parent


def check_whole(run: StoredRun, steps: Sequence[StoredStep]) -> int:
    """Verify a whole run, inputs and result included, and return the count of steps.

    Raises:
        CheckpointCorruptError: as for :func:`verify_steps`, or steps are missing at the end.
    """
    head_of(run)
    end = verify_steps(run.head, steps, parent=root_of(run.head))
    check_end(run.head, count=len(steps), expected=run.head.next_step_index, end=end)
    return len(steps)


def check_end(head: StoredHead, *, count: int, expected: int, end: bytes) -> None:
    """Verify that the first ``expected`` steps of a run are ``count`` steps whose chain ends in ``end``.

    Raises:
        CheckpointCorruptError: some are missing, or the head names another hash.
    """
    if count != expected:
        raise _corrupt(head, f"{count} of its first {expected} steps are stored", step_id=None)
    if count == head.next_step_index and end != head.head_hash:
        raise _corrupt(head, "its last hash is not that of its last step", step_id=None)


def repacked(steps: Iterable[StoredStep]) -> list[StoredStep]:
    """Return steps as a database keeps them, whatever their bodies and metas were packed in."""
    return [step._replace(body=encode(decode(step.body)), meta=encode(decode(step.meta))) for step in steps]


def rows_digest(steps: Iterable[StoredStep]) -> bytes:
    """Return SHA-256 over the stored bytes of steps, as a purge compares them: for each SHA-256 of its body, SHA-256
    of its meta, and its hash, which covers the rest.
    """
    digest = hashlib.sha256()
    for step in steps:
        digest.update(hashlib.sha256(step.body).digest() + hashlib.sha256(step.meta).digest() + step.hash)
    return digest.digest()


def record_of(head: StoredHead, step: StoredStep) -> StepRecord:
    """Return a step as the history shows it."""
    return StepRecord(
        step_id=step.step_id,
        index=step.number,
        fingerprint=step.fingerprint,
        output_digest=step.digest,
        hash=step.hash,
        size_bytes=step.size_bytes,
        recorded_at=from_ms(step.recorded_ms),
        meta=_meta_of(head, step),
    )


def _step_of(head: StoredHead, step: StoredStep, canonical: bytes) -> Step:
    return Step(
        step_id=step.step_id,
        index=step.number,
        fingerprint=step.fingerprint,
        output_digest=step.digest,
        hash=step.hash,
        size_bytes=step.size_bytes,
        recorded_at=from_ms(step.recorded_ms),
        meta=_meta_of(head, step),
        output=parse_json(canonical),
    )


def _meta_of(head: StoredHead, step: StoredStep) -> dict[str, JsonValue]:
    try:
        meta = parse_json(decode(step.meta))
    except ValueError as error:
        raise _corrupt(head, f"its meta cannot be read: {error}", step_id=step.step_id) from error
    if not isinstance(meta, dict):
        raise _corrupt(head, "its meta is not an object", step_id=step.step_id)
    return meta


def _unpacked(body: bytes, digest: bytes, head: StoredHead, *, what: str) -> JsonValue:
    try:
        canonical = decode(body)
    except ValueError as error:
        raise _corrupt(head, f"its {what} cannot be read: {error}", step_id=None) from error
    if output_digest(canonical) != digest:
        raise _corrupt(head, f"its {what} are not what was recorded", step_id=None)
    return parse_json(canonical)


def _lease_of(head: StoredHead) -> Lease | None:
    holder = holder_of(head)
    if holder is None or head.lease_expires_ms is None:
        return None
    return Lease(token=head.lease_token, holder=holder, expires_at=from_ms(head.lease_expires_ms))


def _corrupt(head: StoredHead, what: str, *, step_id: str | None) -> CheckpointCorruptError:
    where = f"run {head.run_id!r}" + ("" if step_id is None else f", step {step_id!r}")
    return CheckpointCorruptError(
        f"{where}: {what}. Restore the database from a backup, or fork the run before this step",
        run_id=head.run_id,
        step_id=step_id,
        tenant_id=head.tenant_id,
    )
