"""PostgreSQL out of order: connections that die, answers that are lost, servers that are silent, full or read-only."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest
from blockbuster import BlockBuster

from app.credentials import Credential, fixed
from app.errors import (
    CheckpointStoreUnavailableError,
    ConfigurationError,
    NovaError,
    RunExistsError,
    StoreDamagedError,
)
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.postgres import CheckpointStore
from app.stores.postgres.failures import translated
from tests.support.planted import planted
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.proxy import FaultProxy

from .conftest import Database
from .contract import A

SECRET = planted("postgres.password")


@pytest.fixture(autouse=True)
def may_block(blockbuster: BlockBuster) -> None:
    """Let the tests ask the server from their loop."""
    blockbuster.deactivate()


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[FaultProxy]:
    """Return a proxy in front of the server."""
    async with FaultProxy(database.server.port) as proxy:
        yield proxy


@pytest.fixture
async def store(database: Database, proxy: FaultProxy) -> AsyncIterator[CheckpointStore]:
    """Return a store behind the proxy, with a run ``r`` in it."""
    store = CheckpointStore(fixed(through(database, proxy)), timeout_s=1.0)
    await store.create("r")
    yield store
    await store.close()


def through(database: Database, proxy: FaultProxy) -> str:
    """Return the address of a database behind a proxy, with a password that nobody asks for."""
    return f"postgresql://postgres:{SECRET}@127.0.0.1:{proxy.port}/{database.name}"


# --- connections that die -------------------------------------------------------------------------------------------


async def test_a_connection_that_the_server_left_is_noticed_without_a_ping(
    store: CheckpointStore, database: Database, proxy: FaultProxy
) -> None:
    """After every idle connection was ended, the next verb works, also one that must not be sent twice."""
    for number in range(3):
        database.rows(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> pg_backend_pid()",
            database.name,
        )
        while proxy._links:  # noqa: ASYNC110 - the end goes through the proxy, which has no event for it
            await asyncio.sleep(0)

        assert (await store.create(f"n{number}")).version == 0

    assert proxy.accepted == 4


async def test_an_append_whose_answer_is_lost_is_a_success(store: CheckpointStore, proxy: FaultProxy) -> None:
    """The step is sent once more on a new connection, and stands once."""
    token = (await store.claim("r", holder=A)).token
    proxy.lose_answers(1)

    appended = await store.append("r", "s", 1, token=token)

    assert (appended.replayed, appended.next_step_index) == (True, 1)
    assert await store.verify("r") == 1


@pytest.mark.parametrize("verb", ["save", "finish", "heartbeat", "release", "abort", "claim"])
async def test_every_verb_that_may_be_repeated_is(store: CheckpointStore, proxy: FaultProxy, verb: str) -> None:
    """A lost answer in a verb whose repetition gives the same is nobody's trouble."""
    token = (await store.claim("r", holder=A)).token
    verbs: dict[str, Callable[[], object]] = {
        "save": lambda: store.save("r", 1, step_outputs={"a": 1}, token=token),
        "finish": lambda: store.finish("r", RunStatus.COMPLETED, result=7, token=token),
        "heartbeat": lambda: store.heartbeat("r", token),
        "release": lambda: store.release("r", token),
        "abort": lambda: store.abort("r"),
        "claim": lambda: store.claim("r", holder=A),
    }
    before = proxy.accepted
    proxy.lose_answers(1)

    await verbs[verb]()  # type: ignore[misc]  # each is a coroutine

    assert proxy.accepted == before + 1


@pytest.mark.parametrize("verb", ["create", "fork", "delete"])
async def test_a_verb_that_may_not_be_repeated_says_that_nothing_is_known(
    store: CheckpointStore, proxy: FaultProxy, verb: str
) -> None:
    """Sent again, it would tell its own effect as somebody else's; so the caller decides."""
    verbs: dict[str, Callable[[], object]] = {
        "create": lambda: store.create("n"),
        "fork": lambda: store.fork("r", "n"),
        "delete": lambda: store.delete("r"),
    }
    # A fork reads head and steps before it writes, a delete the head.
    answers = {"create": 1, "fork": 3, "delete": 2}[verb]
    lose_answer_number(proxy, answers)

    with pytest.raises(CheckpointStoreUnavailableError):
        await verbs[verb]()  # type: ignore[misc]  # each is a coroutine

    if verb == "delete":
        assert await store.head("r") is None
    else:
        with pytest.raises(RunExistsError):
            await store.create("n")


def lose_answer_number(proxy: FaultProxy, number: int) -> None:
    """Let a proxy pass some answers, and lose the next with its connection."""
    pass_on = proxy._to_client
    passed = 0

    async def to_client(link: object, chunk: bytes) -> bytes | None:
        nonlocal passed
        passed += 1
        if passed == number:
            proxy.lose_answers(1)
        return await pass_on(link, chunk)  # type: ignore[arg-type]  # the proxy's own link

    proxy._to_client = to_client  # type: ignore[method-assign]  # a stand-in, for this test


