"""Checkpoints in PostgreSQL and whatever speaks like it (Neon, RDS, a pooler in between): one statement for a step.

A step is recorded by one statement that checks token and version, moves the head and adds the row. The other verbs read
the head with the database's time, ask ``rules`` what may happen, and write that with the condition that the head is
still the one that was read; where it is not, they read it again. So each statement is a transaction of its own, the
decisions are those of every backend, and no transaction is open while anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from app.errors import CheckpointCorruptError, CheckpointStoreUnavailableError
from app.stores.checkpoint import arguments, embedded, refusals, rules
from app.stores.checkpoint import postgres_rows as pg
from app.stores.checkpoint.arguments import Position, Writer
from app.stores.checkpoint.chain import behind_parent
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
    Packed,
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
    rows_digest,
    state_of,
    verify_steps,
)
from app.stores.checkpoint.tables import ArchivedCopy, archived_steps
from app.stores.clock import Clock
from app.stores.holder import Holder
from app.stores.names import DEFAULT_TENANT, check_name
from app.stores.postgres.database import DEFAULT_POOL_SIZE, DEFAULT_TIMEOUT_S, PostgresDatabase, Row

if TYPE_CHECKING:
    from app.credentials import CredentialSource
    from app.stores.checkpoint.tables import ArchivedSteps, Located

__all__ = ["CheckpointStore"]

_TRIES: Final = 50
"""How often a verb reads a head that others keep moving. Each time somebody else has got on."""

_ALL: Final = 2**31 - 1


class CheckpointStore:
    """Runs in a PostgreSQL database, shared by every process that reaches it; times are the database's.

    Building one opens no connection. It works from several event loops, one after another.

    Args:
        source: gives the URL; it is asked at each new connection, so that a rotated password needs no restart.
        pool_size: how many connections there are at most in one event loop.
        prepare: let the driver prepare statements; not behind a pooler in transaction mode.
        auto_migrate: create and change the tables at the first use.
        timeout_s: of a statement, with waiting for a connection and opening one.
        clock: the time instead of the database's, for tests.
        is_gone: whether a lease's holder certainly does not run any more, for tests.
        archive: what reads the runs whose steps lie in the archive; None where there is none.
    """

    def __init__(
        self,
        source: CredentialSource,
        *,
        pool_size: int = DEFAULT_POOL_SIZE,
        prepare: bool = False,
        auto_migrate: bool = True,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        clock: Clock | None = None,
        is_gone: Callable[[Holder], bool] = Holder.is_gone,
        archive: ArchivedSteps | None = None,
    ) -> None:
        self._database = PostgresDatabase(
            source,
            statements=pg.STATEMENTS,
            unavailable=CheckpointStoreUnavailableError,
            pool_size=pool_size,
            prepare=prepare,
            auto_migrate=auto_migrate,
            timeout_s=timeout_s,
        )
        self._clock = clock
        self._is_gone = is_gone
        self._archive = archive

    @property
    def database(self) -> PostgresDatabase:
        """The database."""
        return self._database

    async def close(self) -> None:
        """Close the connections of the running loop; a later verb opens them again."""
        await self._database.close()
        if self._archive is not None:
            await self._archive.close()

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
        head = rules.created(
            tenant_id,
            run_id,
            workflow=workflow,
            workflow_version=workflow_version,
            inputs_digest=packed.digest,
            now_ms=0,
        )
        values = pg.created_values(head, inputs=packed.body, now_ms=self._now())
        rows = await self._database.run("create", values, repeatable=False)
        if not rows:
            raise refusals.exists(run_id, tenant_id)
        created_ms = rows[0][1]
        head = head._replace(created_ms=created_ms, updated_ms=created_ms)
        return await _whole_head(StoredRun(head=head, inputs=packed.body, result=None))

    async def head(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> RunHead | None:
        """Return the head of a run, or None; see :meth:`CheckpointStorage.head`."""
        arguments.check_run(run_id, tenant_id)
        found = await self._find_whole(tenant_id, run_id)
        return None if found is None else await _whole_head(found[0].run)

    async def load(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> RunState | None:
        """Return the run, verified, or None; see :meth:`CheckpointStorage.load`."""
        arguments.check_run(run_id, tenant_id)
        read = await self._read_all(tenant_id, run_id)
        if read is None:
            return None
        found, steps = read
        return await off_loop(lambda: state_of(found.run, steps), size_bytes=_size(found, steps))

    async def verify(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> int:
        """Recompute the chain of a run; see :meth:`CheckpointStorage.verify`."""
        arguments.check_run(run_id, tenant_id)
        read = await self._read_all(tenant_id, run_id)
        if read is None:
            raise refusals.not_found(run_id, tenant_id)
        found, steps = read
        return await off_loop(lambda: check_whole(found.run, steps), size_bytes=_size(found, steps))

    async def history(
        self, run_id: str, *, after_index: int = -1, limit: int = 1000, tenant_id: str = DEFAULT_TENANT
    ) -> tuple[StepRecord, ...]:
        """Return a page of a run's steps without their outputs; see :meth:`CheckpointStorage.history`."""
        arguments.check_run(run_id, tenant_id)
        first = arguments.check_index(after_index, what="after_index", at_least=-1) + 1
        count = arguments.page_limit(limit)
        found = await self._found(tenant_id, run_id)
        if found.head.tier == "hot":
            steps = await self._steps(found.run_no, first=first, count=count, bodies=False)
            if steps or first >= found.head.next_step_index:
                return tuple(record_of(found.head, step) for step in steps)
        read = await self._read_all(tenant_id, run_id)  # archived, or since the head was read
        if read is None:
            raise refusals.not_found(run_id, tenant_id)
        return tuple(record_of(read[0].head, step) for step in read[1][first : first + count])

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
        values = pg.list_values(tenant_id, query, page_bytes=embedded.PAGE_BYTES)
        rows = await self._database.run("list", values, where=pg.list_where(query))
        page, more = pg.listed(rows, limit=query.limit)
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
        read = await self._read_all(tenant_id, run_id, limit=steps)
        if read is None:
            raise refusals.not_found(run_id, tenant_id)
        source, copied = read

        def verify() -> bytes:
            head_of(source.run)
            end = verify_steps(source.head, copied, parent=root_of(source.head))
            check_end(source.head, count=len(copied), expected=_expected(source.head, steps), end=end)
            return end

        end = await off_loop(verify, size_bytes=_size(source, copied))
        if steps is not None and steps > source.head.next_step_index:
            if await self._find(tenant_id, new_run_id) is not None:
                raise refusals.exists(new_run_id, tenant_id)
            rules.fork_length(source.head, steps)
        values = {
            "tenant_id": tenant_id,
            "run_id": new_run_id,
            "source_no": source.run_no,
            "steps": len(copied),
            "head_hash": end,
            "now_ms": self._now(),
        }
        if source.head.tier == "archived":
            packed = await off_loop(lambda: repacked(copied), size_bytes=_size(source, copied))
            values |= pg.archived_arrays([step._replace(version=0) for step in packed])
        statement = "fork" if source.head.tier == "hot" else "fork_archived"
        rows = await self._database.run(statement, values, repeatable=False)
        if not rows:
            # The other run is gone, which is said first, or the new id is taken.
            again = await self._found(tenant_id, run_id)
            if again.run_no != source.run_no or again.head.tier != source.head.tier:
                raise refusals.moved_on(again.head, source.head.version)
            raise refusals.exists(new_run_id, tenant_id)
        new = rules.forked(source.head, new_run_id, steps=len(copied), head_hash=end, now_ms=rows[0][0])
        return await _whole_head(StoredRun(head=new, inputs=source.run.inputs, result=None))

    async def delete(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> bool:
        """Delete a run and its steps; see :meth:`CheckpointStorage.delete`."""
        arguments.check_run(run_id, tenant_id)
        for _ in range(_TRIES):
            found = await self._find(tenant_id, run_id)
            if found is None:
                return False
            rules.check_deletable(found.head, found.now_ms)
            values = pg.seen(found.run_no, found.head) | {"now_ms": self._now()}
            if await self._database.run("delete", values, repeatable=False):
                return True
        raise _too_busy(run_id)

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
        for _ in range(_TRIES):
            whole = await self._find_whole(tenant_id, run_id)
            if whole is None:
                raise refusals.not_found(run_id, tenant_id)
            found, now_ms = whole
            head, took_over = rules.claimed(
                found.head,
                holder,
                lease_ms=length_ms,
                steal=steal,
                reopen=reopen,
                crash_limit=crash_limit,
                token=lambda: 0,  # drawn by the statement
                now_ms=now_ms,
                is_gone=self._is_gone,
            )
            if found.head.tier == "archived":
                await self.restore(run_id, tenant_id=tenant_id)
                continue
            if head.status is RunStatus.FAILED:
                dead = pg.head_values(head) | pg.seen(found.run_no, found.head) | {"result": None}
                if await self._database.run("end", dead):
                    raise refusals.finished(head)
                continue
            rows = await self._database.run("claim", pg.claim_values(head) | pg.seen(found.run_no, found.head))
            if rows:
                run = replace(found.run, head=head._replace(lease_token=rows[0][0]))
                return Claim(token=run.head.lease_token, head=await _whole_head(run), took_over=took_over)
        raise _too_busy(run_id)

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
        values = {
            "tenant_id": tenant_id,
            "workflow": workflow,
            "idle_ms": arguments.idle_ms(idle),
            "host": f"{holder.host}|",
            "count": CANDIDATES,
            "now_ms": self._now(),
        }
        where = "" if workflow is None else " AND r.workflow = %(workflow)s"
        after = FIRST
        while True:
            behind = {**values, "after_ms": after.updated_ms, "after_no": after.run_no}
            lying = pg.lying(await self._database.run("lying", behind, where=where))
            claim = await first_granted(
                [head.run_id for _, head, now_ms in lying if rules.is_free(head, now_ms, self._is_gone)],
                lambda run_id: self.claim(
                    run_id, holder=holder, lease=lease, crash_limit=crash_limit, tenant_id=tenant_id
                ),
            )
            # Others were quicker, or processes of this host live with all of these: there may be more behind them.
            if claim is not None or len(lying) < CANDIDATES:
                return claim
            run_no, last, _ = lying[-1]
            after = Position(updated_ms=last.updated_ms, run_no=run_no)

    async def heartbeat(
        self, run_id: str, token: int, *, lease: timedelta = DEFAULT_LEASE, tenant_id: str = DEFAULT_TENANT
    ) -> None:
        """Prolong a lease; see :meth:`CheckpointStorage.heartbeat`."""
        arguments.check_run(run_id, tenant_id)
        arguments.check_index(token, what="token", at_least=1)
        length_ms = arguments.lease_ms(lease)
        values = {
            "tenant_id": tenant_id,
            "run_ids": [run_id],
            "tokens": [token],
            "lease_ms": length_ms,
            "now_ms": self._now(),
        }
        for _ in range(_TRIES):
            if await self._database.run("heartbeat", values):
                return
            found = await self._found(tenant_id, run_id)
            rules.prolonged(found.head, token, lease_ms=length_ms, now_ms=found.now_ms)
        raise _too_busy(run_id)

    async def heartbeat_all(
        self, tokens: Mapping[str, int], *, lease: timedelta = DEFAULT_LEASE, tenant_id: str = DEFAULT_TENANT
    ) -> frozenset[str]:
        """Prolong many leases, in one statement; see :meth:`CheckpointStorage.heartbeat_all`."""
        arguments.check_tokens(tokens, tenant_id)
        values = {
            "tenant_id": tenant_id,
            # In one order, so that two that prolong the same runs do not wait for each other.
            "run_ids": sorted(tokens),
            "tokens": [tokens[run_id] for run_id in sorted(tokens)],
            "lease_ms": arguments.lease_ms(lease),
            "now_ms": self._now(),
        }
        if not tokens:
            return frozenset()
        prolonged = {row[0] for row in await self._database.run("heartbeat", values)}
        return frozenset(tokens) - prolonged

    async def release(self, run_id: str, token: int, *, tenant_id: str = DEFAULT_TENANT) -> None:
        """Give a lease up; see :meth:`CheckpointStorage.release`."""
        arguments.check_run(run_id, tenant_id)
        arguments.check_index(token, what="token", at_least=1)
        values = {"tenant_id": tenant_id, "run_id": run_id, "token": token}
        for _ in range(_TRIES):
            if await self._database.run("release", values):
                return
            if rules.released((await self._found(tenant_id, run_id)).head, token) is None:
                return
        raise _too_busy(run_id)

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
        """Record one step, in one statement; see :meth:`CheckpointStorage.append`."""
        arguments.check_run(run_id, tenant_id)
        check_name(step_id, what="step_id")
        arguments.check_fingerprint(fingerprint)
        by = arguments.writer(token, expected_version)
        noted = arguments.meta_body(meta)
        packed = await pack(output, what=f"the output of step {step_id!r}")
        values = {
            "tenant_id": tenant_id,
            "run_id": run_id,
            "step_id": step_id,
            "fingerprint": fingerprint,
            "digest": packed.digest,
            "size_bytes": packed.size_bytes,
            "meta": noted,
            "body": packed.body,
            "token": token,
            "version": expected_version,
            "hash_behind": behind_parent(step_id=step_id, fingerprint=fingerprint, digest=packed.digest),
            "now_ms": self._now(),
        }
        for _ in range(_TRIES):
            rows = await self._run_unless_taken("append", values)
            if rows and rows[0][0] is not None:
                return pg.appended(rows[0])
            step = rules.NewStep(step_id=step_id, fingerprint=fingerprint, output=packed, meta=noted)
            refused = await self._why_not_appended(tenant_id, run_id, step, by)
            if refused is not None:
                return refused
        raise _too_busy(run_id)

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
        for _ in range(_TRIES):
            found = await self._find(tenant_id, run_id)
            if found is not None:
                version = await self._save_again(found, steps, status=status, by=by)
            elif token is not None or expected_version:
                raise refusals.not_found(run_id, tenant_id)
            else:
                head = rules.created(
                    tenant_id,
                    run_id,
                    workflow=workflow,
                    workflow_version="",
                    inputs_digest=nothing.digest,
                    now_ms=0,
                )
                version = await self._save_first(head, nothing, steps, status=status)
            if version is not None:
                return version
        raise _too_busy(run_id)

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
        return await self._end(
            tenant_id,
            run_id,
            lambda head, now_ms: rules.finished(
                head, status, result=packed, error=text, waiting_for=waiting_for, by=by, now_ms=now_ms
            ),
            result=None if packed is None else packed.body,
        )

    async def abort(self, run_id: str, *, reason: str = "", tenant_id: str = DEFAULT_TENANT) -> RunHead:
        """Abort a run from outside; see :meth:`CheckpointStorage.abort`."""
        arguments.check_run(run_id, tenant_id)
        text = arguments.error_text(reason, what="reason") or None
        return await self._end(
            tenant_id, run_id, lambda head, now_ms: rules.aborted(head, reason=text, now_ms=now_ms), result=None
        )

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
        read = await self._read_all(tenant_id, run_id)
        if read is None:
            raise refusals.not_found(run_id, tenant_id)
        found, steps = read
        if found.head.tier == "hot":
            return False

        def verified() -> list[StoredStep]:
            check_whole(found.run, steps)
            return repacked(steps)

        packed = await off_loop(verified, size_bytes=_size(found, steps))
        values = {"run_no": found.run_no, "rows_sha256": rows_digest(packed), "now_ms": self._now()}
        return bool(await self._database.run("restore", values | pg.archived_arrays(packed)))

    # --- what the verbs are made of -----------------------------------------------------------------------------------

    def _now(self) -> int | None:
        """The time to be taken instead of the database's, None for that."""
        return None if self._clock is None else self._clock()

    async def _find(self, tenant_id: str, run_id: str, *, step_id: str | None = None) -> pg.Found | None:
        values = {"tenant_id": tenant_id, "run_id": run_id, "step_id": step_id, "now_ms": self._now()}
        rows = await self._database.run("find", values)
        return pg.found(rows[0]) if rows else None

    async def _found(self, tenant_id: str, run_id: str) -> pg.Found:
        found = await self._find(tenant_id, run_id)
        if found is None:
            raise refusals.not_found(run_id, tenant_id)
        return found

    async def _find_whole(self, tenant_id: str, run_id: str) -> tuple[Located, int] | None:
        values = {"tenant_id": tenant_id, "run_id": run_id, "now_ms": self._now()}
        rows = await self._database.run("find_whole", values)
        return pg.located(rows[0]) if rows else None

    async def _steps(
        self, run_no: int, *, first: int = 0, count: int | None = None, bodies: bool = True
    ) -> list[StoredStep]:
        values = {"run_no": run_no, "first": min(first, _ALL), "count": count, "bodies": bodies}
        return [StoredStep._make(row) for row in await self._database.run("steps", values)]

    async def _read_all(
        self, tenant_id: str, run_id: str, *, limit: int | None = None
    ) -> tuple[Located, list[StoredStep]] | None:
        """Return a run with its first steps as of one moment, without a transaction: steps are only added behind."""
        for _ in range(_TRIES):
            whole = await self._find_whole(tenant_id, run_id)
            if whole is None:
                return None
            found, _now = whole
            if found.head.tier == "archived":
                archived = await self._archived_steps(found)
                if archived is None:
                    continue
                return found, archived[:limit]
            steps = await self._steps(found.run_no, count=limit)
            expected = _expected(found.head, limit)
            if len(steps) == expected:
                return found, steps
            again = await self._find(tenant_id, run_id)
            if again is not None and again.run_no == found.run_no and again.head.tier == found.head.tier:
                # More: recorded since the head was read. What does not fit the head of now either is damage, and told.
                recorded_since = expected < len(steps) <= again.head.next_step_index
                return found, steps[:expected] if recorded_since else steps
            # Deleted, or archived, in between.
        raise _too_busy(run_id)

    async def _archived_steps(self, found: Located) -> list[StoredStep] | None:
        """Return a run's steps out of the archive; None where they lie elsewhere than they did when it was asked."""
        head = found.head
        copy = await self._copy(found.run_no)
        try:
            steps = await archived_steps(self._archive, copy, head)
        except CheckpointCorruptError:
            again = await self._find(head.tenant_id, head.run_id)
            moved = again is None or again.run_no != found.run_no or again.head.tier == "hot"
            if moved or await self._copy(found.run_no) != copy:
                return None
            raise
        return list(steps)

    async def _copy(self, run_no: int) -> ArchivedCopy | None:
        rows = await self._database.run("archived_copy", {"run_no": run_no})
        if not rows:
            return None
        object_key, offset, length, steps, sha256 = rows[0]
        return ArchivedCopy(object_key=object_key, offset=offset, length=length, steps=steps, sha256=sha256)

    async def _run_unless_taken(self, name: str, values: Mapping[str, object]) -> Sequence[Row]:
        """Run a statement; where another was quicker with the same key, as if it had found that there."""
        from psycopg.errors import UniqueViolation

        try:
            return await self._database.run(name, values)
        except UniqueViolation:
            return ()

    async def _why_not_appended(self, tenant_id: str, run_id: str, step: rules.NewStep, by: Writer) -> Appended | None:
        """Raise what refuses a step, or return where it stands; None where the head of now would take it."""
        found = await self._find(tenant_id, run_id, step_id=step.step_id)
        if found is None:
            raise refusals.not_found(run_id, tenant_id)
        if found.head.tier == "archived":  # what is recorded lies there too
            await self.restore(run_id, tenant_id=tenant_id)
            return None
        if rules.appended(found.head, found.recorded, step, by=by, now_ms=found.now_ms) is not None:
            return None
        assert found.recorded is not None
        return Appended(
            version=found.head.version,
            next_step_index=found.head.next_step_index,
            hash=found.recorded.hash,
            replayed=True,
        )

    async def _save_first(
        self, head: StoredHead, inputs: Packed, steps: Sequence[rules.NewStep], *, status: RunStatus
    ) -> int | None:
        moved, stored = rules.saved_first(head, steps, status=status, now_ms=0)
        values = pg.created_values(moved, inputs=inputs.body, now_ms=self._now()) | pg.step_arrays(stored)
        return moved.version if await self._database.run("save_first", values) else None

    async def _save_again(
        self, found: pg.Found, steps: Sequence[rules.NewStep], *, status: RunStatus, by: Writer
    ) -> int | None:
        if found.head.tier == "archived":
            await self.restore(found.head.run_id, tenant_id=found.head.tenant_id)
            return None
        values: dict[str, object] = {"run_no": found.run_no, "count": found.head.next_step_index}
        digests = {str(row[0]): row[1] for row in await self._database.run("digests", values)}
        saved = rules.saved(found.head, digests, steps, status=status, by=by, now_ms=found.now_ms)
        if saved is None:
            return found.head.version
        values = pg.head_values(saved[0]) | pg.step_arrays(saved[1]) | pg.seen(found.run_no, found.head)
        return saved[0].version if await self._run_unless_taken("save", values) else None

    async def _end(
        self,
        tenant_id: str,
        run_id: str,
        decide: Callable[[StoredHead, int], StoredHead | None],
        *,
        result: bytes | None,
    ) -> RunHead:
        for _ in range(_TRIES):
            whole = await self._find_whole(tenant_id, run_id)
            if whole is None:
                raise refusals.not_found(run_id, tenant_id)
            found, now_ms = whole
            head = decide(found.head, now_ms)
            if head is None:
                return await _whole_head(found.run)
            if found.head.tier == "archived":
                await self.restore(run_id, tenant_id=tenant_id)
                continue
            values = pg.head_values(head) | pg.seen(found.run_no, found.head) | {"result": result}
            if await self._database.run("end", values):
                return await _whole_head(StoredRun(head=head, inputs=found.run.inputs, result=result))
        raise _too_busy(run_id)


async def _whole_head(run: StoredRun) -> RunHead:
    return await off_loop(lambda: head_of(run), size_bytes=run.size_bytes)


def _size(found: Located, steps: Sequence[StoredStep]) -> int:
    return found.run.size_bytes + sum(len(step.body) for step in steps)


def _expected(head: StoredHead, limit: int | None) -> int:
    return head.next_step_index if limit is None else min(limit, head.next_step_index)


def _too_busy(run_id: str) -> CheckpointStoreUnavailableError:
    return CheckpointStoreUnavailableError(
        f"run {run_id!r} was changed by others at the same moment {_TRIES} times in a row; try again"
    )
