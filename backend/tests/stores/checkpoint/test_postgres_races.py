"""What others do to a run on PostgreSQL between the moment that a verb reads its head and the moment that it writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import psycopg
import pytest
from blockbuster import BlockBuster

from app.credentials import fixed
from app.errors import CheckpointConflictError, LeaseLostError, RunBusyError, RunFinishedError, StepConflictError
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.postgres import CheckpointStore

from .conftest import Database
from .contract import LEASE, A, B, FakeClock

Action = Callable[[], Awaitable[object]]


@pytest.fixture(autouse=True)
def may_block(blockbuster: BlockBuster) -> None:
    """Let the tests ask the server from their loop."""
    blockbuster.deactivate()


@pytest.fixture
def clock() -> FakeClock:
    """Return the time of all stores."""
    return FakeClock()


@pytest.fixture
async def store(database: Database, clock: FakeClock) -> AsyncIterator[CheckpointStore]:
    """Return the store whose verbs are disturbed, with a run ``r`` in it."""
    store = CheckpointStore(fixed(database.dsn), clock=clock)
    await store.create("r")
    yield store
    await store.close()


@pytest.fixture
async def other(database: Database, clock: FakeClock) -> AsyncIterator[CheckpointStore]:
    """Return the store of those who disturb."""
    other = CheckpointStore(fixed(database.dsn), clock=clock)
    yield other
    await other.close()


def before(store: CheckpointStore, name: str, action: Action) -> None:
    """Let something happen right before a store runs a statement for the first time."""
    run = store.database.run
    happened = False

    async def disturbed(statement: str, values: Mapping[str, object], **options: Any) -> Sequence[Any]:
        nonlocal happened
        if statement == name and not happened:
            happened = True
            await action()
        return await run(statement, values, **options)

    store.database.run = disturbed  # type: ignore[method-assign,assignment]  # a stand-in, for this test


async def test_two_claims_at_once_have_one_winner(store: CheckpointStore, other: CheckpointStore) -> None:
    """Who read that a run is free finds that it is not any more."""
    before(store, "claim", lambda: other.claim("r", holder=B))

    with pytest.raises(RunBusyError):
        await store.claim("r", holder=A)


async def test_a_heartbeat_in_the_last_moment_keeps_the_lease(
    store: CheckpointStore, other: CheckpointStore, clock: FakeClock
) -> None:
    """Who read that a lease had run out finds that its holder lives."""
    token = (await other.claim("r", holder=B, lease=LEASE)).token
    clock.pass_(LEASE)
    before(store, "claim", lambda: other.heartbeat("r", token, lease=LEASE))

    with pytest.raises(RunBusyError):
        await store.claim("r", holder=A)

    assert (await other.append("r", "s", 1, token=token)).version == 1


async def test_a_claim_of_a_run_that_was_just_ended_is_refused(store: CheckpointStore, other: CheckpointStore) -> None:
    """Who read that a run waits finds that it was completed."""
    await store.finish("r", RunStatus.WAITING, waiting_for="budget", expected_version=0)
    before(store, "claim", lambda: other.finish("r", RunStatus.COMPLETED, expected_version=1))

    with pytest.raises(RunFinishedError):
        await store.claim("r", holder=A)


async def test_an_end_does_not_overlook_a_step(store: CheckpointStore, other: CheckpointStore) -> None:
    """Who ends a run by the version that was read is told of the step that came in between."""
    before(store, "end", lambda: other.append("r", "s", 1, expected_version=0))

    with pytest.raises(CheckpointConflictError):
        await store.finish("r", RunStatus.COMPLETED, expected_version=0)


async def test_an_end_does_not_overlook_a_takeover(store: CheckpointStore, other: CheckpointStore) -> None:
    """Who ends a run by a token that was just superseded is told so."""
    token = (await store.claim("r", holder=A)).token
    before(store, "end", lambda: other.claim("r", holder=B, steal=True))

    with pytest.raises(LeaseLostError):
        await store.finish("r", RunStatus.COMPLETED, token=token)


async def test_a_save_does_not_overlook_a_step(store: CheckpointStore, other: CheckpointStore) -> None:
    """Who saves a whole state by the version that was read is told of the step that came in between."""
    before(store, "save", lambda: other.append("r", "b", 2, expected_version=0))

    with pytest.raises(CheckpointConflictError):
        await store.save("r", 1, step_outputs={"a": 1}, expected_version=0)

    assert await store.verify("r") == 1


async def test_a_save_does_not_overlook_an_end(store: CheckpointStore, other: CheckpointStore) -> None:
    """Who saves by the version that was read is told that the run was parked in between."""
    before(store, "save", lambda: other.finish("r", RunStatus.WAITING, waiting_for="budget", expected_version=0))

    with pytest.raises(CheckpointConflictError):
        await store.save("r", 1, step_outputs={"a": 1}, expected_version=0)


async def test_a_save_does_not_overlook_a_takeover(store: CheckpointStore, other: CheckpointStore) -> None:
    """Who saves by a token that was just superseded is told so."""
    token = (await store.claim("r", holder=A)).token
    before(store, "save", lambda: other.claim("r", holder=B, steal=True))

    with pytest.raises(LeaseLostError):
        await store.save("r", 1, step_outputs={"a": 1}, token=token)


async def test_a_first_save_does_not_overwrite_a_run(store: CheckpointStore, other: CheckpointStore) -> None:
    """Of two that save a state under a new id at once, the later one is told what is there."""
    before(store, "save_first", lambda: other.save("n", 1, step_outputs={"a": 2}))

    with pytest.raises((StepConflictError, CheckpointConflictError)):
        await store.save("n", 1, step_outputs={"a": 1})

    loaded = await store.load("n")
    assert loaded is not None
    assert loaded.step_outputs == {"a": 2}


async def test_a_run_that_was_just_claimed_is_not_deleted(store: CheckpointStore, other: CheckpointStore) -> None:
    """Who read that nobody holds a run finds that somebody does."""
    before(store, "delete", lambda: other.claim("r", holder=B))

    with pytest.raises(RunBusyError):
        await store.delete("r")


async def test_a_heartbeat_in_the_last_moment_keeps_the_run(
    store: CheckpointStore, other: CheckpointStore, clock: FakeClock
) -> None:
    """Who read that the lease of a run had run out finds that its holder lives, and deletes nothing."""
    token = (await other.claim("r", holder=B, lease=LEASE)).token
    clock.pass_(LEASE)
    before(store, "delete", lambda: other.heartbeat("r", token, lease=LEASE))

    with pytest.raises(RunBusyError):
        await store.delete("r")


async def test_a_delete_takes_the_step_that_was_just_recorded(
    store: CheckpointStore, other: CheckpointStore, database: Database
) -> None:
    """No step is left behind without its run."""
    before(store, "delete", lambda: other.append("r", "s", 1, expected_version=0))

    assert await store.delete("r") is True

    assert database.value("SELECT count(*) FROM nova_steps") == 0


async def test_a_delete_waits_for_the_step_that_is_being_recorded(
    store: CheckpointStore, database: Database, clock: FakeClock
) -> None:
    """A step that is committed while a delete waits for the head is deleted with it."""
    with psycopg.connect(database.dsn) as writer:
        writer.execute("UPDATE nova_runs SET version = 1, next_step_index = 1")
        writer.execute("INSERT INTO nova_steps SELECT run_no, 0, 1, 0, 1, 's', '', 'd', 'h', 'm', 'b' FROM nova_runs")
        deleting = asyncio.ensure_future(store.delete("r"))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
        while not database.value(waiting, database.name):  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0)
        writer.commit()
        assert await deleting is True

    assert database.value("SELECT count(*) FROM nova_steps") == 0


async def test_a_load_is_of_one_moment(store: CheckpointStore, other: CheckpointStore) -> None:
    """A step that is recorded between the reading of the head and of the steps is not in it, and not damage."""
    before(store, "steps", lambda: other.append("r", "s", 1, expected_version=0))

    loaded = await store.load("r")

    assert loaded is not None
    assert (loaded.version, loaded.step_outputs) == (0, {})


async def test_a_run_that_is_deleted_while_it_is_loaded_is_not_there(
    store: CheckpointStore, other: CheckpointStore
) -> None:
    """Nor is that damage; a run that was created anew meanwhile is the one that is loaded."""
    await store.append("r", "s", 1, expected_version=0)

    async def anew() -> None:
        await other.delete("r")
        await other.create("r", inputs="anew")

    before(store, "steps", anew)

    loaded = await store.load("r")

    assert loaded is not None
    assert (loaded.head.inputs, loaded.steps) == ("anew", ())


async def test_a_fork_of_a_run_that_was_just_deleted_makes_nothing(
    store: CheckpointStore, other: CheckpointStore, database: Database
) -> None:
    """Also where another run has the same id by then."""

    async def anew() -> None:
        await other.delete("r")
        await other.create("r")

    before(store, "fork", anew)

    with pytest.raises(CheckpointConflictError):
        await store.fork("r", "f")
    assert database.value("SELECT count(*) FROM nova_runs") == 1


async def test_an_append_by_version_that_lost_is_told(store: CheckpointStore, other: CheckpointStore) -> None:
    """Who was second learns from the head of now why it was refused."""
    before(store, "append", lambda: other.append("r", "b", 2, expected_version=0))

    with pytest.raises(CheckpointConflictError):
        await store.append("r", "a", 1, expected_version=0)


async def test_many_appends_of_one_step_record_it_once(store: CheckpointStore, database: Database) -> None:
    """Eight tasks with one token and one step: all are told that it stands, and one row is there."""
    token = (await store.claim("r", holder=A)).token

    for number in range(20):
        appended = await asyncio.gather(*(store.append("r", f"s{number}", number, token=token) for _ in range(8)))
        assert sorted(each.replayed for each in appended) == [False] + [True] * 7

    assert await store.verify("r") == 20
    assert database.value("SELECT count(*) FROM nova_steps") == 20


async def test_many_appends_at_once_make_one_chain(store: CheckpointStore) -> None:
    """Forty steps by one token at once are forty steps, one behind the other."""
    token = (await store.claim("r", holder=A)).token

    await asyncio.gather(*(store.append("r", f"s{number}", number, token=token) for number in range(40)))

    assert await store.verify("r") == 40


async def test_many_writers_without_a_lease_have_one_winner_each_time(store: CheckpointStore) -> None:
    """Of eight that expect the same version one records its step, and seven are told."""
    for version in range(10):
        outcomes = await asyncio.gather(
            *(store.append("r", f"s{version}/{n}", n, expected_version=version) for n in range(8)),
            return_exceptions=True,
        )
        refused = [each for each in outcomes if isinstance(each, CheckpointConflictError)]
        assert len(refused) == 7

    assert await store.verify("r") == 10


async def test_tokens_grow_where_the_sequence_was_lost(store: CheckpointStore, database: Database) -> None:
    """A replica that took over by logical replication begins to count anew; the tokens of a run go on all the same."""
    first = (await store.claim("r", holder=A)).token
    for _ in range(3):
        await store.claim("r", holder=A)
    database.rows("ALTER SEQUENCE nova_lease_token RESTART")

    assert (await store.claim("r", holder=A)).token > first + 2