async def test_a_refused_connection_is_unavailable(store: CheckpointStore, proxy: FaultProxy) -> None:
    """While nobody can be reached every verb says so; afterwards it works."""
    proxy.refusing = True
    proxy.cut()
    with pytest.raises(CheckpointStoreUnavailableError, match="cannot be reached"):
        await store.head("r")
    proxy.refusing = False

    assert await store.head("r") is not None


async def test_a_silent_server_is_not_waited_for(store: CheckpointStore, proxy: FaultProxy) -> None:
    """A statement without an answer ends at its timeout, on an old connection and on a new one."""
    for fresh in (False, True):
        if fresh:
            await store.close()
        proxy.silent = True
        task = asyncio.ensure_future(store.head("r"))
        # The driver then asks the server to cancel, which is as silent: what is silent is cut.
        await asyncio.wait([task], timeout=1.2)
        proxy.cut()

        with pytest.raises(CheckpointStoreUnavailableError, match="did not answer within 1 s"):
            await task
        proxy.silent = False

    assert await store.head("r") is not None


async def test_a_cancelled_caller_leaves_a_pool_that_works(store: CheckpointStore) -> None:
    """Tasks that are cancelled while they wait for a connection or an answer take nothing with them."""
    for _ in range(20):
        tasks = [asyncio.ensure_future(store.head("r")) for _ in range(30)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [each for each in done if not isinstance(each, asyncio.CancelledError)] == [await store.head("r")] * 15


async def test_more_tasks_than_connections_take_turns(database: Database, proxy: FaultProxy) -> None:
    """A pool of two serves forty tasks with two connections."""
    store = CheckpointStore(fixed(through(database, proxy)), pool_size=2)
    await asyncio.gather(*(store.create(f"n{number}") for number in range(40)))

    assert proxy.accepted == 2
    assert len((await store.list_runs()).heads) == 40
    await store.close()


# --- event loops ----------------------------------------------------------------------------------------------------


def test_a_store_serves_several_loops_one_after_another(database: Database) -> None:
    """Each loop has connections of its own, and takes them with it, whether the store is closed or not."""
    store = CheckpointStore(fixed(database.dsn))

    async def work(run_id: str) -> int:
        await store.create(run_id)
        await asyncio.gather(*(store.head(run_id) for _ in range(5)))
        return len((await store.list_runs()).heads)

    assert [asyncio.run(work(f"r{number}")) for number in range(3)] == [1, 2, 3]
    database.until_alone()


# --- what the server refuses ----------------------------------------------------------------------------------------


async def refused(store: CheckpointStore, database: Database, statement: str) -> NovaError:
    """Change the server and return what an append is then told."""
    token = (await store.claim("r", holder=A)).token
    await store.close()
    database.rows(statement)
    with pytest.raises(NovaError) as caught:
        await store.append("r", "s", 1, token=token)
    return caught.value


async def test_a_read_only_database_is_told_as_such(store: CheckpointStore, database: Database) -> None:
    """As a replica, or a primary whose disk ran full, would."""
    error = await refused(store, database, f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    database.rows(f"ALTER DATABASE {database.name} RESET default_transaction_read_only")

    assert isinstance(error, CheckpointStoreUnavailableError)
    assert "read-only" in str(error)


async def test_a_statement_timeout_is_told_as_such(store: CheckpointStore, database: Database) -> None:
    """The server's own limit ends a statement that waits for a lock."""
    token = (await store.claim("r", holder=A)).token
    await store.close()
    database.rows(f"ALTER DATABASE {database.name} SET statement_timeout = 50")
    with psycopg.connect(database.dsn) as other:
        other.execute("SELECT 1 FROM nova_runs FOR UPDATE")
        with pytest.raises(CheckpointStoreUnavailableError, match="statement_timeout"):
            await store.append("r", "s", 1, token=token)
    database.rows(f"ALTER DATABASE {database.name} RESET statement_timeout")


async def test_serialization_failures_are_tried_again(store: CheckpointStore, database: Database) -> None:
    """A database whose transactions are serializable by default only costs more tries."""
    token = (await store.claim("r", holder=A)).token
    await store.close()
    database.rows(f"ALTER DATABASE {database.name} SET default_transaction_isolation = 'serializable'")

    await asyncio.gather(*(store.append("r", f"s{number}", number, token=token) for number in range(8)))

    database.rows(f"ALTER DATABASE {database.name} RESET default_transaction_isolation")
    assert await store.verify("r") == 8


async def test_too_many_connections_are_told_as_such(bare_database: Database) -> None:
    """The server's limit is named, with what to do."""
    bare_database.rows(f"ALTER DATABASE {bare_database.name} CONNECTION LIMIT 2")
    bare_database.rows("CREATE ROLE plain LOGIN")
    store = CheckpointStore(fixed(bare_database.dsn.replace("postgres@", "plain@")))
    with (
        psycopg.connect(bare_database.dsn.replace("postgres@", "plain@")),
        pytest.raises(CheckpointStoreUnavailableError, match="no connection left"),
    ):
        await store.head("r")
    bare_database.rows("DROP ROLE plain")


async def test_a_user_without_rights_is_told_what_to_grant(store: CheckpointStore, database: Database) -> None:
    """A role that may connect and not write is refused with the remedy."""
    database.rows("CREATE ROLE reader LOGIN")
    database.rows("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    reader = CheckpointStore(fixed(database.dsn.replace("postgres@", "reader@")))

    with pytest.raises(CheckpointStoreUnavailableError, match="Grant the user"):
        await reader.create("n")

    assert await reader.head("r") is not None
    await reader.close()
    database.rows("DROP OWNED BY reader; DROP ROLE reader")


async def test_tables_that_are_gone_are_told_as_such(bare_database: Database) -> None:
    """Somebody dropped a table: that is damage, not an outage."""
    store = CheckpointStore(fixed(bare_database.dsn))
    await store.create("r")
    bare_database.rows("DROP TABLE nova_steps")

    with pytest.raises(StoreDamagedError, match="nova db migrate"):
        await store.history("r")
    await store.close()


async def test_a_function_that_is_gone_is_told_as_such(bare_database: Database) -> None:
    """A step says which function is missing, and where it is to be had."""
    store = CheckpointStore(fixed(bare_database.dsn))
    await store.create("r")
    bare_database.rows("DROP FUNCTION nova_append")

    with pytest.raises(StoreDamagedError, match="no nova_append in its search_path"):
        await store.append("r", "s", 1, expected_version=0)
    await store.close()


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("postgresql://postgres:{secret}@127.0.0.1:{port}/nowhere", "does not exist"),
        ("postgresql://postgres:{secret}@127.0.0.1:1/nova", "cannot be reached.*Check DATABASE_URL"),
        ("postgresql://nobody:{secret}@127.0.0.1:{port}/postgres", "refuses this user"),
        ("postgresql://postgres:{secret}@127.0.0.1:{port}/postgres?sslmode=require", "cannot be reached"),
        (
            "postgresql://postgres:{secret}@127.0.0.1:{port}/postgres?options=endpoint%3Dep-cool-name-1",
            "endpoint|refuses|reached",
        ),
    ],
)
async def test_an_address_that_leads_nowhere_is_told_without_its_password(
    postgres_server: PostgresServer, url: str, match: str
) -> None:
    """Wrong database, port, user, TLS and options: an error that names the place and never the password."""
    store = CheckpointStore(fixed(url.format(secret=SECRET, port=postgres_server.port)), timeout_s=5)

    with pytest.raises(CheckpointStoreUnavailableError, match=match) as caught:
        await store.head("r")

    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in repr(store) + repr(store.database) + repr(vars(store.database))


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ("the database system is starting up", "is starting up"),
        ("the database system is not yet accepting connections", "is starting up"),
        ("the database system is in recovery mode", "is starting up"),
        ('role "app" is not permitted to log in', "refuses this user"),
    ],
)
def test_a_server_that_takes_no_connection_is_told_as_what_it_is(said: str, match: str) -> None:
    """What a server says at the door comes without a code; whether trying again helps is told all the same."""
    error = psycopg.OperationalError(f'connection failed: connection to server at "h", port 1 failed: FATAL:  {said}')

    told = translated(error, database="'d' at h:1", unavailable=CheckpointStoreUnavailableError)

    assert isinstance(told, CheckpointStoreUnavailableError)
    assert match in str(told)
    assert "cannot be reached" not in str(told)


