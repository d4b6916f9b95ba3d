"""The idempotency contract as tests: every backend runs this class, with a back door that looks behind the verbs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest

from app.errors import IdempotencyConflictError, IdempotencyLeaseLostError, InvalidInputError
from app.stores.holder import Holder
from app.stores.idempotency.contract import (
    KEEP_UNFINISHED,
    MAX_LEASE,
    MAX_RESULT_BYTES,
    MAX_TTL,
    Completed,
    IdempotencyStore,
    InProgress,
    Started,
)

ME: Final = Holder.current()
OTHER: Final = Holder.current(instance="other")
LEASE: Final = timedelta(seconds=30)
TTL: Final = timedelta(hours=1)
MS: Final = timedelta(milliseconds=1)


class FakeClock:
    """A clock that goes only where a test moves it."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        """Return the time in milliseconds."""
        return self.now_ms

    def advance(self, duration: timedelta) -> None:
        """Let ``duration`` pass."""
        self.now_ms += duration // MS


class BackDoor(ABC):
    """Reads what a store keeps without asking its verbs."""

    @abstractmethod
    def rows(self) -> dict[tuple[str, str], tuple[Any, ...]]:
        """Return everything kept, by tenant and key, expired rows included; equal where nothing changed."""


def ended_process() -> Holder:
    """Return the holder that a process of this host was, after it has ended."""
    code = "from app.stores.holder import Holder; print(Holder.current().encode())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return Holder.decode(ran.stdout.strip())


async def started(
    store: IdempotencyStore, key: str = "k", fingerprint: str = "f", *, holder: Holder = ME, tenant_id: str = "default"
) -> Started:
    """Begin and demand that the key is owned by it."""
    answer = await store.begin(key, fingerprint, holder=holder, lease=LEASE, tenant_id=tenant_id)
    assert isinstance(answer, Started), answer
    return answer


class IdempotencyContract:
    """The laws. A subclass gives the fixtures ``store`` (built on ``clock``) and ``back_door``."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Give the time of the store."""
        return FakeClock()

    # --- owning a key -------------------------------------------------------------------------------------------

    async def test_the_first_begin_owns_the_key(self, store: IdempotencyStore) -> None:
        """Whoever asks first does the work, as attempt 1."""
        answer = await store.begin("k", "f", holder=ME)

        assert isinstance(answer, Started)
        assert answer.attempt == 1

    @pytest.mark.parametrize("second", [OTHER, ME], ids=["another holder", "the same holder"])
    async def test_a_duplicate_in_flight_waits(self, store: IdempotencyStore, clock: FakeClock, second: Holder) -> None:
        """While a lease lives everybody else, its own holder included, learns who has it and for how long at most."""
        await started(store)
        clock.advance(timedelta(seconds=12))

        answer = await store.begin("k", "f", holder=second, lease=LEASE)

        assert answer == InProgress(retry_after=timedelta(seconds=18), holder=str(ME))

    async def test_of_many_concurrent_begins_one_starts(self, store: IdempotencyStore) -> None:
        """Of fifty tasks that ask at once one owns the key; the others are told that it is in progress."""
        answers = await asyncio.gather(*(store.begin("k", "f", holder=ME) for _ in range(50)))

        assert sorted(type(answer).__name__ for answer in answers) == ["InProgress"] * 49 + ["Started"]

    async def test_keys_are_independent(self, store: IdempotencyStore) -> None:
        """Owning one key says nothing about another, and their tokens differ."""
        first, second = await started(store, "a"), await started(store, "b")

        assert first.attempt == second.attempt == 1
        assert first.token != second.token

    async def test_the_lease_ends_on_its_millisecond(self, store: IdempotencyStore, clock: FakeClock) -> None:
        """A millisecond before its end a lease protects its holder; at its end the key is taken over, attempt 2."""
        first = await started(store)
        clock.advance(LEASE - MS)

        before = await store.begin("k", "f", holder=OTHER)
        clock.advance(MS)
        after = await started(store, holder=OTHER)

        assert before == InProgress(retry_after=MS, holder=str(ME))
        assert after.attempt == 2
        assert after.token > first.token

    async def test_a_holder_that_is_gone_is_taken_over_at_once(self, store: IdempotencyStore) -> None:
        """No lease protects a process of this host that has ended."""
        first = await started(store, holder=ended_process())

        second = await started(store)

        assert second.attempt == 2
        assert second.token > first.token

    async def test_a_holder_of_another_host_is_waited_for(self, store: IdempotencyStore) -> None:
        """Nobody here can know that a process elsewhere is gone: only its lease says so."""
        await started(store, holder=replace(ended_process(), host="elsewhere"))

        answer = await store.begin("k", "f", holder=ME, lease=LEASE)

        assert isinstance(answer, InProgress)
        assert "elsewhere" in answer.holder

    # --- results ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "result",
        [b"", b"\x00\xff\x00", b'{"a": 1}' * 100, os.urandom(300_000)],
        ids=["empty", "binary", "compressible", "large and incompressible"],
    )
    async def test_a_result_is_replayed_byte_for_byte(self, store: IdempotencyStore, result: bytes) -> None:
        """After complete every begin with the same fingerprint gets exactly what was recorded."""
        token = (await started(store)).token

        await store.complete("k", token, result, ttl=TTL)

        assert await store.begin("k", "f", holder=OTHER) == Completed(result=result)
        assert await store.begin("k", "f", holder=ME) == Completed(result=result)

    async def test_the_largest_result_is_taken(self, store: IdempotencyStore) -> None:
        """A result of exactly the largest size is kept."""
        result = b"x" * MAX_RESULT_BYTES
        token = (await started(store)).token

        await store.complete("k", token, result)

        assert await store.begin("k", "f", holder=ME) == Completed(result=result)

    async def test_completing_again_with_the_same_result_changes_nothing(
        self, store: IdempotencyStore, clock: FakeClock, back_door: BackDoor
    ) -> None:
        """A lost acknowledgement is repeated safely: no error, and the time to live still counts from the first."""
        token = (await started(store)).token
        await store.complete("k", token, b"r", ttl=TTL)
        before = back_door.rows()
        clock.advance(TTL - MS)

        await store.complete("k", token, b"r", ttl=TTL)

        assert back_door.rows() == before

    async def test_a_recorded_result_is_never_replaced(self, store: IdempotencyStore, back_door: BackDoor) -> None:
        """The same token with another result is refused, and the first result stays."""
        token = (await started(store)).token
        await store.complete("k", token, b"first", ttl=TTL)
        before = back_door.rows()

        with pytest.raises(IdempotencyLeaseLostError):
            await store.complete("k", token, b"second", ttl=TTL)

        assert back_door.rows() == before
        assert await store.begin("k", "f", holder=ME) == Completed(result=b"first")

    async def test_a_result_lives_for_its_time_and_no_longer(self, store: IdempotencyStore, clock: FakeClock) -> None:
        """Counted from complete: a millisecond before the end it is replayed, at the end the key is absent."""
        first = await started(store)
        clock.advance(timedelta(seconds=20))
        await store.complete("k", first.token, b"r", ttl=TTL)

        clock.advance(TTL - MS)
        before = await store.begin("k", "f", holder=ME)
        clock.advance(MS)
        after = await started(store, fingerprint="another request")

        assert before == Completed(result=b"r")
        assert after.attempt == 1
        assert after.token > first.token

    # --- fingerprints -------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", ["in progress", "lease over", "free", "completed"])
    async def test_another_request_conflicts_in_every_state(
        self, store: IdempotencyStore, clock: FakeClock, back_door: BackDoor, state: str
    ) -> None:
        """A key that was used for one request is refused to another one, and stays as it was."""
        token = (await started(store)).token
        if state == "lease over":
            clock.advance(LEASE)
        elif state == "free":
            await store.abandon("k", token)
        elif state == "completed":
            await store.complete("k", token, b"r")
        before = back_door.rows()

        with pytest.raises(IdempotencyConflictError) as caught:
            await store.begin("k", "another request", holder=OTHER)

        assert caught.value.key == "k"
        assert back_door.rows() == before

    async def test_an_unfinished_key_is_forgotten_in_the_end(self, store: IdempotencyStore, clock: FakeClock) -> None:
        """The fingerprint of a key that was never completed binds for ``KEEP_UNFINISHED`` after its lease."""
        first = await started(store)
        clock.advance(LEASE + KEEP_UNFINISHED - MS)

        with pytest.raises(IdempotencyConflictError):
            await store.begin("k", "another request", holder=ME)
        clock.advance(MS)
        with pytest.raises(IdempotencyLeaseLostError):
            await store.complete("k", first.token, b"r")
        second = await started(store, fingerprint="another request")

        assert second.attempt == 1
        assert second.token > first.token

    # --- giving up, staying on ----------------------------------------------------------------------------------

    async def test_an_abandoned_key_is_free_at_once(self, store: IdempotencyStore) -> None:
        """The next begin owns it, with a new token, as the next attempt."""
        first = await started(store)

        await store.abandon("k", first.token)
        second = await started(store, holder=OTHER)

        assert second.attempt == 2
        assert second.token > first.token

    async def test_abandoning_again_changes_nothing(
        self, store: IdempotencyStore, clock: FakeClock, back_door: BackDoor
    ) -> None:
        """A repeated abandon is no error and does not prolong what is remembered."""
        token = (await started(store)).token
        await store.abandon("k", token)
        before = back_door.rows()
        clock.advance(timedelta(minutes=1))

        await store.abandon("k", token)

        assert back_door.rows() == before

    async def test_a_heartbeat_counts_the_lease_from_now(self, store: IdempotencyStore, clock: FakeClock) -> None:
        """After it the key is protected for the lease it names, however much was left before."""
        token = (await started(store)).token
        clock.advance(LEASE - MS)

        await store.heartbeat("k", token, lease=timedelta(seconds=5))

        answer = await store.begin("k", "f", holder=OTHER)
        assert answer == InProgress(retry_after=timedelta(seconds=5), holder=str(ME))

    async def test_a_lease_that_ran_out_is_its_holders_until_it_is_taken(
        self, store: IdempotencyStore, clock: FakeClock
    ) -> None:
        """Expiry permits a takeover; it does not by itself refuse the holder's heartbeat or result."""
        token = (await started(store)).token
        clock.advance(LEASE * 2)

        await store.heartbeat("k", token, lease=LEASE)
        waiting = await store.begin("k", "f", holder=OTHER)
        clock.advance(LEASE * 2)
        await store.complete("k", token, b"late but first")

        assert isinstance(waiting, InProgress)
        assert await store.begin("k", "f", holder=OTHER) == Completed(result=b"late but first")

    # --- whoever lost the key changes nothing -------------------------------------------------------------------

    @pytest.mark.parametrize("fate", ["taken over", "taken over and completed", "taken over and abandoned"])
    @pytest.mark.parametrize("verb", ["complete", "abandon", "heartbeat"])
    async def test_a_superseded_holder_changes_nothing(
        self, store: IdempotencyStore, clock: FakeClock, back_door: BackDoor, verb: str, fate: str
    ) -> None:
        """With the token of a lost lease every verb is refused, whatever the new owner has done since."""
        old = await started(store)
        clock.advance(LEASE)
        new = await started(store, holder=OTHER)
        if fate == "taken over and completed":
            await store.complete("k", new.token, b"r")
        elif fate == "taken over and abandoned":
            await store.abandon("k", new.token)
        before = back_door.rows()

        with pytest.raises(IdempotencyLeaseLostError) as caught:
            await verbs(store)[verb]("k", old.token)

        assert caught.value.key == "k"
        assert back_door.rows() == before

    @pytest.mark.parametrize(
        ("end", "verb"),
        [("complete", "abandon"), ("complete", "heartbeat"), ("abandon", "complete"), ("abandon", "heartbeat")],
    )
    async def test_what_ended_stays_ended(
        self, store: IdempotencyStore, back_door: BackDoor, end: str, verb: str
    ) -> None:
        """After complete or abandon the other verbs are refused to the very holder that ended it."""
        token = (await started(store)).token
        await verbs(store)[end]("k", token)
        before = back_door.rows()

        with pytest.raises(IdempotencyLeaseLostError):
            await verbs(store)[verb]("k", token)

        assert back_door.rows() == before

    @pytest.mark.parametrize("verb", ["complete", "abandon", "heartbeat"])
    async def test_an_unknown_key_has_no_owner(self, store: IdempotencyStore, back_door: BackDoor, verb: str) -> None:
        """A token for a key that was never begun is refused and leaves no record."""
        with pytest.raises(IdempotencyLeaseLostError):
            await verbs(store)[verb]("never begun", 1)

        assert back_door.rows() == {}

    async def test_tokens_grow_past_the_end_of_the_record(self, store: IdempotencyStore, clock: FakeClock) -> None:
        """A holder from before a record expired and was removed does not match the key's next owner."""
        tokens = []
        for _ in range(3):
            owned = await started(store)
            tokens.append(owned.token)
            await store.complete("k", owned.token, b"r", ttl=MS)
            clock.advance(MS)

        assert tokens == sorted(set(tokens))
        await started(store)
        for token in tokens:
            with pytest.raises(IdempotencyLeaseLostError):
                await store.abandon("k", token)

    async def test_tokens_grow_within_a_millisecond(self, store: IdempotencyStore) -> None:
        """Owners of the same instant have different tokens, the later the higher."""
        tokens = []
        for _ in range(5):
            tokens.append((await started(store)).token)
            await store.abandon("k", tokens[-1])

        assert tokens == sorted(set(tokens))

    async def test_a_token_is_never_below_the_time(self, store: IdempotencyStore, clock: FakeClock) -> None:
        """A store that lost its data gives tokens above those it gave before."""
        clock.advance(timedelta(days=1))

        assert (await started(store)).token >= clock.now_ms

    # --- tenants ------------------------------------------------------------------------------------------------

    async def test_tenants_do_not_meet(self, store: IdempotencyStore) -> None:
        """The same key in another tenant is another key: other request, other result, other owner."""
        # The second token of a tenant: it differs from the other's first one also where each tenant counts for itself.
        await store.abandon("k", (await started(store, fingerprint="ours", tenant_id="a")).token, tenant_id="a")
        ours = await started(store, fingerprint="ours", tenant_id="a")
        theirs = await started(store, fingerprint="theirs", tenant_id="b")
        await store.complete("k", ours.token, b"ours", tenant_id="a")

        for verb in ("complete", "abandon", "heartbeat"):
            with pytest.raises(IdempotencyLeaseLostError):
                await verbs(store, tenant_id="b")[verb]("k", ours.token)
        await store.complete("k", theirs.token, b"theirs", tenant_id="b")

        assert await store.begin("k", "ours", holder=ME, tenant_id="a") == Completed(result=b"ours")
        assert await store.begin("k", "theirs", holder=ME, tenant_id="b") == Completed(result=b"theirs")
        assert isinstance(await store.begin("k", "third", holder=ME), Started)

    # --- what is removed ----------------------------------------------------------------------------------------

    async def test_expired_records_are_removed_in_small_portions(
        self, store: IdempotencyStore, clock: FakeClock, back_door: BackDoor
    ) -> None:
        """A begin that finds a hundred expired records removes a few of them, and the next ones remove the rest."""
        for number in range(100):
            token = (await started(store, f"old {number}")).token
            await store.complete(f"old {number}", token, b"r", ttl=MS)
        clock.advance(MS)

        kept = []
        for number in range(25):
            await started(store, f"new {number}")
            kept.append(sum(1 for _, key in back_door.rows() if key.startswith("old")))

        assert all(0 <= earlier - later <= 10 for earlier, later in zip([100, *kept], kept, strict=False))
        assert kept[-1] == 0

    async def test_what_has_not_expired_is_not_removed(self, store: IdempotencyStore, clock: FakeClock) -> None:
        """However many begins pass by, a living result is replayed and a living lease protects."""
        token = (await started(store, "done")).token
        await store.complete("done", token, b"r", ttl=TTL)
        await started(store, "running")

        for number in range(50):
            await started(store, f"other {number}")

        assert await store.begin("done", "f", holder=ME) == Completed(result=b"r")
        assert isinstance(await store.begin("running", "f", holder=OTHER), InProgress)

    # --- input and life -----------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.begin("", "f", holder=ME),
            lambda store: store.begin("k" * 513, "f", holder=ME),
            lambda store: store.begin("k\n", "f", holder=ME),
            lambda store: store.begin(7, "f", holder=ME),
            lambda store: store.begin("k", "", holder=ME),
            lambda store: store.begin("k", "f", holder="me"),
            lambda store: store.begin("k", "f", holder=ME, tenant_id=""),
            lambda store: store.begin("k", "f", holder=ME, lease=timedelta(0)),
            lambda store: store.begin("k", "f", holder=ME, lease=MAX_LEASE + MS),
            lambda store: store.begin("k", "f", holder=ME, lease=30),
            lambda store: store.complete("k", 1, "text"),
            lambda store: store.complete("k", 1, b"x" * (MAX_RESULT_BYTES + 1)),
            lambda store: store.complete("k", 1, b"r", ttl=timedelta(seconds=-1)),
            lambda store: store.complete("k", 1, b"r", ttl=MAX_TTL + MS),
            lambda store: store.complete("k", "1", b"r"),
            lambda store: store.complete("k", True, b"r"),
            lambda store: store.abandon("k", 0),
            lambda store: store.abandon("k", 2**63),
            lambda store: store.heartbeat("k", 1.0),
            lambda store: store.heartbeat("k", 1, lease=timedelta(microseconds=1)),
        ],
    )
    async def test_what_a_verb_does_not_take_is_refused(
        self, store: IdempotencyStore, back_door: BackDoor, call: Callable[[Any], Awaitable[object]]
    ) -> None:
        """A wrong name, type, duration or size is refused before anything is touched."""
        with pytest.raises(InvalidInputError):
            await call(store)

        assert back_door.rows() == {}

    async def test_a_closed_store_opens_again(self, store: IdempotencyStore) -> None:
        """Closing lets go of files and connections, twice if asked, and forgets nothing."""
        token = (await started(store)).token
        await store.close()
        await store.close()

        await store.complete("k", token, b"r")

        assert await store.begin("k", "f", holder=ME) == Completed(result=b"r")


def verbs(store: IdempotencyStore, *, tenant_id: str = "default") -> dict[str, Callable[[str, int], Awaitable[None]]]:
    """Return the verbs that need a token, each called with a key and one."""
    return {
        "complete": lambda key, token: store.complete(key, token, b"r", tenant_id=tenant_id),
        "abandon": lambda key, token: store.abandon(key, token, tenant_id=tenant_id),
        "heartbeat": lambda key, token: store.heartbeat(key, token, tenant_id=tenant_id),
    }
