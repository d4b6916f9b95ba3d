"""A run as JSON lines: one for its head, one for each step, as they lie in a segment.

Every value is a string of the canonical JSON that was recorded, so the lines have the same columns whatever the values
are, and a reader verifies without writing JSON anew: SHA-256 of ``output`` is the step's output digest, and the chain
of ``hash`` covers id, fingerprint and output of every step. Times are ms since 1970 UTC, bytes are hexadecimal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from app.stores.checkpoint.chain import output_digest
from app.stores.checkpoint.codec import decode
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.rows import StoredHead, StoredRun, StoredStep, check_end, root_of, verify_steps

__all__ = ["ArchivedRun", "read_lines", "write_lines"]

T = TypeVar("T")

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_PLAIN: Final = b"\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedRun:
    """A run as the archive has it: its head, the bodies of inputs and result, and its steps, uncompressed."""

    run: StoredRun
    steps: tuple[StoredStep, ...]

    @property
    def head(self) -> StoredHead:
        """The head, without a lease."""
        return self.run.head


def write_lines(run: StoredRun, steps: Sequence[StoredStep]) -> Iterator[bytes]:
    """Give the lines of a run, verified while they are written.

    Raises:
        CheckpointCorruptError: something does not verify; it names run and step.
        ValueError: the inputs, the result or a meta cannot be read.
    """
    head = run.head
    outputs: list[bytes] = []
    end = verify_steps(head, steps, parent=root_of(head), outputs=outputs)
    check_end(head, count=len(steps), expected=head.next_step_index, end=end)
    yield _line(_head_document(run))
    for step, output in zip(steps, outputs, strict=True):
        yield _line(
            {
                "kind": "step",
                "run_id": head.run_id,
                "step_index": step.number,
                "step_id": step.step_id,
                "fingerprint": step.fingerprint,
                "hash": step.hash.hex(),
                "version": step.version,
                "recorded_ms": step.recorded_ms,
                "meta": decode(step.meta).decode(),
                "output": output.decode(),
            }
        )


def read_lines(lines: Iterable[bytes], *, tenant_id: str) -> ArchivedRun:
    """Return a run from its lines, its chain verified.

    Raises:
        ValueError: they are not the lines of one run.
        CheckpointCorruptError: they do not verify; it names run and step.
    """
    documents = map(_document, lines)
    run = _run(next(documents, {}), tenant_id)
    steps = tuple(_step(document, run.head.run_id) for document in documents)
    end = verify_steps(run.head, steps, parent=root_of(run.head))
    check_end(run.head, count=len(steps), expected=run.head.next_step_index, end=end)
    return ArchivedRun(run=run, steps=steps)


def _head_document(run: StoredRun) -> dict[str, Any]:
    head = run.head
    inputs = decode(run.inputs)
    result = None if head.result_digest is None else decode(run.result or b"")
    if output_digest(inputs) != head.inputs_digest or (
        result is not None and output_digest(result) != head.result_digest
    ):
        raise ValueError("its inputs or its result are not what was recorded")
    return {
        "kind": "run",
        "tenant_id": head.tenant_id,
        "run_id": head.run_id,
        "root_run_id": head.root_run_id,
        "workflow": head.workflow,
        "workflow_version": head.workflow_version,
        "status": head.status.value,
        "waiting_for": head.waiting_for,
        "error": head.error,
        "version": head.version,
        "steps": head.next_step_index,
        "hash": head.head_hash.hex(),
        "created_ms": head.created_ms,
        "updated_ms": head.updated_ms,
        "inputs": inputs.decode(),
        "result": None if result is None else result.decode(),
    }


def _run(document: dict[str, Any], tenant_id: str) -> StoredRun:
    if document.get("kind") != "run" or document.get("tenant_id") != tenant_id:
        raise ValueError("the first line is not that of a run of this tenant")
    inputs = _text(document, "inputs").encode()
    result = None if document.get("result") is None else _text(document, "result").encode()
    head = StoredHead(
        tenant_id=tenant_id,
        run_id=_text(document, "run_id"),
        root_run_id=_text(document, "root_run_id"),
        workflow=_text(document, "workflow"),
        workflow_version=_text(document, "workflow_version"),
        status=RunStatus(_text(document, "status")),
        waiting_for=document.get("waiting_for"),
        error=document.get("error"),
        version=_field(document, "version", int),
        next_step_index=_field(document, "steps", int),
        head_hash=bytes.fromhex(_text(document, "hash")),
        inputs_digest=output_digest(inputs),
        result_digest=None if result is None else output_digest(result),
        lease_token=0,
        lease_holder=None,
        lease_expires_ms=None,
        created_ms=_field(document, "created_ms", int),
        updated_ms=_field(document, "updated_ms", int),
    )
    return StoredRun(head=head, inputs=_PLAIN + inputs, result=None if result is None else _PLAIN + result)


def _step(document: dict[str, Any], run_id: str) -> StoredStep:
    if document.get("kind") != "step" or document.get("run_id") != run_id:
        raise ValueError("a line is not that of a step of this run")
    output = _text(document, "output").encode()
    return StoredStep(
        number=_field(document, "step_index", int),
        step_id=_text(document, "step_id"),
        fingerprint=_text(document, "fingerprint"),
        digest=output_digest(output),
        hash=bytes.fromhex(_text(document, "hash")),
        version=_field(document, "version", int),
        size_bytes=len(output),
        recorded_ms=_field(document, "recorded_ms", int),
        meta=_PLAIN + _text(document, "meta").encode(),
        body=_PLAIN + output,
    )


def _line(document: dict[str, Any]) -> bytes:
    return _ENCODER.encode(document).encode() + b"\n"


def _document(line: bytes) -> dict[str, Any]:
    document = json.loads(line)
    if not isinstance(document, dict):
        raise ValueError("a line is not an object")  # noqa: TRY004 - what is wrong is the data
    return document


def _text(document: dict[str, Any], name: str) -> str:
    return _field(document, name, str)


def _field(document: dict[str, Any], name: str, kind: type[T]) -> T:
    value = document.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name!r} is not {kind.__name__}")  # noqa: TRY004 - what is wrong is the data
    return value
