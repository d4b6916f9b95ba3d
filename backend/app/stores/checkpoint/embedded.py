"""The verbs of the checkpoint contract over rows in this process: what memory and SQLite share.

A verb checks its arguments and packs its values on the event loop, then runs one function in one transaction: it reads
the head, asks ``rules`` what may happen, and writes that. What is large is packed and unpacked outside the transaction.

A run whose steps lie in the archive reads as any other. A verb that would change it brings it back first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, TypeVar

from app.errors import CheckpointCorruptError, CheckpointError
from app.stores.checkpoint import arguments, refusals, rules
from app.stores.checkpoint.arguments import Position
from app.stores.checkpoint.claiming import CANDIDATES, FIRST, first_granted
from app.stores.checkpoint.codec import JsonValue
from app.stores.checkpoint.contract import (
    DEFAULT_LEASE,
    Appended,
    Claim,
    RunFilter,
    RunHead,
    RunPage,
    RunState,
    RunStatus,
    StepRecord,
    WaitingFor,
)
from app.stores.checkpoint.rows import (
    StoredHead,
    StoredRun,
    StoredStep,
    check_end,
    check_whole,
    head_of,
    off_loop,
    pack,
    pack_all,
    record_of,
    repacked,
    root_of,
    state_of,
    verify_steps,
)
from app.stores.checkpoint.tables import ArchivedCopy, ArchivedSteps, Located, RunRows, archived_steps
from app.stores.holder import Holder
from app.stores.names import DEFAULT_TENANT, check_name

__all__ = ["PAGE_BYTES", "EmbeddedCheckpointStore"]

T = TypeVar("T")

PAGE_BYTES: Final = 16 * 1024 * 1024
"""A page of a list ends early behind the run whose inputs and result, as they are stored, pass this."""


class EmbeddedCheckpointStore(ABC):
    """The contract's verbs; a backend brings transactions on its rows.

    Args:
        is_gone: whether a lease's holder certainly does not run any more.
        archive: what reads the runs whose steps the database has no longer; None where there is no archive.
    """

    def __init__(self, *, is_gone: Callable[[Holder], bool], archive: ArchivedSteps | None = None) -> None:
        self._is_gone = is_gone
        self._archive = archive

    @abstractmethod
    async def _read(self, work: Callable[[RunRows], T]) -> T:
        """Run ``work`` on one snapshot."""

    @abstractmethod
    async def _write(self, work: Callable[[RunRows, int], T]) -> T:
        """Run ``work`` with the time in ms in one atomic, durable step; an exception undoes it."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of files and connections. A later verb opens them again."""

    # --- runs ---------------------------------------------------------------------------------------------------------

    async def create(
        self,
        run_id: str,
        *,
        workflow: str = "",
        workflow_version: str = "",
        inputs: JsonValue = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> RunHead:
        """Create a run without steps; see :meth:`CheckpointStorage.create`."""
        arguments.check_run(run_id, tenant_id)
        arguments.check_workflow(workflow, workflow_version)
        packed = await pack(inputs, what="inputs")

        def work(rows: RunRows, now_ms: int) -> StoredHead:
            if rows.find(tenant_id, run_id) is not None:
                raise refusals.exists(run_id, tenant_id)
            head = rules.created(
                tenant_id,
                run_id,
                workflow=workflow,
                workflow_version=workflow_version,
                inputs_digest=packed.digest,
                now_ms=now_ms,
            )
            rows.insert(head, packed.body)
            return head

        head = await self._write(work)
        return await _whole_head(StoredRun(head=head, inputs=packed.body, result=None))

    async def head(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> RunHead | None:
        """Return the head of a run, or None; see :meth:`CheckpointStorage.head`."""
        arguments.check_run(run_id, tenant_id)
        found = await self._read(lambda rows: rows.find_whole(tenant_id, run_id))
        return None if found is None else await _whole_head(found.run)

    async def load(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> RunState | None:
        """Return the run, verified, or None; see :meth:`CheckpointStorage.load`."""
        arguments.check_run(run_id, tenant_id)
        read = await self._whole(tenant_id, run_id)
        if read is None:
            return None
        found, steps = read
        size = found.run.size_bytes + sum(len(step.body) for step in steps)
        return await off_loop(lambda: state_of(found.run, steps), size_bytes=size)

    async def verify(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> int:
        """Recompute the chain of a run; see :meth:`CheckpointStorage.verify`."""
        arguments.check_run(run_id, tenant_id)
        read = await self._whole(tenant_id, run_id)
        if read is None:
            raise refusals.not_found(run_id, tenant_id)
        found, steps = read
        size = found.run.size_bytes + sum(len(step.body) for step in steps)
        return await off_loop(lambda: check_whole(found.run, steps), size_bytes=size)

    async def history(
        self, run_id: str, *, after_index: int = -1, limit: int = 1000, tenant_id: str = DEFAULT_TENANT
    ) -> tuple[StepRecord, ...]:
        """Return a page of a run's steps without their outputs; see :meth:`CheckpointStorage.history`."""
        arguments.check_run(run_id, tenant_id)
        first = arguments.check_index(after_index, what="after_index", at_least=-1) + 1
        count = arguments.page_limit(limit)

        def work(rows: RunRows) -> tuple[StoredHead, list[StoredStep]]:
            run_no, head = _found(rows, tenant_id, run_id)
            return head, rows.steps(run_no, first=first, limit=count, bodies=False)

        head, steps = await self._read(work)
        if head.tier == "archived":
            read = await self._whole(tenant_id, run_id)
            if read is None:
                raise refusals.not_found(run_id, tenant_id)
            head, steps = read[0].head, list(read[1][first : first + count])
        return tuple(record_of(head, step) for step in steps)

    async def list_runs(
        self,
        where: RunFilter | None = None,
        *,
        cursor: str | None = None,
        limit: int = 100,
        tenant_id: str = DEFAULT_TENANT,
    ) -> RunPage:
        """Return a keyset page of heads; see :meth:`CheckpointStorage.list_runs`."""
        check_name(tenant_id, what="tenant_id")
        query = arguments.list_query(where, cursor=cursor, limit=limit)
        page, more = await self._read(lambda rows: _page(rows.listed(tenant_id, query), limit=query.limit))
        size = sum(found.run.size_bytes for found in page)
        heads = await off_loop(lambda: tuple(head_of(found.run) for found in page), size_bytes=size)
        if not more:
            return RunPage(heads=heads, cursor=None)
        last = Position(updated_ms=page[-1].head.updated_ms, run_no=page[-1].run_no)
        return RunPage(heads=heads, cursor=arguments.encode_cursor(last))

    async def fork(
        self, run_id: str, new_run_id: str, *, steps: int | None = None, tenant_id: str = DEFAULT_TENANT
    ) -> RunHead:
        """Copy the beginning of a run to a new one; see :meth:`CheckpointStorage.fork`."""
        arguments.check_run(run_id, tenant_id)
        check_name(new_run_id, what="new_run_id")
        if steps is not None:
            arguments.check_index(steps, what="steps")

        read = await self._whole(tenant_id, run_id, limit=steps)
        if read is None:
            raise refusals.not_found(run_id, tenant_id)
        source, verified = read
        archived = repacked(verified) if source.head.tier == "archived" else verified

        def verify() -> bytes:
            head_of(source.run)
            return verify_steps(source.head, verified, parent=root_of(source.head))

        # What is there by now is verified outside the transaction, what is recorded meanwhile inside.
        size = source.run.size_bytes + sum(len(step.body) for step in verified)
        end = await off_loop(verify, size_bytes=size)

        def work(rows: RunRows, now_ms: int) -> StoredHead:
            run_no, head = _found(rows, tenant_id, run_id)
            if run_no != source.run_no:  # deleted and created anew
                raise refusals.moved_on(head, source.head.version)
            if rows.find(tenant_id, new_run_id) is not None:
                raise refusals.exists(new_run_id, tenant_id)
            count = rules.fork_length(head, steps)
            if head.tier == "archived" and len(verified) < count:  # it went on, and was archived since it was read
                raise refusals.moved_on(head, source.head.version)
            late = rows.steps(run_no, first=len(verified), limit=count - len(verified))
            head_hash = verify_steps(head, late, parent=end, first_index=len(verified))
            check_end(head, count=len(verified) + len(late), expected=count, end=head_hash)
            new = rules.forked(head, new_run_id, steps=count, head_hash=head_hash, now_ms=now_ms)
            new_run_no = rows.insert(new, source.run.inputs)
            if head.tier == "hot":
                rows.copy_steps(run_no, new_run_no, count)
            else:
                rows.add_steps(new_run_no, [step._replace(version=0) for step in archived[:count]])
            return new

        return await _whole_head(StoredRun(head=await self._write(work), inputs=source.run.inputs, result=None))

    async def delete(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> bool:
        """Delete a run and its steps; see :meth:`CheckpointStorage.delete`."""
        arguments.check_run(run_id, tenant_id)

        def work(rows: RunRows, now_ms: int) -> bool:
            found = rows.find(tenant_id, run_id)
            if found is None:
                return False
            rules.check_deletable(found[1], now_ms)
            rows.remove(found[0], now_ms=now_ms)
            return True

        return await self._write(work)

    # --- leases -------------------------------------------------------------------------------------------------------

    async def claim(
        self,
        run_id: str,
        *,
        holder: Holder,
        lease: timedelta = DEFAULT_LEASE,
        steal: bool = False,
        reopen: bool = False,
        crash_limit: int | None = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> Claim:
        """Take the lease of a run; see :meth:`CheckpointStorage.claim`."""
        arguments.check_run(run_id, tenant_id)
        arguments.check_holder(holder)
        length_ms = arguments.lease_ms(lease)
        arguments.check_crash_limit(crash_limit)

        def work(rows: RunRows, now_ms: int) -> tuple[StoredRun, Holder | None]:
            found = rows.find_whole(tenant_id, run_id)
            if found is None:
                raise refusals.not_found(run_id, tenant_id)
            head, took_over = rules.claimed(
                found.head,
                holder,
                lease_ms=length_ms,
                steal=steal,
                reopen=reopen,
                crash_limit=crash_limit,
                token=rows.next_token,
                now_ms=now_ms,
                is_gone=self._is_gone,
            )
            _check_hot(found.head)
            rows.update(found.run_no, head)
            return replace(found.run, head=head), took_over

        run, took_over = await self._write_hot(work, tenant_id, run_id)
        if run.head.status is RunStatus.FAILED:
            raise refusals.finished(run.head)
        return Claim(token=run.head.lease_token, head=await _whole_head(run), took_over=took_over)

    async def claim_any(
        self,
        *,
        holder: Holder,
        lease: timedelta = DEFAULT_LEASE,
        idle: timedelta = DEFAULT_LEASE,
        workflow: str | None = None,
        crash_limit: int | None = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> Claim | None:
        """Claim the running run that lay longest; see :meth:`CheckpointStorage.claim_any`."""
        check_name(tenant_id, what="tenant_id")
        arguments.check_holder(holder)
        arguments.lease_ms(lease)
        arguments.check_crash_limit(crash_limit)
        arguments.check_workflow(workflow or "", "")
        lain_ms = arguments.idle_ms(idle)

        after = FIRST

        def work(rows: RunRows, now_ms: int) -> tuple[list[tuple[int, StoredHead]], list[str]]:
            lying = rows.lying(
                tenant_id,
                workflow=workflow,
                before_ms=now_ms - lain_ms,
                now_ms=now_ms,
                host=holder.host,
                after=after,
                limit=CANDIDATES,
            )
            return lying, [head.run_id for _, head in lying if rules.is_free(head, now_ms, self._is_gone)]

        while True:
            lying, free = await self._write(work)
            claim = await first_granted(
                free,
                lambda run_id: self.claim(
                    run_id, holder=holder, lease=lease, crash_limit=crash_limit, tenant_id=tenant_id
                ),
            )
            # Others were quicker, or processes of this host live with all of these: there may be more behind them.
            if claim is not None or len(lying) < CANDIDATES:
                return claim
            run_no, last = lying[-1]
            after = Position(updated_ms=last.updated_ms, run_no=run_no)

    async def heartbeat(
        self, run_id: str, token: int, *, lease: timedelta = DEFAULT_LEASE, tenant_id: str = DEFAULT_TENANT
    ) -> None:
        """Prolong a lease; see :meth:`CheckpointStorage.heartbeat`."""
        arguments.check_run(run_id, tenant_id)
        arguments.check_index(token, what="token", at_least=1)
        length_ms = arguments.lease_ms(lease)

        def work(rows: RunRows, now_ms: int) -> None:
            run_no, head = _found(rows, tenant_id, run_id)
            rows.update_lease(run_no, rules.prolonged(head, token, lease_ms=length_ms, now_ms=now_ms))

        await self._write(work)

    async def heartbeat_all(
        self, tokens: Mapping[str, int], *, lease: timedelta = DEFAULT_LEASE, tenant_id: str = DEFAULT_TENANT
    ) -> frozenset[str]:
        """Prolong many leases; see :meth:`CheckpointStorage.heartbeat_all`."""
        arguments.check_tokens(tokens, tenant_id)
        length_ms = arguments.lease_ms(lease)
        held = dict(tokens)

        def work(rows: RunRows, now_ms: int) -> frozenset[str]:
            refused: set[str] = set()
            for run_id, token in held.items():
                found = rows.find(tenant_id, run_id)
                try:
                    if found is None:
                        raise refusals.not_found(run_id, tenant_id)
                    rows.update_lease(found[0], rules.prolonged(found[1], token, lease_ms=length_ms, now_ms=now_ms))
                except CheckpointError:
                    refused.add(run_id)
            return frozenset(refused)

        return await self._write(work) if held else frozenset()

    async def release(self, run_id: str, token: int, *, tenant_id: str = DEFAULT_TENANT) -> None:
        """Give a lease up; see :meth:`CheckpointStorage.release`."""
        arguments.check_run(run_id, tenant_id)
        arguments.check_index(token, what="token", at_least=1)

        def work(rows: RunRows, _now_ms: int) -> None:
            run_no, head = _found(rows, tenant_id, run_id)
            free = rules.released(head, token)
            if free is not None:
                rows.update_lease(run_no, free)

        await self._write(work)

    # --- steps --------------------------------------------------------------------------------------------------------

    async def append(
        self,
        run_id: str,
        step_id: str,
        output: JsonValue,
        *,
        fingerprint: str = "",
        meta: Mapping[str, JsonValue] | None = None,
        token: int | None = None,
        expected_version: int | None = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> Appended:
        """Record one step; see :meth:`CheckpointStorage.append`."""
        arguments.check_run(run_id, tenant_id)
        check_name(step_id, what="step_id")
        arguments.check_fingerprint(fingerprint)
        by = arguments.writer(token, expected_version)
        noted = arguments.meta_body(meta)
        packed = await pack(output, what=f"the output of step {step_id!r}")
        step = rules.NewStep(step_id=step_id, fingerprint=fingerprint, output=packed, meta=noted)

        def work(rows: RunRows, now_ms: int) -> Appended:
            found = rows.find_for_append(tenant_id, run_id, step_id)
            if found is None:
                raise refusals.not_found(run_id, tenant_id)
            run_no, head, recorded = found
            _check_hot(head)
            moved = rules.appended(head, recorded, step, by=by, now_ms=now_ms)
            if moved is None:
                assert recorded is not None
                return _appended(head, recorded.hash, replayed=True)
            rows.add_steps(run_no, [moved[1]])
            rows.move(run_no, moved[0])
            return _appended(moved[0], moved[1].hash, replayed=False)

        return await self._write_hot(work, tenant_id, run_id)

    async def save(
        self,
        run_id: str,
        next_step_index: int,
        *,
        step_outputs: Mapping[str, JsonValue],
        expected_version: int | None = None,
        token: int | None = None,
        status: RunStatus = RunStatus.RUNNING,
        workflow: str = "",
        tenant_id: str = DEFAULT_TENANT,
    ) -> int:
        """Record a whole state; see :meth:`CheckpointStorage.save`."""
        arguments.check_run(run_id, tenant_id)
        arguments.check_workflow(workflow, "")
        status = arguments.check_status(status)
        by = arguments.writer(token, expected_version, required=False)
        arguments.check_outputs(step_outputs, next_step_index)
        noted = arguments.meta_body(None)
        packed, nothing = await pack_all(step_outputs)
        steps = [
            rules.NewStep(step_id=step_id, fingerprint="", output=output, meta=noted)
            for step_id, output in packed.items()
        ]

        def work(rows: RunRows, now_ms: int) -> int:
            found = rows.find(tenant_id, run_id)
            if found is None:
                if token is not None or expected_version:
                    raise refusals.not_found(run_id, tenant_id)
                head = rules.created(
                    tenant_id,
                    run_id,
                    workflow=workflow,
                    workflow_version="",
                    inputs_digest=nothing.digest,
                    now_ms=now_ms,
                )
                run_no = rows.insert(head, nothing.body)
                moved = rules.saved_first(head, steps, status=status, now_ms=now_ms)
            else:
                run_no, head = found
                _check_hot(head)
                again = rules.saved(head, rows.digests(run_no), steps, status=status, by=by, now_ms=now_ms)
                if again is None:
                    return head.version
                moved = again
            rows.add_steps(run_no, moved[1])
            rows.update(run_no, moved[0])
            return moved[0].version

        return await self._write_hot(work, tenant_id, run_id)

    # --- ends ---------------------------------------------------------------------------------------------------------

    async def finish(
        self,
        run_id: str,
        status: RunStatus,
        *,
        result: JsonValue = None,
        error: str | None = None,
        waiting_for: WaitingFor | None = None,
        token: int | None = None,
        expected_version: int | None = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> RunHead:
        """End or park a run; see :meth:`CheckpointStorage.finish`."""
        arguments.check_run(run_id, tenant_id)
        by = arguments.writer(token, expected_version)
        status = arguments.check_end(status, result=result, error=error, waiting_for=waiting_for)
        text = arguments.error_text(error, what="error")
        packed = None if result is None else await pack(result, what="the result")

        def work(rows: RunRows, now_ms: int) -> StoredRun:
            found = rows.find_whole(tenant_id, run_id)
            if found is None:
                raise refusals.not_found(run_id, tenant_id)
            head = rules.finished(
                found.head, status, result=packed, error=text, waiting_for=waiting_for, by=by, now_ms=now_ms
            )
            if head is None:
                return found.run
            _check_hot(found.head)
            body = None if packed is None else packed.body
            rows.set_result(found.run_no, body)
            rows.update(found.run_no, head)
            return replace(found.run, head=head, result=body)

        return await _whole_head(await self._write_hot(work, tenant_id, run_id))

    async def abort(self, run_id: str, *, reason: str = "", tenant_id: str = DEFAULT_TENANT) -> RunHead:
        """Abort a run from outside; see :meth:`CheckpointStorage.abort`."""
        arguments.check_run(run_id, tenant_id)
        text = arguments.error_text(reason, what="reason") or None

        def work(rows: RunRows, now_ms: int) -> StoredRun:
            found = rows.find_whole(tenant_id, run_id)
            if found is None:
                raise refusals.not_found(run_id, tenant_id)
            head = rules.aborted(found.head, reason=text, now_ms=now_ms)
            if head is None:
                return found.run
            _check_hot(found.head)
            rows.set_result(found.run_no, None)
            rows.update(found.run_no, head)
            return replace(found.run, head=head, result=None)

        return await _whole_head(await self._write_hot(work, tenant_id, run_id))

    # --- the archive --------------------------------------------------------------------------------------------------

    async def restore(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> bool:
        """Bring the steps of an archived run back into the database; its copy in the archive stays.

        Returns:
            Whether there was anything to bring back. Again is a no-op.

        Raises:
            RunNotFoundError: there is no such run.
            CheckpointCorruptError: its copy is missing or damaged; nothing was changed.
        """
        arguments.check_run(run_id, tenant_id)
        read = await self._whole(tenant_id, run_id)
        if read is None:
            raise refusals.not_found(run_id, tenant_id)
        found, steps = read
        if found.head.tier == "hot":
            return False
        size = sum(len(step.body) for step in steps)

        def verified() -> list[StoredStep]:
            check_whole(found.run, steps)
            return repacked(steps)

        packed = await off_loop(verified, size_bytes=size)

        def work(rows: RunRows, now_ms: int) -> bool:
            again = rows.find(tenant_id, run_id)
            # Somebody was quicker, or it is another run of the same id; a run that is archived does not change.
            if again is None or again[0] != found.run_no or again[1].tier == "hot":
                return False
            rows.restore(found.run_no, packed, now_ms=now_ms)
            return True

        return await self._write(work)

    async def _whole(
        self, tenant_id: str, run_id: str, *, limit: int | None = None
    ) -> tuple[Located, Sequence[StoredStep]] | None:
        """Return a run and its first steps, wherever they lie."""
        failed: ArchivedCopy | None = None
        while True:
            read = await self._read(lambda rows: _with_steps(rows, rows.find_whole(tenant_id, run_id), limit=limit))
            if read is None or read[0].head.tier == "hot":
                return None if read is None else read[:2]
            found, _, copy = read
            try:
                return found, (await archived_steps(self._archive, copy, found.head))[:limit]
            except CheckpointCorruptError:
                if copy == failed:
                    raise
                failed = copy  # its segment may have been rewritten between the two reads: look where it lies now

    async def _write_hot(self, work: Callable[[RunRows, int], T], tenant_id: str, run_id: str) -> T:
        """Run ``work``, which refuses a run that is archived; bring that back, and run it again."""
        while True:
            try:
                return await self._write(work)
            except _ArchivedError:
                await self.restore(run_id, tenant_id=tenant_id)


class _ArchivedError(Exception):
    """A transaction met a run whose steps it would need, and which are in the archive."""


def _check_hot(head: StoredHead) -> None:
    if head.tier == "archived":
        raise _ArchivedError


async def _whole_head(run: StoredRun) -> RunHead:
    return await off_loop(lambda: head_of(run), size_bytes=run.size_bytes)


def _found(rows: RunRows, tenant_id: str, run_id: str) -> tuple[int, StoredHead]:
    found = rows.find(tenant_id, run_id)
    if found is None:
        raise refusals.not_found(run_id, tenant_id)
    return found


def _with_steps(
    rows: RunRows, found: Located | None, *, limit: int | None = None
) -> tuple[Located, list[StoredStep], ArchivedCopy | None] | None:
    if found is None:
        return None
    if found.head.tier == "archived":
        return found, [], rows.archived_copy(found.run_no)
    return found, rows.steps(found.run_no, first=0, limit=limit), None


def _page(runs: Iterator[Located], *, limit: int) -> tuple[list[Located], bool]:
    """Return the runs of a page, and whether there are more."""
    page: list[Located] = []
    size = 0
    for found in runs:
        if len(page) == limit or size > PAGE_BYTES:
            return page, True
        page.append(found)
        size += found.run.size_bytes
    return page, False


def _appended(head: StoredHead, step_hash: bytes, *, replayed: bool) -> Appended:
    return Appended(version=head.version, next_step_index=head.next_step_index, hash=step_hash, replayed=replayed)
