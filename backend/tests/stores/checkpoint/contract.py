"""The checkpoint contract as tests: every backend inherits them, and brings a store, a clock and a back door."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.errors import (
    CheckpointConflictError,
    CheckpointCorruptError,
    InvalidInputError,
    LeaseLostError,
    RunBusyError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
    StateNotStorableError,
    StepConflictError,
)
from app.stores.checkpoint.claiming import CANDIDATES
from app.stores.checkpoint.codec import MAX_DEPTH, MAX_VALUE_BYTES
from app.stores.checkpoint.contract import CheckpointStorage, RunFilter, RunStatus
from app.stores.holder import Holder

BEGIN_MS = 1_700_000_000_000
SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=30)


@dataclass
class FakeClock:
    """A time that only a test moves."""

    now_ms: int = BEGIN_MS

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ms

    def pass_(self, time: timedelta) -> None:
        """Let time pass."""
        self.now_ms += time // timedelta(milliseconds=1)


def holder(name: str, *, host: str = "elsewhere") -> Holder:
    """Return a holder on a host that is not this one."""
    return Holder(host=host, boot_id="b", pid=7, started="1", instance=name)


A, B = holder("a"), holder("b")


class BackDoor(ABC):
    """Reads and changes what a backend stores, not through the store."""

    @abstractmethod
    def step_ids(self, run_id: str) -> list[str]:
        """Return the ids of a run's stored steps, in order."""

    @abstractmethod
    def set_output(self, run_id: str, step_id: str, body: bytes) -> None:
        """Change a stored output."""

    @abstractmethod
    def set_fingerprint(self, run_id: str, step_id: str, fingerprint: str) -> None:
        """Change a stored fingerprint."""

    @abstractmethod
    def swap(self, run_id: str, first: int, second: int) -> None:
        """Exchange the places of two steps."""

    @abstractmethod
    def drop_last(self, run_id: str, *, lower_count: bool) -> None:
        """Delete the last step; ``lower_count``: let the head say that it never was."""

    @abstractmethod
    def set_inputs(self, run_id: str, body: bytes) -> None:
        """Change the stored inputs."""

    @abstractmethod
    def rows(self) -> int:
        """Return how many rows of runs, values and steps there are in all."""