# --- credentials ----------------------------------------------------------------------------------------------------


async def test_a_rotated_password_is_used_by_the_next_connection(
    store: CheckpointStore, database: Database, proxy: FaultProxy
) -> None:
    """The URL is asked for at each new connection; nothing has to be restarted."""
    asked: list[str] = []

    def source() -> Credential:
        asked.append(f"application{len(asked)}")
        return Credential(f"{through(database, proxy)}?application_name={asked[-1]}", version=str(len(asked)))

    rotating = CheckpointStore(source)
    names = []
    for _ in range(2):
        await rotating.head("r")
        names += database.rows(
            "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'application%%'"
            " AND datname = %s",
            database.name,
        )
        await rotating.close()
        database.rows("SELECT pg_sleep(0)")
    await rotating.close()

    assert len(set(names)) == 2


async def test_an_address_that_is_none_is_a_configuration_error() -> None:
    """What is no URL of PostgreSQL is refused at the first use, by name, and not shown."""
    for url in (
        SECRET,
        f"mysql://u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}@h/d?pgbouncer=true",
        f"postgresql://[{SECRET}",
    ):
        with pytest.raises(ConfigurationError) as caught:
            await CheckpointStore(fixed(url)).head("r")

        assert caught.value.variable == "DATABASE_URL"
        assert SECRET not in "".join(traceback.format_exception(caught.value))
