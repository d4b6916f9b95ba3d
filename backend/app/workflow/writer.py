"""The one writer of a run: it holds the lease's token and appends step after step."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final, Literal, TypeVar

from app.errors import (
    CheckpointConflictError,
    CheckpointError,
    CheckpointStoreUnavailableError,
    LeaseLostError,
    RunAbortedError,
    RunFinishedError,
    RunNotFoundError,
    StepConflictError,
)
from app.metrics import guard_metrics, track_checkpoint
from app.stores.checkpoint.codec import JsonValue
from app.stores.checkpoint.contract import CheckpointStorage, RunStatus, WaitingFor
from app.workflow.stop import Stop, StopCause, finish_anyway

__all__ = ["RunWriter"]

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

_log = logging.getLogger(__name__)

_TRIES: Final = 4
"""At least, also where one try takes longer than a lease; and at most where somebody waits who pressed Ctrl-C."""

_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 3.0


class RunWriter:
    """Writes to one run under one lease.

    Parallel steps take turns, so the chain grows in one order and a crash between two appends loses only the second,
    which nobody was told of. A write that began is waited for even when its caller is cancelled. A store that does not
    answer is asked again for as long as a lease lasts, as through a restart or a failover: every verb may be repeated.
    """

    def __init__(
        self,
        checkpoints: CheckpointStorage,
        *,
        run_id: str,
        token: int,
        tenant_id: str,
        lease: timedelta,
        stop: Stop,
        sleep: Sleep,
    ) -> None:
        self._checkpoints = checkpoints
        self._run_id = run_id
        self._token = token
        self._tenant_id = tenant_id
        self._patience_s = lease.total_seconds()
        self._stop = stop
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._holds_lease = True
        self._abandoned: CheckpointStoreUnavailableError | None = None

    @property
    def run_id(self) -> str:
        """The run."""
        return self._run_id

    @property
    def token(self) -> int:
        """The token of its lease."""
        return self._token

    async def append(self, step_id: str, output: JsonValue, *, fingerprint: str, meta: Mapping[str, JsonValue]) -> None:
        """Record a step; when it returns, the step survives a crash.

        Raises:
            LeaseLostError, RunAbortedError: the run is not this writer's any more; the stop has been requested.
            StateNotStorableError: the output cannot be stored; nothing was written.
            CheckpointStoreUnavailableError: the store did not answer; the stop has been requested.
        """
        cancelled = asyncio.Event()

        async def write() -> None:
            async with self._turn:
                if self._abandoned is not None:
                    raise self._abandoned
                await self._insist(
                    "append",
                    cancelled,
                    lambda: self._checkpoints.append(
                        self._run_id,
                        step_id,
                        output,
                        fingerprint=fingerprint,
                        meta=meta,
                        token=self._token,
                        tenant_id=self._tenant_id,
                    ),
                )

        await finish_anyway(write(), on_cancel=cancelled.set)

    async def finish(
        self,
        status: RunStatus,
        *,
        result: JsonValue = None,
        error: str | None = None,
        waiting_for: WaitingFor | None = None,
    ) -> None:
        """End or park the run and give up its lease; errors as for :meth:`append`."""
        cancelled = asyncio.Event()
        await finish_anyway(
            self._insist(
                "finish",
                cancelled,
                lambda: self._checkpoints.finish(
                    self._run_id,
                    status,
                    result=result,
                    error=error,
                    waiting_for=waiting_for,
                    token=self._token,
                    tenant_id=self._tenant_id,
                ),
            ),
            on_cancel=cancelled.set,
        )
        self._holds_lease = False

    async def release(self) -> None:
        """Give the lease up; the run stays as it is, for whoever resumes it. Nothing happens where it is not held."""
        if not self._holds_lease:
            return
        self._holds_lease = False
        try:
            await finish_anyway(self._released())
        except (LeaseLostError, RunNotFoundError, RunFinishedError, CheckpointStoreUnavailableError, TimeoutError):
            # Superseded, gone, or out of reach: then the lease ends by its time. The cause of the stop is what is told.
            return

    async def look_for_lease(self, *, lease: timedelta) -> None:
        """Prolong the lease once more by itself, and where it is lost learn why and request the stop."""
        try:
            await self._checkpoints.heartbeat(self._run_id, self._token, lease=lease, tenant_id=self._tenant_id)
        except CheckpointStoreUnavailableError:
            return
        except CheckpointError as error:
            await self._ended(error)

    async def _released(self) -> None:
        async with asyncio.timeout(None if self._abandoned is None else _LONGEST_WAIT_S):
            await self._checkpoints.release(self._run_id, self._token, tenant_id=self._tenant_id)

    async def _insist(
        self, name: Literal["append", "finish"], cancelled: asyncio.Event, verb: Callable[[], Awaitable[T]]
    ) -> T:
        clock = asyncio.get_running_loop().time
        end = clock() + self._patience_s
        waited_s = 0.0
        for attempt in itertools.count(1):
            try:
                async with track_checkpoint(name):
                    return await verb()
            except CheckpointStoreUnavailableError as error:
                wait_s = min(_FIRST_WAIT_S * 2 ** (attempt - 1), _LONGEST_WAIT_S)
                waited_s += wait_s
                tried = attempt >= _TRIES
                waited = waited_s > self._patience_s or clock() + wait_s > end
                hurried = self._stop.hurried or cancelled.is_set()
                if (tried and waited) or (hurried and (tried or waited)):
                    if hurried:
                        # Somebody waits: the steps that wait for their turn are not tried, each as long as this one.
                        self._abandoned = error
                    self._stop.request(StopCause.INTERRUPTED, error)
                    raise
                if attempt == 1:
                    _log.warning(
                        "run %s: %s; the %s is tried again for %.0f s", self._run_id, error, name, self._patience_s
                    )
                await self._sleep(wait_s)
            except StepConflictError as error:
                self._stop.request(StopCause.INTERRUPTED, error)
                raise
            except (CheckpointConflictError, RunFinishedError, RunNotFoundError) as error:
                raise await self._ended(error) from error
        raise AssertionError("unreachable: the last try returned or raised")

    async def _ended(self, error: CheckpointError) -> Exception:
        """Tell an abort from a takeover, request the stop, and return the error that says which it was."""
        held, self._holds_lease = self._holds_lease, False
        try:
            head = await self._checkpoints.head(self._run_id, tenant_id=self._tenant_id)
        except CheckpointStoreUnavailableError:
            head = None
        if head is not None and head.status is RunStatus.ABORTED:
            reason = f": {head.error}" if head.error else ""
            aborted = RunAbortedError(f"run {self._run_id!r} was aborted{reason}", run_id=self._run_id)
            self._stop.request(StopCause.ABORTED, aborted)
            return aborted
        self._stop.request(StopCause.LOST, error)
        if held:
            (await guard_metrics()).lease_losses.labels("run").inc()
        return error
