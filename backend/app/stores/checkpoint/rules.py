"""What a verb may do to a run as it stands: the decisions that every backend shares, as functions without effects.

A backend reads the head, asks here, and writes what it gets, in one atomic step. Each function returns the new head,
or None where the write stands already (a lost acknowledgement), or raises the one error that says why not.

The order of the questions is part of the contract. A token is asked about first: a superseded writer must stop,
whatever else is true. Then comes what is recorded: a step that stands is never a conflict, and one that differs always
is. Then the lease of somebody else, the end of the run, and the version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.errors import InvalidInputError
from app.stores.checkpoint import refusals
from app.stores.checkpoint.arguments import Writer
from app.stores.checkpoint.chain import root_hash, step_hash
from app.stores.checkpoint.contract import RunStatus, WaitingFor
from app.stores.checkpoint.rows import Packed, StoredHead, StoredStep, holder_of
from app.stores.holder import Holder

__all__ = [
    "NewStep",
    "Recorded",
    "aborted",
    "appended",
    "check_deletable",
    "claimed",
    "created",
    "finished",
    "fork_length",
    "forked",
    "is_free",
    "prolonged",
    "released",
    "saved",
    "saved_first",
]

FINAL: Final = frozenset({RunStatus.COMPLETED, RunStatus.ABORTED})
ENDED: Final = FINAL | {RunStatus.FAILED}

IsGone = Callable[[Holder], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStep:
    """A step that somebody wants to record."""

    step_id: str
    fingerprint: str
    output: Packed
    meta: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What is asked about a step that is recorded."""

    fingerprint: str
    digest: bytes
    hash: bytes
    version: int


# --- steps ------------------------------------------------------------------------------------------------------------


def appended(
    head: StoredHead, recorded: Recorded | None, step: NewStep, *, by: Writer, now_ms: int
) -> tuple[StoredHead, StoredStep] | None:
    """Return the head and the step after an append, or None where the step stands already.

    Raises:
        LeaseLostError, StepConflictError, RunBusyError, RunFinishedError, CheckpointConflictError: see the contract.
    """
    _check_token(head, by, ended=ENDED)
    if recorded is not None:
        if (recorded.fingerprint, recorded.digest) != (step.fingerprint, step.output.digest):
            raise refusals.step_conflict(head, step.step_id, same_input=recorded.fingerprint == step.fingerprint)
        if by.expected_version in {None, head.version, recorded.version - 1}:
            return None
    _check_may_write(head, by, now_ms, ended=ENDED)
    moved, (stored,) = _with_steps(_written(head, by, now_ms), [step], now_ms)
    return moved, stored


def saved(
    head: StoredHead,
    recorded: Mapping[str, bytes],
    steps: Sequence[NewStep],
    *,
    status: RunStatus,
    by: Writer,
    now_ms: int,
) -> tuple[StoredHead, tuple[StoredStep, ...]] | None:
    """Return the head and the new steps after a whole state was saved, or None where it stands already.

    Args:
        head: as it stands.
        recorded: the output digests of the recorded steps, by id.
        steps: the whole state.
        status: to be set.
        by: neither token nor version: somebody who expects that there is no run yet.
        now_ms: the time.

    Raises:
        The errors of :func:`appended`.
    """
    wanted = {step.step_id: step.output.digest for step in steps}
    differing = next((step_id for step_id, digest in recorded.items() if wanted.get(step_id) != digest), None)
    same = differing is None and len(recorded) == len(wanted) and head.status is status
    if same and _may_have_been_written_by(head, by):
        return None
    _check_token(head, by, ended=ENDED)
    _check_may_write(head, by, now_ms, ended=ENDED)
    if differing is not None:
        if differing not in wanted:
            raise refusals.step_left_out(head, differing)
        raise refusals.step_conflict(head, differing, same_input=True)
    new = [step for step in steps if step.step_id not in recorded]
    return _with_state(_written(head, by, now_ms), new, status=status, now_ms=now_ms)


def saved_first(
    head: StoredHead, steps: Sequence[NewStep], *, status: RunStatus, now_ms: int
) -> tuple[StoredHead, tuple[StoredStep, ...]]:
    """Return the head and the steps of a run that was created to save a state: at version 1."""
    return _with_state(_moved(head, now_ms), steps, status=status, now_ms=now_ms)


# --- ends -------------------------------------------------------------------------------------------------------------