class CheckpointContract:
    """The laws. A subclass gives the fixtures ``clock``, ``gone``, ``store`` and ``back_door``."""

    # --- create, head, load -------------------------------------------------------------------------------------------

    async def test_create_begins_a_run(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """A new run is running, at version 0, without steps or lease, and holds what it was started with."""
        made = await store.create("r", workflow="w", workflow_version="2", inputs={"b": [1, 2.5, None, "ü"]})

        assert (made.status, made.version, made.next_step_index, made.lease) == (RunStatus.RUNNING, 0, 0, None)
        assert (made.workflow, made.workflow_version, made.root_run_id) == ("w", "2", "r")
        assert made.inputs == {"b": [1, 2.5, None, "ü"]}
        assert made.created_at == made.updated_at == datetime.fromtimestamp(clock.now_ms / 1000, tz=UTC)
        assert await store.head("r") == made

    async def test_create_refuses_a_run_that_exists(self, store: CheckpointStorage) -> None:
        """A run id is taken once, equal or not, and the refusal changes nothing."""
        made = await store.create("r", inputs=1)

        with pytest.raises(RunExistsError) as caught:
            await store.create("r", inputs=1)

        assert (caught.value.run_id, caught.value.tenant_id) == ("r", "default")
        assert await store.head("r") == made

    async def test_unknown_runs(self, store: CheckpointStorage) -> None:
        """Reads of a run that is not there answer None, and every other verb says that it is not there."""
        assert await store.head("r") is None
        assert await store.load("r") is None
        assert await store.delete("r") is False
        for verb in (
            store.claim("r", holder=A),
            store.heartbeat("r", 1),
            store.release("r", 1),
            store.append("r", "s", 1, expected_version=0),
            store.save("r", 0, step_outputs={}, expected_version=3),
            store.save("r", 0, step_outputs={}, token=3),
            store.finish("r", RunStatus.COMPLETED, expected_version=0),
            store.abort("r"),
            store.history("r"),
            store.verify("r"),
            store.fork("r", "f"),
        ):
            with pytest.raises(RunNotFoundError):
                await verb

    async def test_load_returns_what_was_recorded(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """A loaded run has its steps in the order of recording, equal to what was handed in, with meta and sizes."""
        await store.create("r")
        await store.append("r", "z", {"k": "v"}, fingerprint="f1", meta={"cost": 3}, expected_version=0)
        clock.pass_(SECOND)
        await store.append("r", "a", "x" * 5000, expected_version=1)

        state = await store.load("r")

        assert state is not None
        assert state.step_outputs == {"z": {"k": "v"}, "a": "x" * 5000}
        assert list(state.step_outputs) == ["z", "a"]
        assert (state.version, state.next_step_index) == (2, 2)
        first, second = state.steps
        assert (first.index, first.fingerprint, first.meta, first.size_bytes) == (0, "f1", {"cost": 3}, 9)
        assert (second.index, second.fingerprint, second.meta, second.size_bytes) == (1, "", {}, 5002)
        assert second.recorded_at - first.recorded_at == SECOND
        assert state.head.head_hash == second.hash != first.hash

    async def test_what_is_loaded_is_no_alias(self, store: CheckpointStorage) -> None:
        """Changing a value after it was recorded, or after it was loaded, changes nothing that is stored."""
        value: dict[str, Any] = {"list": [1]}
        await store.create("r", inputs=value)
        await store.append("r", "s", value, expected_version=0)
        value["list"].append(2)
        loaded = await store.load("r")
        assert loaded is not None
        loaded.step_outputs["s"]["list"].append(3)  # type: ignore[index,call-overload,union-attr]  # JSON

        again = await store.load("r")

        assert again is not None
        assert again.step_outputs == {"s": {"list": [1]}}
        assert again.head.inputs == {"list": [1]}

    async def test_tenants_do_not_see_each_other(self, store: CheckpointStorage) -> None:
        """The same run id in two tenants is two runs, for every verb."""
        await store.create("r", inputs="a", tenant_id="a")
        await store.create("r", inputs="b", tenant_id="b")
        claim = await store.claim("r", holder=A, tenant_id="a")
        await store.append("r", "s", 1, token=claim.token, tenant_id="a")
        await store.append("r", "s", 2, expected_version=0, tenant_id="b")

        await store.finish("r", RunStatus.COMPLETED, expected_version=1, tenant_id="b")

        seen = {tenant: await store.load("r", tenant_id=tenant) for tenant in ("a", "b", "default")}
        assert seen["default"] is None
        assert seen["a"] is not None
        assert seen["b"] is not None
        assert (seen["a"].step_outputs, seen["a"].head.status) == ({"s": 1}, RunStatus.RUNNING)
        assert (seen["b"].step_outputs, seen["b"].head.status) == ({"s": 2}, RunStatus.COMPLETED)
        assert seen["a"].head.head_hash != seen["b"].head.head_hash
        assert [head.inputs for head in (await store.list_runs(tenant_id="a")).heads] == ["a"]
        with pytest.raises(RunNotFoundError):
            await store.fork("r", "f", tenant_id="c")
        assert await store.delete("r", tenant_id="b")
        assert await store.head("r", tenant_id="a") is not None

    # --- append -------------------------------------------------------------------------------------------------------

    async def test_append_moves_the_version(self, store: CheckpointStorage) -> None:
        """Each append adds one step and one version, and says so."""
        await store.create("r")

        first = await store.append("r", "a", 1, expected_version=0)
        second = await store.append("r", "b", 2, expected_version=1)

        assert (first.version, first.next_step_index, first.replayed) == (1, 1, False)
        assert (second.version, second.next_step_index, second.replayed) == (2, 2, False)

    async def test_a_lost_acknowledgement_by_token(self, store: CheckpointStorage, back_door: BackDoor) -> None:
        """The holder's same append again is a success, also after further steps, and records nothing."""
        await store.create("r")
        token = (await store.claim("r", holder=A)).token
        first = await store.append("r", "a", {"n": 1}, fingerprint="f", token=token)
        await store.append("r", "b", 2, token=token)

        again = await store.append("r", "a", {"n": 1}, fingerprint="f", token=token)

        assert again.replayed
        assert (again.hash, again.version, again.next_step_index) == (first.hash, 2, 2)
        assert back_door.step_ids("r") == ["a", "b"]

    async def test_a_lost_acknowledgement_by_version(self, store: CheckpointStorage) -> None:
        """The same append with the version that the first try expected is a success, whatever came later."""
        await store.create("r")
        await store.append("r", "a", 1, expected_version=0)
        await store.append("r", "b", 2, expected_version=1)
        await store.claim("r", holder=A)

        again = await store.append("r", "a", 1, expected_version=0)

        assert (again.replayed, again.version) == (True, 2)

    async def test_a_stale_version_is_a_conflict(self, store: CheckpointStorage, back_door: BackDoor) -> None:
        """A writer that read an older version records nothing, also not a step that somebody recorded since."""
        await store.create("r")
        await store.append("r", "a", 1, expected_version=0)
        await store.append("r", "b", 2, expected_version=1)

        for step_id, output in (("c", 3), ("b", 2)):
            with pytest.raises(CheckpointConflictError) as caught:
                await store.append("r", step_id, output, expected_version=0)
            assert type(caught.value) is CheckpointConflictError

        with pytest.raises(CheckpointConflictError):
            await store.append("r", "c", 3, expected_version=9)
        assert back_door.step_ids("r") == ["a", "b"]

    async def test_a_token_with_a_stale_version_is_a_conflict(self, store: CheckpointStorage) -> None:
        """Where a holder gives a version too, it is checked."""
        await store.create("r")
        token = (await store.claim("r", holder=A)).token
        await store.append("r", "a", 1, token=token, expected_version=0)

        with pytest.raises(CheckpointConflictError):
            await store.append("r", "b", 2, token=token, expected_version=0)

    @pytest.mark.parametrize(("output", "fingerprint"), [(2, "f"), (1, "g"), (1, ""), (True, "f"), (1.0, "f")])
    async def test_a_step_has_one_output(self, store: CheckpointStorage, output: Any, fingerprint: str) -> None:
        """A recorded step with another output or input is a conflict of its own, for token and version alike."""
        await store.create("r")
        await store.append("r", "a", 1, fingerprint="f", expected_version=0)
        token = (await store.claim("r", holder=A)).token

        writers: tuple[dict[str, Any], ...] = ({"token": token}, {"expected_version": 0}, {"expected_version": 1})
        for writer in writers:
            with pytest.raises(StepConflictError) as caught:
                await store.append("r", "a", output, fingerprint=fingerprint, **writer)
            assert (caught.value.run_id, caught.value.step_id) == ("r", "a")

        loaded = await store.load("r")
        assert loaded is not None
        assert loaded.step_outputs == {"a": 1}

    async def test_equal_values_are_the_same_output(self, store: CheckpointStorage) -> None:
        """The order of keys, and tuples beside lists, make no difference: the canonical form is compared."""
        await store.create("r")
        await store.append("r", "a", {"x": 1, "y": [1, 2]}, expected_version=0)

        again = await store.append("r", "a", {"y": (1, 2), "x": 1}, expected_version=0)  # type: ignore[dict-item]

        assert again.replayed

    async def test_a_superseded_writer_is_told(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """After a takeover every write with the old token is LeaseLostError, also one that would replay."""
        await store.create("r")
        old = (await store.claim("r", holder=A, lease=LEASE)).token
        await store.append("r", "a", 1, token=old)
        clock.pass_(LEASE)
        new = (await store.claim("r", holder=B, lease=LEASE)).token
        before = await store.load("r")

        for verb in (
            store.append("r", "a", 1, token=old),
            store.append("r", "a", 9, token=old),
            store.append("r", "b", 1, token=old),
            store.save("r", 2, step_outputs={"a": 1, "b": 2}, token=old),
            store.save("r", 1, step_outputs={"a": 1}, token=old),
            store.finish("r", RunStatus.COMPLETED, token=old),
            store.heartbeat("r", old),
            store.release("r", old),
        ):
            with pytest.raises(LeaseLostError):
                await verb

        assert new > old
        assert await store.load("r") == before

    async def test_a_token_that_was_never_given(self, store: CheckpointStorage) -> None:
        """A token above every one that was given writes nothing."""
        await store.create("r")
        token = (await store.claim("r", holder=A)).token

        for verb in (store.append("r", "a", 1, token=token + 1), store.release("r", token + 1)):
            with pytest.raises(LeaseLostError):
                await verb

    async def test_an_expired_lease_still_writes(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """The end of a lease permits a takeover; it does not refuse the holder."""
        await store.create("r")
        token = (await store.claim("r", holder=A, lease=LEASE)).token
        clock.pass_(10 * LEASE)

        assert (await store.append("r", "a", 1, token=token)).version == 1
        await store.heartbeat("r", token, lease=LEASE)

        with pytest.raises(RunBusyError):
            await store.claim("r", holder=B)

    async def test_a_write_without_a_lease_waits_for_nobody(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """While a lease is live a write without one is RunBusyError, which names holder and time left."""
        await store.create("r")
        await store.claim("r", holder=A, lease=LEASE)
        clock.pass_(LEASE - SECOND)

        for verb in (
            store.append("r", "a", 1, expected_version=0),
            store.save("r", 1, step_outputs={"a": 1}, expected_version=0),
            store.finish("r", RunStatus.COMPLETED, expected_version=0),
        ):
            with pytest.raises(RunBusyError) as caught:
                await verb
            assert caught.value.expires_in == SECOND
            assert caught.value.holder == str(A)

        clock.pass_(SECOND)
        assert (await store.append("r", "a", 1, expected_version=0)).version == 1

    async def test_a_write_without_a_lease_ends_an_expired_one(
        self, store: CheckpointStorage, clock: FakeClock
    ) -> None:
        """A holder whose lease ran out, and who has not seen somebody's write since, writes no more."""
        await store.create("r")
        token = (await store.claim("r", holder=A, lease=LEASE)).token
        clock.pass_(LEASE)
        await store.append("r", "a", 1, expected_version=0)

        for verb in (store.append("r", "b", 2, token=token), store.heartbeat("r", token)):
            with pytest.raises(LeaseLostError):
                await verb

    async def test_a_write_needs_a_right(self, store: CheckpointStorage) -> None:
        """Without token and version nothing is written to a run that exists."""
        await store.create("r")
        await store.append("r", "a", 1, expected_version=0)

        with pytest.raises(InvalidInputError):
            await store.append("r", "b", 1)
        with pytest.raises(InvalidInputError):
            await store.finish("r", RunStatus.COMPLETED)
        with pytest.raises(CheckpointConflictError):
            await store.save("r", 2, step_outputs={"a": 1, "b": 2})
        head = await store.head("r")
        assert head is not None
        assert head.version == 1

    # --- leases -------------------------------------------------------------------------------------------------------

    async def test_claim_excludes_others(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """A live lease is somebody's: another claim is RunBusyError until it runs out to the millisecond."""
        await store.create("r")
        first = await store.claim("r", holder=A, lease=LEASE)
        clock.now_ms += 29_999

        with pytest.raises(RunBusyError) as caught:
            await store.claim("r", holder=B)
        clock.now_ms += 1
        second = await store.claim("r", holder=B, lease=LEASE)

        assert caught.value.expires_in == timedelta(milliseconds=1)
        assert caught.value.retryable
        assert (first.took_over, second.took_over) == (None, A)
        assert second.token > first.token
        assert second.head.lease is not None
        assert (second.head.lease.holder, second.head.lease.token) == (B, second.token)

    async def test_claim_again_by_the_holder(self, store: CheckpointStorage) -> None:
        """The holder's own claim gives a new token at once, and the old one is worth nothing."""
        await store.create("r")
        first = await store.claim("r", holder=A)

        second = await store.claim("r", holder=A)

        assert second.token > first.token
        assert second.took_over is None
        with pytest.raises(LeaseLostError):
            await store.append("r", "s", 1, token=first.token)

    async def test_steal(self, store: CheckpointStorage) -> None:
        """With steal a live lease is superseded, and its holder named."""
        await store.create("r")
        await store.claim("r", holder=A)

        stolen = await store.claim("r", holder=B, steal=True)

        assert stolen.took_over == A

    async def test_takeover_from_a_process_that_is_gone(self, store: CheckpointStorage, gone: set[Holder]) -> None:
        """A live lease of a process that is certainly gone is taken over at once."""
        await store.create("r")
        await store.claim("r", holder=A)
        gone.add(A)

        taken = await store.claim("r", holder=B)

        assert taken.took_over == A

    async def test_tokens_grow_over_the_runs_of_one_id(self, store: CheckpointStorage) -> None:
        """A token of a run that was deleted is worth nothing for the next run of that id."""
        await store.create("r")
        old = (await store.claim("r", holder=A)).token
        await store.abort("r")
        assert await store.delete("r")
        await store.create("r")
        new = (await store.claim("r", holder=B)).token

        with pytest.raises(LeaseLostError):
            await store.append("r", "s", 1, token=old)

        assert new > old

    async def test_heartbeat_prolongs_from_now(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """A heartbeat moves the end of the lease, and neither version nor time of the update."""
        await store.create("r")
        claim = await store.claim("r", holder=A, lease=LEASE)
        clock.pass_(20 * SECOND)

        await store.heartbeat("r", claim.token, lease=LEASE)

        head = await store.head("r")
        assert head is not None
        assert head.lease is not None
        assert claim.head.lease is not None
        assert head.lease.expires_at - claim.head.lease.expires_at == 20 * SECOND
        assert (head.version, head.updated_at) == (0, claim.head.updated_at)

    async def test_release(self, store: CheckpointStorage) -> None:
        """A released lease is nobody's; releasing again is nothing, and its token writes no more."""
        await store.create("r")
        token = (await store.claim("r", holder=A)).token
        await store.release("r", token)
        await store.release("r", token)

        for verb in (store.append("r", "s", 1, token=token), store.heartbeat("r", token)):
            with pytest.raises(LeaseLostError):
                await verb

        head = await store.head("r")
        assert head is not None
        assert (head.lease, head.status) == (None, RunStatus.RUNNING)
        assert (await store.claim("r", holder=B)).took_over is None

    async def test_claim_sets_running(self, store: CheckpointStorage) -> None:
        """Claiming a parked run sets it running, as a new version; claiming a running one is no new version."""
        await store.create("r")
        token = (await store.claim("r", holder=A)).token
        parked = await store.finish("r", RunStatus.WAITING, waiting_for="budget", token=token)

        again = await store.claim("r", holder=B)

        assert (parked.status, parked.waiting_for, parked.lease) == (RunStatus.WAITING, "budget", None)
        assert (again.head.status, again.head.waiting_for) == (RunStatus.RUNNING, None)
        assert (parked.version, again.head.version) == (1, 2)
        assert again.took_over is None

    async def test_a_run_whose_holders_die_without_a_step_is_a_dead_letter(
        self, store: CheckpointStorage, clock: FakeClock
    ) -> None:
        """After so many crashes in a row a claim fails the run; a step in between begins to count anew."""
        await store.create("r")
        for crashes in range(3):
            claim = await store.claim("r", holder=holder(str(crashes)), lease=LEASE, crash_limit=3)
            assert claim.head.crashes == crashes
            clock.pass_(LEASE)
        await store.append("r", "s", 1, token=claim.token)
        for crashes in range(1, 3):
            claim = await store.claim("r", holder=holder(f"again{crashes}"), lease=LEASE, crash_limit=3)
            assert claim.head.crashes == crashes
            clock.pass_(LEASE)

        with pytest.raises(RunFinishedError) as caught:
            await store.claim("r", holder=A, crash_limit=3)

        dead = await store.head("r")
        assert caught.value.status == "failed"
        assert dead is not None
        assert (dead.status, dead.lease, dead.crashes) == (RunStatus.FAILED, None, 3)
        assert dead.error is not None
        assert "3 times in a row" in dead.error
        with pytest.raises(LeaseLostError):
            await store.append("r", "t", 2, token=claim.token + 1)
        reopened = await store.claim("r", holder=A, reopen=True, crash_limit=3)
        assert (reopened.head.status, reopened.head.crashes, reopened.head.error) == (RunStatus.RUNNING, 0, None)
        assert await store.verify("r") == 1

    async def test_what_is_no_crash(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """A lease that was given up, a theft, and the holder's own claim count as none."""
        await store.create("r")
        for _ in range(3):
            token = (await store.claim("r", holder=B, lease=LEASE, crash_limit=1)).token
            await store.release("r", token)
            await store.claim("r", holder=A, lease=LEASE, crash_limit=1)
            clock.pass_(LEASE)
            await store.claim("r", holder=A, lease=LEASE, crash_limit=1)
            claim = await store.claim("r", holder=B, steal=True, crash_limit=1)
            assert claim.head.crashes == 0
            await store.release("r", claim.token)

    async def test_claim_any_takes_what_lies_longest(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """Runs that nobody holds are claimed one after another, the oldest first; None when there is none left."""
        for name in ("c", "a", "b"):
            await store.create(name, workflow="w" if name != "b" else "v")
            clock.pass_(SECOND)
        await store.claim("a", holder=B, lease=100 * LEASE)
        await store.create("done")
        await store.finish("done", RunStatus.COMPLETED, expected_version=0)
        await store.create("parked")
        await store.finish("parked", RunStatus.WAITING, waiting_for="budget", expected_version=0)
        await store.create("foreign", tenant_id="other")
        clock.pass_(LEASE)
        await store.create("fresh")

        first = await store.claim_any(holder=A, idle=LEASE)
        of_another = await store.claim_any(holder=A, idle=LEASE, workflow="none")
        second = await store.claim_any(holder=A, idle=LEASE)
        third = await store.claim_any(holder=A, idle=LEASE)
        at_once = await store.claim_any(holder=A, idle=timedelta(0))

        assert first is not None
        assert second is not None
        assert at_once is not None
        assert (first.head.run_id, second.head.run_id, at_once.head.run_id) == ("c", "b", "fresh")
        assert (of_another, third) == (None, None)
        assert (await store.append("c", "s", 1, token=first.token)).version == 1

    async def test_claim_any_takes_over(self, store: CheckpointStorage, clock: FakeClock, gone: set[Holder]) -> None:
        """A lease that ran out, and one of a process that is gone, are no obstacle; a dead letter is passed over."""
        for name in ("expired", "gone", "dead"):
            await store.create(name)
        await store.claim("dead", holder=B, lease=SECOND)
        await store.claim("expired", holder=B, lease=SECOND)
        await store.claim("gone", holder=B, lease=100 * LEASE)
        clock.pass_(SECOND)
        await store.claim("dead", holder=holder("third"), lease=SECOND)
        clock.pass_(LEASE)

        found = await store.claim_any(holder=A, crash_limit=2)
        held = await store.claim_any(holder=A, crash_limit=2)
        gone.add(B)
        from_gone = await store.claim_any(holder=A, crash_limit=2)

        assert found is not None
        assert (found.head.run_id, found.took_over) == ("expired", B)
        assert held is None
        assert from_gone is not None
        assert (from_gone.head.run_id, from_gone.took_over) == ("gone", B)
        dead = await store.head("dead")
        assert dead is not None
        assert dead.status is RunStatus.FAILED

    async def test_claim_any_finds_what_lies_behind_many_that_are_held(self, store: CheckpointStorage) -> None:
        """However many runs live processes of the same host hold for long, one that nobody holds is found."""
        for number in range(CANDIDATES + 1):
            await store.create(f"r{number:02}")
        for number in range(CANDIDATES):
            await store.claim(f"r{number:02}", holder=B)

        found = await store.claim_any(holder=A, idle=timedelta(0))
        none = await store.claim_any(holder=A, idle=timedelta(0))

        assert A.host == B.host
        assert found is not None
        assert found.head.run_id == f"r{CANDIDATES}"
        assert none is None

    async def test_claim_any_gives_a_run_to_one(self, store: CheckpointStorage) -> None:
        """Callers that ask at the same moment get different runs, and none twice."""
        for number in range(8):
            await store.create(f"r{number}")

        claims = await asyncio.gather(
            *(store.claim_any(holder=holder(str(number)), idle=timedelta(0)) for number in range(12))
        )

        granted = sorted(claim.head.run_id for claim in claims if claim is not None)
        assert granted == [f"r{number}" for number in range(8)]

    async def test_heartbeats_of_many_runs(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """Leases are prolonged together; those that are lost are named, and the others do not suffer."""
        tokens = {}
        for name in ("a", "b", "c", "d"):
            await store.create(name)
            tokens[name] = (await store.claim(name, holder=A, lease=LEASE)).token
        await store.claim("b", holder=B, steal=True)
        await store.release("c", tokens["c"])
        clock.pass_(20 * SECOND)

        refused = await store.heartbeat_all(tokens | {"nowhere": 7}, lease=LEASE)

        assert refused == {"b", "c", "nowhere"}
        assert await store.heartbeat_all({}) == frozenset()
        for name in ("a", "d"):
            head = await store.head(name)
            assert head is not None
            assert head.lease is not None
            assert head.lease.expires_at == datetime.fromtimestamp(clock.now_ms / 1000, tz=UTC) + LEASE

    # --- finish and abort ---------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("status", "with_"),
        [
            (RunStatus.COMPLETED, {"result": {"n": [1]}}),
            (RunStatus.FAILED, {"error": "it broke"}),
            (RunStatus.ABORTED, {"error": "why"}),
            (RunStatus.WAITING, {"waiting_for": "signal"}),
        ],
    )
    async def test_finish(self, store: CheckpointStorage, status: RunStatus, with_: dict[str, Any]) -> None:
        """An end is recorded with what belongs to it, gives up the lease, and again is a no-op."""
        await store.create("r")
        token = (await store.claim("r", holder=A)).token
        await store.append("r", "s", 1, token=token)

        ended = await store.finish("r", status, token=token, **with_)
        again = await store.finish("r", status, token=token, **with_)

        assert again == ended == await store.head("r")
        assert (ended.status, ended.version, ended.lease) == (status, 2, None)
        assert (ended.result, ended.error, ended.waiting_for) == (
            with_.get("result"),
            with_.get("error"),
            with_.get("waiting_for"),
        )

    async def test_finish_again_by_version(self, store: CheckpointStorage) -> None:
        """Without a lease the same end with the version that the first try expected is a no-op."""
        await store.create("r")

        ended = await store.finish("r", RunStatus.COMPLETED, result=1, expected_version=0)
        again = await store.finish("r", RunStatus.COMPLETED, result=1, expected_version=0)

        assert again == ended
        with pytest.raises(RunFinishedError):
            await store.finish("r", RunStatus.COMPLETED, result=2, expected_version=0)

    @pytest.mark.parametrize("final", [RunStatus.COMPLETED, RunStatus.ABORTED])
    async def test_final_is_final(self, store: CheckpointStorage, final: RunStatus) -> None:
        """A completed or aborted run takes no step, no other end, no claim; nothing of it changes."""
        await store.create("r")
        token = (await store.claim("r", holder=A)).token
        await store.append("r", "a", 1, token=token)
        await store.finish("r", final, token=token)
        before = await store.load("r")

        for verb in (
            store.append("r", "s", 1, token=token),
            store.append("r", "s", 1, expected_version=2),
            store.save("r", 2, step_outputs={"a": 1, "s": 1}, token=token),
            store.save("r", 2, step_outputs={"a": 1, "s": 1}, expected_version=2),
            store.finish("r", RunStatus.FAILED, error="x", token=token),
            store.finish("r", RunStatus.FAILED, error="x", expected_version=2),
            store.claim("r", holder=B, steal=True, reopen=True),
        ):
            with pytest.raises(RunFinishedError) as caught:
                await verb
            assert caught.value.status == final.value

        assert await store.load("r") == before

    async def test_failed_goes_on_by_request(self, store: CheckpointStorage) -> None:
        """A failed run takes no step until it is claimed with reopen."""
        await store.create("r")
        await store.finish("r", RunStatus.FAILED, error="x", expected_version=0)

        with pytest.raises(RunFinishedError):
            await store.claim("r", holder=A)
        with pytest.raises(RunFinishedError):
            await store.append("r", "s", 1, expected_version=1)
        claim = await store.claim("r", holder=A, reopen=True)

        assert (claim.head.status, claim.head.error) == (RunStatus.RUNNING, None)
        assert (await store.append("r", "s", 1, token=claim.token)).next_step_index == 1

    async def test_abort(self, store: CheckpointStorage) -> None:
        """An abort ends a run whoever holds it; the holder is told at the next write; again is a no-op."""
        await store.create("r")
        token = (await store.claim("r", holder=A)).token
        await store.append("r", "s", 1, token=token)

        aborted = await store.abort("r", reason="enough")

        assert (aborted.status, aborted.error, aborted.lease) == (RunStatus.ABORTED, "enough", None)
        assert await store.abort("r", reason="again") == aborted
        with pytest.raises(RunFinishedError):
            await store.append("r", "t", 2, token=token)

    async def test_abort_after_completion(self, store: CheckpointStorage) -> None:
        """A completed run is not aborted."""
        await store.create("r")
        ended = await store.finish("r", RunStatus.COMPLETED, result=1, expected_version=0)

        with pytest.raises(RunFinishedError):
            await store.abort("r")

        assert await store.head("r") == ended

    async def test_long_error_texts_are_kept_in_part(self, store: CheckpointStorage) -> None:
        """A failure is always recorded: a text that is too long is cut, one without UTF-8 is escaped."""
        await store.create("r")

        failed = await store.finish("r", RunStatus.FAILED, error="\udcff" + "x" * 10_000, expected_version=0)

        assert failed.error is not None
        assert failed.error.startswith("\\udcffx")
        assert failed.error.endswith("x…")
        assert await store.finish("r", RunStatus.FAILED, error="\udcff" + "x" * 10_000, expected_version=0) == failed

    # --- save ---------------------------------------------------------------------------------------------------------

    async def test_save_records_a_whole_state(self, store: CheckpointStorage, back_door: BackDoor) -> None:
        """A state is recorded step by step in its order; a run that is not there is created, at version 1."""
        first = await store.save("r", 2, step_outputs={"b": 1, "a": 2}, workflow="w")
        second = await store.save("r", 3, step_outputs={"b": 1, "c": 3, "a": 2}, expected_version=first)

        state = await store.load("r")
        assert (first, second) == (1, 2)
        assert back_door.step_ids("r") == ["b", "a", "c"]
        assert state is not None
        assert (state.step_outputs, state.head.workflow) == ({"b": 1, "a": 2, "c": 3}, "w")
        assert await store.verify("r") == 3

    async def test_save_again(self, store: CheckpointStorage) -> None:
        """The same state again, by the version that the first try expected or by the token, is a success."""
        assert await store.save("r", 1, step_outputs={"a": 1}) == 1
        assert await store.save("r", 1, step_outputs={"a": 1}) == 1
        assert await store.save("r", 2, step_outputs={"a": 1, "b": 2}, expected_version=1) == 2
        assert await store.save("r", 2, step_outputs={"a": 1, "b": 2}, expected_version=1) == 2
        token = (await store.claim("r", holder=A)).token
        done = {"step_outputs": {"a": 1, "b": 2, "c": 3}, "status": RunStatus.COMPLETED, "token": token}
        assert await store.save("r", 3, **done) == 3  # type: ignore[arg-type]  # one dict for both calls
        assert await store.save("r", 3, **done) == 3  # type: ignore[arg-type]  # one dict for both calls
        head = await store.head("r")
        assert head is not None
        assert (head.status, head.lease) == (RunStatus.COMPLETED, None)

    async def test_save_conflicts(self, store: CheckpointStorage, back_door: BackDoor) -> None:
        """A recorded step that differs or is missing is StepConflictError, an older version is a conflict."""
        await store.save("r", 2, step_outputs={"a": 1, "b": 2})

        for outputs in ({"a": 1, "b": 9}, {"a": 1}, {"a": 1, "c": 3}):
            with pytest.raises(StepConflictError) as caught:
                await store.save("r", len(outputs), step_outputs=outputs, expected_version=1)
            assert caught.value.step_id == "b"
        for version in (0, 7):
            with pytest.raises(CheckpointConflictError) as stale:
                await store.save("r", 3, step_outputs={"a": 1, "b": 2, "c": 3}, expected_version=version)
            assert type(stale.value) is CheckpointConflictError
        with pytest.raises(InvalidInputError):
            await store.save("r", 5, step_outputs={"a": 1, "b": 2}, expected_version=1)

        assert back_door.step_ids("r") == ["a", "b"]
        head = await store.head("r")
        assert head is not None
        assert head.version == 1

    # --- the chain ----------------------------------------------------------------------------------------------------

    async def _with_three_steps(self, store: CheckpointStorage) -> None:
        await store.save("r", 3, step_outputs={"a": 1, "b": 2, "c": 3})

    async def _assert_corrupt(self, store: CheckpointStorage, step_id: str | None) -> None:
        for verb in (store.load("r"), store.verify("r"), store.fork("r", "f")):
            with pytest.raises(CheckpointCorruptError) as caught:
                await verb
            assert (caught.value.run_id, caught.value.step_id) == ("r", step_id)
            assert "'r'" in str(caught.value)
        assert await store.head("f") is None

    async def test_a_changed_output_is_found(self, store: CheckpointStorage, back_door: BackDoor) -> None:
        """A stored output that was changed, or cannot be read, does not load; the error names the step."""
        await self._with_three_steps(store)

        back_door.set_output("r", "b", b"\x0122")

        await self._assert_corrupt(store, "b")
        with pytest.raises(CheckpointCorruptError, match="its output is not the one that was recorded"):
            await store.load("r")
        for damaged in (b"\x02no frame", b"\x07?", b"", b"\x02\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\x7f"):
            back_door.set_output("r", "b", damaged)
            await self._assert_corrupt(store, "b")

    async def test_a_changed_fingerprint_is_found(self, store: CheckpointStorage, back_door: BackDoor) -> None:
        """The fingerprint of a step's input is part of the chain."""
        await self._with_three_steps(store)

        back_door.set_fingerprint("r", "b", "other")

        await self._assert_corrupt(store, "b")

    async def test_a_changed_order_is_found(self, store: CheckpointStorage, back_door: BackDoor) -> None:
        """Steps that changed places do not load."""
        await self._with_three_steps(store)

        back_door.swap("r", 1, 2)

        await self._assert_corrupt(store, "c")

    async def test_a_dropped_step_is_found(self, store: CheckpointStorage, back_door: BackDoor) -> None:
        """A missing last step does not load, also where the head's count was lowered with it."""
        await self._with_three_steps(store)
        back_door.drop_last("r", lower_count=False)
        await self._assert_corrupt(store, None)

        back_door.drop_last("r", lower_count=True)
        await self._assert_corrupt(store, None)

    async def test_changed_inputs_are_found(self, store: CheckpointStorage, back_door: BackDoor) -> None:
        """Inputs that are not what the run was started with do not load."""
        await store.create("r", inputs=[1])

        back_door.set_inputs("r", b"\x01[2]")

        await self._assert_corrupt(store, None)

    # --- history, fork, list, delete ----------------------------------------------------------------------------------

    async def test_history_pages(self, store: CheckpointStorage) -> None:
        """History is in the order of recording, without outputs, a page at a time."""
        await store.save("r", 5, step_outputs={f"s{n}": n for n in range(5)})

        pages = [await store.history("r", after_index=after, limit=2) for after in (-1, 1, 3, 4)]

        assert [[step.step_id for step in page] for page in pages] == [["s0", "s1"], ["s2", "s3"], ["s4"], []]
        assert [step.index for step in pages[1]] == [2, 3]
        assert not hasattr(pages[0][0], "output")

    async def test_fork_copies_the_beginning(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """A fork has inputs, name and the first steps, with their hashes; it lives and ends alone."""
        await store.create("r", workflow="w", workflow_version="1", inputs={"i": 1})
        token = (await store.claim("r", holder=A)).token
        for index in range(3):
            await store.append("r", f"s{index}", index, fingerprint="f", meta={"m": 1}, token=token)
        await store.finish("r", RunStatus.COMPLETED, result=1, token=token)
        clock.pass_(SECOND)

        made = await store.fork("r", "f", steps=2)

        forked, original = await store.load("f"), await store.load("r")
        assert forked is not None
        assert original is not None
        assert made == forked.head
        assert forked.steps == original.steps[:2]
        assert forked.head.head_hash == original.steps[1].hash
        assert (made.root_run_id, made.status, made.lease, made.result) == ("r", RunStatus.RUNNING, None, None)
        assert (made.inputs, made.workflow, made.workflow_version) == ({"i": 1}, "w", "1")
        assert made.created_at - original.head.created_at == SECOND
        other = await store.append("f", "s2", "other", expected_version=made.version)
        assert other.hash != original.steps[2].hash
        assert (await store.fork("f", "g")).root_run_id == "r"
        assert await store.delete("r")
        assert await store.verify("f") == await store.verify("g") == 3

    async def test_fork_of_all_and_none(self, store: CheckpointStorage) -> None:
        """A fork takes all steps, or none."""
        await self._with_three_steps(store)

        assert (await store.fork("r", "all")).next_step_index == 3
        assert (await store.fork("r", "none", steps=0)).next_step_index == 0
        assert (await store.verify("all"), await store.verify("none")) == (3, 0)

    async def test_fork_refuses(self, store: CheckpointStorage) -> None:
        """A fork of more steps than there are, or onto a run that exists, makes nothing."""
        await self._with_three_steps(store)
        await store.create("there")

        for steps in (4, -1):
            with pytest.raises(InvalidInputError):
                await store.fork("r", "f", steps=steps)
        for target in ("there", "r"):
            with pytest.raises(RunExistsError):
                await store.fork("r", target)

        assert await store.head("f") is None

    async def test_list_is_in_pages(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """Pages follow each other, latest update first, each run once, also where many share a time."""
        for index in range(7):
            await store.create(f"r{index}", inputs=index)
            if index % 3 == 2:
                clock.pass_(SECOND)

        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = await store.list_runs(cursor=cursor, limit=2)
            seen += [head.run_id for head in page.heads]
            cursor = page.cursor
            if cursor is None:
                break

        assert seen == ["r6", "r5", "r4", "r3", "r2", "r1", "r0"]
        assert (await store.list_runs(limit=7)).cursor is None

    async def test_list_continues_while_runs_move(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """A run that is not updated meanwhile appears once, whatever happens to the others."""
        for index in range(6):
            await store.create(f"r{index}")
            clock.pass_(SECOND)
        page = await store.list_runs(limit=3)
        await store.append("r0", "s", 1, expected_version=0)
        await store.delete("r2")
        await store.create("new")

        rest = await store.list_runs(limit=3, cursor=page.cursor)

        assert [head.run_id for head in page.heads] == ["r5", "r4", "r3"]
        assert [head.run_id for head in rest.heads] == ["r1"]

    async def test_list_filters(self, store: CheckpointStorage, clock: FakeClock) -> None:
        """A list is filtered by workflow, status and time: from inclusive, to exclusive."""
        start = datetime.fromtimestamp(clock.now_ms / 1000, tz=UTC)
        for index, workflow in enumerate(("a", "b", "a")):
            await store.create(f"r{index}", workflow=workflow)
            clock.pass_(SECOND)
        await store.finish("r0", RunStatus.COMPLETED, expected_version=0)

        async def ids(**where: Any) -> list[str]:
            return [head.run_id for head in (await store.list_runs(RunFilter(**where))).heads]

        assert await ids(workflow="a") == ["r0", "r2"]
        assert await ids(status=RunStatus.RUNNING) == ["r2", "r1"]
        assert await ids(workflow="a", status=RunStatus.COMPLETED) == ["r0"]
        assert await ids(updated_from=start + SECOND, updated_to=start + 2 * SECOND) == ["r1"]
        assert await ids(updated_from=start + SECOND + timedelta(microseconds=1)) == ["r0", "r2"]
        assert await ids(workflow="c") == []

    async def test_a_page_of_large_runs_ends_early(
        self, store: CheckpointStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Large inputs make a page shorter than its limit, never incomplete: the cursor goes on."""
        monkeypatch.setattr("app.stores.checkpoint.embedded.PAGE_BYTES", 10)
        for index in range(3):
            await store.create(f"r{index}", inputs="x" * 100)

        first = await store.list_runs(limit=3)
        second = await store.list_runs(limit=3, cursor=first.cursor)

        assert [head.run_id for head in first.heads] == ["r2"]
        assert [head.run_id for head in second.heads] == ["r1"]

    async def test_delete_leaves_nothing(self, store: CheckpointStorage, clock: FakeClock, back_door: BackDoor) -> None:
        """A deleted run leaves no row; a live lease forbids it."""
        await store.create("r", inputs=1)
        token = (await store.claim("r", holder=A, lease=LEASE)).token
        await store.append("r", "s", 1, token=token)

        with pytest.raises(RunBusyError):
            await store.delete("r")
        clock.pass_(LEASE)

        assert await store.delete("r") is True
        assert await store.delete("r") is False
        assert (await store.head("r"), back_door.rows()) == (None, 0)
        assert (await store.create("r")).version == 0

    # --- bad input ----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("bad", ["", "x" * 1_000_000, "a\x00b", "a\nb", "\ud800", 7, None])
    async def test_names_that_are_none(self, store: CheckpointStorage, back_door: BackDoor, bad: Any) -> None:
        """Ids that are empty, too long, not printable or not text are refused by every verb; nothing changes."""
        for verb in (
            store.create(bad),
            store.create("r", tenant_id=bad),
            store.claim(bad, holder=A),
            store.append(bad, "s", 1, expected_version=0),
            store.append("r", bad, 1, expected_version=0),
            store.save(bad, 0, step_outputs={}),
            store.save("r", 1, step_outputs={bad: 1}),
            store.finish(bad, RunStatus.COMPLETED, expected_version=0),
            store.abort(bad),
            store.load(bad),
            store.head(bad),
            store.history(bad),
            store.verify(bad),
            store.fork(bad, "f"),
            store.fork("r", bad),
            store.delete(bad),
            store.heartbeat(bad, 1),
            store.release(bad, 1),
            store.list_runs(tenant_id=bad),
            store.heartbeat_all({bad: 1}),
            store.claim_any(holder=A, tenant_id=bad),
        ):
            with pytest.raises(InvalidInputError):
                await verb

        assert back_door.rows() == 0

    @pytest.mark.parametrize(
        "bad",
        [
            math.nan,
            -math.inf,
            {1: 2},
            {"a": {"b": object()}},
            b"bytes",
            {"s"},
            "\ud800",
            10**5000,
            datetime.now(tz=UTC),
        ],
        ids=lambda bad: type(bad).__name__,
    )
    async def test_values_that_are_not_json(self, store: CheckpointStorage, back_door: BackDoor, bad: Any) -> None:
        """What is not JSON is refused wherever a value is taken, and nothing is written."""
        await store.create("r")

        for verb in (
            store.create("n", inputs=bad),
            store.append("r", "s", bad, expected_version=0),
            store.append("r", "s", 1, meta={"m": bad}, expected_version=0),
            store.save("r", 2, step_outputs={"a": 1, "s": bad}, expected_version=0),
            store.finish("r", RunStatus.COMPLETED, result=bad, expected_version=0),
        ):
            with pytest.raises(StateNotStorableError):
                await verb

        head = await store.head("r")
        assert head is not None
        assert (head.version, back_door.step_ids("r"), await store.head("n")) == (0, [], None)

    async def test_a_refusal_names_the_place(self, store: CheckpointStorage) -> None:
        """The error says what is wrong, and where in the value it is."""
        for value, said in (({"a": [1, math.nan]}, r"nan at \$\.a\[1\]"), ({"a": {"b": b""}}, r"bytes at \$\.a\.b")):
            with pytest.raises(StateNotStorableError, match=said):
                await store.create("r", inputs=value)  # type: ignore[arg-type]

    async def test_values_that_are_too_much(self, store: CheckpointStorage) -> None:
        """The largest and the deepest value are stored; one more byte or level, and a cycle, are not."""
        await store.create("r")
        deep: Any = 1
        for _ in range(MAX_DEPTH):
            deep = [deep]
        cycle: list[Any] = []
        cycle.append(cycle)

        await store.append("r", "large", "x" * (MAX_VALUE_BYTES - 2), expected_version=0)
        await store.append("r", "deep", deep, expected_version=1)
        for bad in ("x" * (MAX_VALUE_BYTES - 1), [deep], cycle):
            with pytest.raises(StateNotStorableError):
                await store.append("r", "bad", bad, expected_version=2)

        state = await store.load("r")
        assert state is not None
        assert state.step_outputs == {"large": "x" * (MAX_VALUE_BYTES - 2), "deep": deep}

    async def test_values_that_hold_a_part_many_times(self, store: CheckpointStorage) -> None:
        """What is small in memory and endless as JSON is refused at once, also where only one place is too deep."""
        await store.create("r")
        lists: Any = 1
        dicts: Any = 1
        for _ in range(60):
            lists, dicts = [lists, lists], {"a": dicts, "b": dicts}
        high: Any = 1
        for _ in range(MAX_DEPTH - 1):
            high = [high]

        await store.append("r", "twice", [high, high], expected_version=0)
        refused: list[tuple[Any, str]] = [
            (
                ["x" * 2**20] * 17,
                "more than",
            ),  # first, since without a bound the next ones take all memory that there is
            (["x" * 2**20] * 20_000, "more than"),
            (lists, "more than"),
            (dicts, "more than"),
            ([high, [high]], "deep"),
        ]
        for bad, said in refused:
            with pytest.raises(StateNotStorableError, match=said):
                await store.append("r", "bad", bad, expected_version=1)

        state = await store.load("r")
        assert state is not None
        assert state.step_outputs == {"twice": [high, high]}

    async def test_arguments_out_of_range(self, store: CheckpointStorage) -> None:
        """Numbers, times, statuses and cursors outside what a verb takes are refused."""
        await store.create("r")
        naive = datetime(2026, 1, 1)  # noqa: DTZ001 - a time without a zone is what is refused

        for verb in (
            store.append("r", "s", 1, token=0),
            store.append("r", "s", 1, token=True),
            store.append("r", "s", 1, token=2**63),
            store.append("r", "s", 1, expected_version=-1),
            store.append("r", "s", 1, expected_version=1.0),  # type: ignore[arg-type]
            store.append("r", "s", 1, expected_version=0, fingerprint="a\nb"),
            store.append("r", "s", 1, expected_version=0, meta=[1]),  # type: ignore[arg-type]
            store.claim("r", holder=A, lease=timedelta(0)),
            store.claim("r", holder=A, lease=-SECOND),
            store.claim("r", holder=A, lease=timedelta(days=9999)),
            store.claim("r", holder="me"),  # type: ignore[arg-type]
            store.claim("r", holder=holder("x", host="a|b")),
            store.heartbeat("r", 1, lease=timedelta(0)),
            store.heartbeat_all({"r": 0}),
            store.heartbeat_all(["r"]),  # type: ignore[arg-type]
            store.claim("r", holder=A, crash_limit=0),
            store.claim_any(holder=A, crash_limit=0),
            store.claim_any(holder=A, idle=-SECOND),
            store.claim_any(holder=A, lease=timedelta(0)),
            store.claim_any(holder="me"),  # type: ignore[arg-type]
            store.finish("r", RunStatus.RUNNING, expected_version=0),
            store.finish("r", "done", expected_version=0),  # type: ignore[arg-type]
            store.finish("r", RunStatus.WAITING, result=1, expected_version=0),
            store.finish("r", RunStatus.COMPLETED, error="x", expected_version=0),
            store.finish("r", RunStatus.COMPLETED, waiting_for="budget", expected_version=0),
            store.finish("r", RunStatus.WAITING, waiting_for="rain", expected_version=0),  # type: ignore[arg-type]
            store.save("r", 0, step_outputs=[], expected_version=0),  # type: ignore[arg-type]
            store.history("r", limit=0),
            store.history("r", after_index=-2),
            store.list_runs(limit=0),
            store.list_runs(limit=1001),
            store.list_runs(cursor="what"),
            store.list_runs(cursor="MS4x"),
            store.list_runs(cursor=""),
            store.list_runs(cursor="Mi41LjU"),  # of a form that is not known
            store.list_runs(cursor="MS41LjU="),  # with padding
            store.list_runs(cursor=7),  # type: ignore[arg-type]
            store.list_runs(RunFilter(updated_from=naive)),
            store.list_runs(RunFilter(status="odd")),  # type: ignore[arg-type]
        ):
            with pytest.raises(InvalidInputError):
                await verb

        head = await store.head("r")
        assert head is not None
        assert (head.version, head.lease) == (0, None)