def finished(
    head: StoredHead,
    status: RunStatus,
    *,
    result: Packed | None,
    error: str | None,
    waiting_for: WaitingFor | None,
    by: Writer,
    now_ms: int,
) -> StoredHead | None:
    """Return the head of a run that was ended or parked, without a lease; None where it is so already."""
    digest = None if result is None else result.digest
    same = (head.status, head.result_digest, head.error, head.waiting_for) == (status, digest, error, waiting_for)
    if same and _may_have_been_written_by(head, by):
        return None
    _check_token(head, by, ended=FINAL)
    _check_may_write(head, by, now_ms, ended=FINAL)
    ended = head._replace(status=status, result_digest=digest, error=error, waiting_for=waiting_for, crashes=0)
    return _without_lease(_moved(ended, now_ms))


def aborted(head: StoredHead, *, reason: str | None, now_ms: int) -> StoredHead | None:
    """Return the head of a run that was aborted, whoever holds it; None where it is aborted already."""
    if head.status is RunStatus.ABORTED:
        return None
    if head.status is RunStatus.COMPLETED:
        raise refusals.finished(head)
    ended = head._replace(status=RunStatus.ABORTED, result_digest=None, error=reason, waiting_for=None, crashes=0)
    return _without_lease(_moved(ended, now_ms))


# --- leases -----------------------------------------------------------------------------------------------------------


def claimed(
    head: StoredHead,
    holder: Holder,
    *,
    lease_ms: int,
    steal: bool,
    reopen: bool,
    crash_limit: int | None,
    token: Callable[[], int],
    now_ms: int,
    is_gone: IsGone,
) -> tuple[StoredHead, Holder | None]:
    """Return the head with the lease of ``holder``, and the holder who was superseded, if one was.

    Where the run's holders died ``crash_limit`` times in a row the head is failed instead, without a lease.

    Args:
        token: draws a token above every earlier one; called only where the claim is granted.
        is_gone: whether a holder certainly does not run any more; asked only where that decides.

    Raises:
        RunFinishedError, RunBusyError: see the contract.
    """
    if head.status in FINAL or (head.status is RunStatus.FAILED and not reopen):
        raise refusals.finished(head)
    before = holder_of(head)
    took_over = None if before == holder else before
    if took_over is not None and _is_live(head, now_ms) and not steal and not is_gone(took_over):
        raise refusals.busy(head, now_ms)
    crashes = _crashes(head, took_over, wanted=steal or reopen)
    if crash_limit is not None and crashes >= crash_limit:
        dead = head._replace(status=RunStatus.FAILED, error=refusals.dead_letter_text(crashes), crashes=crashes)
        return _without_lease(_moved(dead, now_ms)), took_over
    leased = head._replace(
        lease_token=token(), lease_holder=holder.encode(), lease_expires_ms=now_ms + lease_ms, crashes=crashes
    )
    if head.status is not RunStatus.RUNNING:
        # A new status is a write to the head, which the version counts; a lease alone is not.
        leased = _moved(leased, now_ms)._replace(status=RunStatus.RUNNING, waiting_for=None, error=None)
    return leased, took_over


def is_free(head: StoredHead, now_ms: int, is_gone: IsGone) -> bool:
    """Whether nobody who may live holds a run's lease."""
    holder = holder_of(head)
    return holder is None or not _is_live(head, now_ms) or is_gone(holder)


def prolonged(head: StoredHead, token: int, *, lease_ms: int, now_ms: int) -> StoredHead:
    """Return the head with its lease prolonged.

    Raises:
        LeaseLostError: the token was superseded or released.
    """
    _check_token(head, Writer(token=token, expected_version=None), ended=frozenset())
    return head._replace(lease_expires_ms=now_ms + lease_ms)


def released(head: StoredHead, token: int) -> StoredHead | None:
    """Return the head without its lease, or None where the token was released already.

    Raises:
        LeaseLostError: the token was superseded.
    """
    if token != head.lease_token:
        raise refusals.superseded(head, token)
    return None if head.lease_holder is None else _without_lease(head)


# --- whole runs -------------------------------------------------------------------------------------------------------


def created(
    tenant_id: str, run_id: str, *, workflow: str, workflow_version: str, inputs_digest: bytes, now_ms: int
) -> StoredHead:
    """Return the head of a new run."""
    return StoredHead(
        tenant_id=tenant_id,
        run_id=run_id,
        root_run_id=run_id,
        workflow=workflow,
        workflow_version=workflow_version,
        status=RunStatus.RUNNING,
        waiting_for=None,
        error=None,
        version=0,
        next_step_index=0,
        head_hash=root_hash(tenant_id=tenant_id, root_run_id=run_id),
        inputs_digest=inputs_digest,
        result_digest=None,
        lease_token=0,
        lease_holder=None,
        lease_expires_ms=None,
        created_ms=now_ms,
        updated_ms=now_ms,
    )


def forked(head: StoredHead, new_run_id: str, *, steps: int, head_hash: bytes, now_ms: int) -> StoredHead:
    """Return the head of a copy that ends with its first ``steps`` steps, whose chain ends in ``head_hash``."""
    return head._replace(
        run_id=new_run_id,
        status=RunStatus.RUNNING,
        waiting_for=None,
        error=None,
        version=0,
        next_step_index=steps,
        head_hash=head_hash,
        result_digest=None,
        lease_token=0,
        lease_holder=None,
        lease_expires_ms=None,
        created_ms=now_ms,
        updated_ms=now_ms,
        tier="hot",
        crashes=0,
    )


def fork_length(head: StoredHead, steps: int | None) -> int:
    """Return how many steps a fork copies.

    Raises:
        InvalidInputError: more than are recorded.
    """
    if steps is None:
        return head.next_step_index
    if steps > head.next_step_index:
        raise InvalidInputError(f"steps is {steps}; run {head.run_id!r} has {head.next_step_index} recorded steps")
    return steps


def check_deletable(head: StoredHead, now_ms: int) -> None:
    """Refuse to delete a run that somebody works on.

    Raises:
        RunBusyError: its lease is live.
    """
    if _is_live(head, now_ms):
        raise refusals.busy(head, now_ms)


# --- the questions ----------------------------------------------------------------------------------------------------


def _check_token(head: StoredHead, by: Writer, *, ended: frozenset[RunStatus]) -> None:
    if by.token is None:
        return
    if by.token != head.lease_token:
        raise refusals.superseded(head, by.token)
    if head.lease_holder is None:
        if head.status in ended:
            raise refusals.finished(head)
        raise refusals.given_up(head, by.token)


def _check_may_write(head: StoredHead, by: Writer, now_ms: int, *, ended: frozenset[RunStatus]) -> None:
    if by.token is None and _is_live(head, now_ms):
        raise refusals.busy(head, now_ms)
    if head.status in ended:
        raise refusals.finished(head)
    if by.token is None and by.expected_version is None:
        raise refusals.version_needed(head)
    if by.expected_version is not None and by.expected_version != head.version:
        raise refusals.moved_on(head, by.expected_version)


def _may_have_been_written_by(head: StoredHead, by: Writer) -> bool:
    """Whether the last write may be this writer's own, whose acknowledgement was lost."""
    if by.token is not None and by.token != head.lease_token:
        return False
    expected = 0 if by.token is None and by.expected_version is None else by.expected_version
    return expected in {None, head.version, head.version - 1}


def _is_live(head: StoredHead, now_ms: int) -> bool:
    return head.lease_expires_ms is not None and now_ms < head.lease_expires_ms


# --- the changes ------------------------------------------------------------------------------------------------------


def _moved(head: StoredHead, now_ms: int) -> StoredHead:
    return head._replace(version=head.version + 1, updated_ms=now_ms)


def _written(head: StoredHead, by: Writer, now_ms: int) -> StoredHead:
    moved = _moved(head, now_ms)._replace(crashes=0)
    # A write without a lease ends one that ran out: its holder has not seen this write, and must not go on.
    return _without_lease(moved) if by.token is None else moved


def _crashes(head: StoredHead, took_over: Holder | None, *, wanted: bool) -> int:
    """Return how many holders in a row ended without a step and without giving the lease up.

    Who takes a run on purpose begins to count anew.
    """
    if wanted:
        return 0
    return head.crashes if took_over is None else head.crashes + 1


def _without_lease(head: StoredHead) -> StoredHead:
    return head._replace(lease_holder=None, lease_expires_ms=None)


def _with_state(
    head: StoredHead, steps: Sequence[NewStep], *, status: RunStatus, now_ms: int
) -> tuple[StoredHead, tuple[StoredStep, ...]]:
    state = head._replace(status=status, waiting_for=None, error=None, result_digest=None)
    if status is not RunStatus.RUNNING:
        state = _without_lease(state)
    return _with_steps(state, steps, now_ms)


def _with_steps(head: StoredHead, steps: Sequence[NewStep], now_ms: int) -> tuple[StoredHead, tuple[StoredStep, ...]]:
    parent = head.head_hash
    stored: list[StoredStep] = []
    for number, step in enumerate(steps, start=head.next_step_index):
        parent = step_hash(parent, step_id=step.step_id, fingerprint=step.fingerprint, digest=step.output.digest)
        stored.append(
            StoredStep(
                step_id=step.step_id,
                number=number,
                fingerprint=step.fingerprint,
                digest=step.output.digest,
                hash=parent,
                version=head.version,
                size_bytes=step.output.size_bytes,
                recorded_ms=now_ms,
                meta=step.meta,
                body=step.output.body,
            )
        )
    return head._replace(next_step_index=head.next_step_index + len(stored), head_hash=parent), tuple(stored)
