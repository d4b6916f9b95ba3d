"""What a step costs on PostgreSQL, counted by the server: statements, commits, bytes, WAL, and how rows are found."""

from __future__ import annotations

import asyncio
import base64
import random
import statistics
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from blockbuster import BlockBuster

from app.credentials import fixed
from app.stores.checkpoint import postgres_rows as pg
from app.stores.checkpoint.arguments import list_query
from app.stores.checkpoint.chain import output_digest
from app.stores.checkpoint.codec import encode
from app.stores.checkpoint.contract import RunFilter, RunStatus
from app.stores.checkpoint.postgres import CheckpointStore
from tests.support.servers.postgres import PostgresServer

from .conftest import Database
from .contract import LEASE, A

CONTENT_BYTES = 2_048
TABLES = ("nova_runs", "nova_values", "nova_steps")


@pytest.fixture(autouse=True)
def may_block(blockbuster: BlockBuster) -> None:
    """Let the tests ask the server from their loop."""
    blockbuster.deactivate()


@pytest.fixture
async def store(database: Database) -> AsyncIterator[CheckpointStore]:
    """Return a store on an empty database."""
    store = CheckpointStore(fixed(database.dsn))
    await store.head("warm")
    yield store
    await store.close()


def content(generator: random.Random) -> str:
    """Return 2,048 random bytes as base64: no codec finds less in them."""
    return base64.b64encode(generator.randbytes(CONTENT_BYTES)).decode()


class Counter:
    """Counts what the server did in a database, asked from outside of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ask("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    def reset(self) -> None:
        """Begin to count."""
        self._ask("SELECT pg_stat_statements_reset()")
        self._commits = self._committed()

    def statements(self) -> dict[str, int]:
        """Return how often each statement ran, by its beginning."""
        rows = self._ask(
            "SELECT left(query, 60), sum(calls)::int FROM pg_stat_statements AS s"
            " JOIN pg_database AS d ON d.oid = s.dbid WHERE d.datname = %s GROUP BY 1",
            self._database.name,
        )
        return {str(query): int(str(calls)) for query, calls in rows}

    def commits(self) -> int:
        """Return how many transactions were committed, once the connections of the store have ended and said so."""
        self._database.until_alone()
        return self._committed() - self._commits

    def _committed(self) -> int:
        ((count,),) = self._ask("SELECT xact_commit FROM pg_stat_database WHERE datname = %s", self._database.name)
        return int(str(count))

    def _ask(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        return self._database.server.execute(statement, *values)


async def test_a_step_is_one_statement_and_one_commit(store: CheckpointStore, database: Database) -> None:
    """Fifty steps are fifty statements and fifty commits, counted by the server; no BEGIN, no SET, no ping."""
    await store.create("r")
    token = (await store.claim("r", holder=A)).token
    await store.close()
    counter = Counter(database)
    commits: dict[int, int] = {}

    # The server counts the opening of a connection as a commit; so each time there is one.
    for steps in (10, 60):
        database.until_alone()
        counter.reset()
        for number in range(steps):
            await store.append("r", f"s{steps}/{number}", {"n": number}, token=token)
        await store.close()
        assert list(counter.statements().values()) == [steps]
        commits[steps] = counter.commits()

    assert commits[60] - commits[10] == 50


@pytest.mark.parametrize(
    ("verb", "statements"),
    [
        (lambda store, token: store.append("r", "s0", 0, token=token), 2),
        (lambda store, token: store.heartbeat("r", token), 1),
        (lambda store, token: store.release("r", token), 1),
        (lambda store, token: store.claim("r", holder=A), 2),
        (lambda store, token: store.finish("r", RunStatus.COMPLETED, token=token), 2),
        (lambda store, token: store.head("r"), 1),
        (lambda store, token: store.load("r"), 2),
        (lambda store, token: store.history("r"), 2),
        (lambda store, token: store.list_runs(), 1),
        (lambda store, token: store.create("n"), 1),
        (lambda store, token: store.fork("r", "f"), 3),
    ],
    ids=[
        "replayed append",
        "heartbeat",
        "release",
        "claim",
        "finish",
        "head",
        "load",
        "history",
        "list",
        "create",
        "fork",
    ],
)
async def test_what_each_verb_costs(
    store: CheckpointStore, database: Database, verb: Callable[[CheckpointStore, int], Any], statements: int
) -> None:
    """No verb takes more round trips than these."""
    await store.create("r")
    token = (await store.claim("r", holder=A)).token
    await store.append("r", "s0", 0, token=token)
    counter = Counter(database)
    counter.reset()

    await verb(store, token)

    assert sum(counter.statements().values()) == statements


async def test_four_hundred_steps_take_at_most_twice_their_content(store: CheckpointStore, database: Database) -> None:
    """400 steps of 2 KB take below 2x of it on the disk, indexes included, and in WAL, full pages included."""
    generator = random.Random(7)
    await store.create("r")
    token = (await store.claim("r", holder=A)).token
    database.rows("CHECKPOINT")
    before = sum(database.value(f"SELECT pg_total_relation_size('{table}')") for table in TABLES)
    lsn = database.value("SELECT pg_current_wal_insert_lsn()::text")

    for number in range(400):
        await store.append("r", f"step/{number}", content(generator), fingerprint="0" * 64, token=token)

    wal = database.value("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", lsn)
    after = sum(database.value(f"SELECT pg_total_relation_size('{table}')") for table in TABLES)
    await store.close()
    database.until_alone()
    updates, in_place = database.rows(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'nova_runs'"
    )[0]
    assert (after - before) / (400 * CONTENT_BYTES) <= 2
    assert wal / (400 * CONTENT_BYTES) <= 2
    # The claim and the change of the minute are the others.
    assert updates >= 400
    assert in_place >= 0.95 * updates


async def test_the_wal_of_a_step_does_not_grow_with_the_run(
    store: CheckpointStore, database: Database, postgres_server: PostgresServer
) -> None:
    """From step 50 to step 2,000 the medians of the deciles lie within 20 %, first-touch full pages left out."""
    generator = random.Random(8)
    await store.create("r")
    token = (await store.claim("r", holder=A)).token
    postgres_server.execute("ALTER SYSTEM SET full_page_writes = off")
    database.rows("SELECT pg_reload_conf()")
    database.rows("CHECKPOINT")
    try:
        written: list[int] = []
        last = database.value("SELECT pg_current_wal_insert_lsn()::text")
        for number in range(2_000):
            await store.append("r", f"step/{number}", content(generator), fingerprint="0" * 64, token=token)
            size, last = database.rows(
                "SELECT (l - %s::pg_lsn)::int, l::text FROM pg_current_wal_insert_lsn() AS l", last
            )[0]
            written.append(size)
    finally:
        postgres_server.execute("ALTER SYSTEM RESET full_page_writes")
        database.rows("SELECT pg_reload_conf()")

    measured = written[50:]
    tenth = len(measured) // 10
    medians = [statistics.median(measured[start : start + tenth]) for start in range(0, 10 * tenth, tenth)]
    assert max(medians) <= 1.2 * min(medians)
    assert max(medians) <= 2 * CONTENT_BYTES


def fill(database: Database) -> None:
    """Add 20,000 runs with five steps each, one second apart: the lists read their heads, nothing else of them."""
    nothing = encode(b"null")
    database.rows(
        "INSERT INTO nova_runs (created_ms, updated_ms, lease_token, version, next_step_index, head_hash, tenant_id,"
        " run_id, root_run_id, workflow, workflow_version, status, inputs_digest)"
        " SELECT n * 1000, n * 1000, 0, 5, 5, sha256('x'), 'default', 'r' || n, 'r' || n, 'w' || n %% 20, '',"
        " CASE WHEN n %% 50 = 0 THEN 'running' ELSE 'completed' END, %s FROM generate_series(1, 20000) AS n",
        output_digest(b"null"),
    )
    database.rows("INSERT INTO nova_values SELECT run_no, 'inputs', %s FROM nova_runs", nothing)
    database.rows(
        "INSERT INTO nova_steps SELECT run_no, 0, s, s, 1, 's' || s, '', sha256('z'), sha256('z'), 'm', 'b'"
        " FROM nova_runs, generate_series(0, 4) AS s"
    )
    for table in TABLES:
        database.rows(f"ANALYZE {table}")


def plan(database: Database, statement: bytes, values: dict[str, Any]) -> str:
    """Return how the server would run a statement."""
    with psycopg.ClientCursor(database.connection) as cursor:
        cursor.execute(b"EXPLAIN (COSTS OFF) " + statement, values)
        return "\n".join(str(row[0]) for row in cursor.fetchall())


VALUES: dict[str, Any] = {
    **dict.fromkeys(("run_id", "step_id", "fingerprint", "workflow", "workflow_version", "root_run_id"), "r1"),
    **dict.fromkeys(("digest", "meta", "body", "hash_behind", "head_hash", "inputs_digest", "inputs"), b"x"),
    **dict.fromkeys(("token", "version", "size_bytes", "updated_ms", "next_step_index", "lease_token", "crashes"), 1),
    **dict.fromkeys(("run_no", "seen_version", "seen_token", "seen_expires_ms", "source_no", "first", "steps"), 1),
    "tenant_id": "default",
    "status": "running",
    "now_ms": None,
    "count": 10,
    "bodies": True,
    "run_ids": ["r1", "r2"],
    "tokens": [1, 2],
    "lease_ms": 1000,
    "idle_ms": 1000,
    "after_ms": 0,
    "after_no": -1,
    "host": "h|",
    "holder": "h",
    "expires_ms": 1,
    "waiting_for": None,
    "error": None,
    "lease_holder": None,
    "lease_expires_ms": None,
    "result": b"x",
    "result_digest": b"x",
    "rows_sha256": b"x",
}
ARRAYS: dict[str, Any] = {
    "idx": [1],
    "size_bytes": [1],
    "step_id": ["s"],
    "output_digest": [b"x"],
    "hash": [b"x"],
    "meta": [b"x"],
    "body": [b"x"],
}


def values_of(name: str) -> dict[str, Any]:
    """Return values of the right types for a statement."""
    if name == "list":
        return {**VALUES, **pg.list_values("default", list_query(RunFilter(), cursor=None, limit=10), page_bytes=10**7)}
    if name in {"restore", "fork_archived"}:
        return {**VALUES, **ARRAYS, "recorded_ms": [1], "version": [1], "fingerprint": ["f"]}
    return {**VALUES, **ARRAYS} if name.startswith("save") else VALUES


def plans(database: Database) -> dict[str, str]:
    """Return how the server would run each statement."""
    names = pg.STATEMENTS.names()
    assert len(names) > 10
    return {name: plan(database, pg.STATEMENTS.text(name), values_of(name)) for name in names}


def plans_inside_of_append(database: Database) -> str:
    """Return how the statements of the function run that records a step, after a session has called it often."""
    told: list[str] = []
    with psycopg.connect(database.dsn, cursor_factory=psycopg.ClientCursor) as connection:
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        connection.execute("LOAD 'auto_explain'")
        connection.execute("SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on")
        connection.execute("SET client_min_messages = log")
        for number in range(10):
            values = {**VALUES, "step_id": f"s{number}", "token": None, "version": None}
            connection.execute(pg.STATEMENTS.text("append"), values)
        connection.rollback()
    inside = [text for text in told if "UPDATE nova_runs" in text]
    assert len(inside) == 10
    return inside[-1]


@pytest.mark.parametrize("when", ["nothing is known", "it is known to be empty", "it is full", "it is restored"])
async def test_a_step_finds_its_run_by_its_key_whatever_the_planner_knows(bare_database: Database, when: str) -> None:
    """A server session keeps the plan while the tables grow, so it must never be one that suits small tables only."""
    store = CheckpointStore(fixed(bare_database.dsn))
    await store.create("r1")
    await store.close()
    if when == "it is full":
        bare_database.rows("TRUNCATE nova_runs CASCADE")
        fill(bare_database)
    elif when == "it is known to be empty":
        bare_database.rows("VACUUM ANALYZE")
    elif when == "it is restored":
        dump = bare_database.server.dump(bare_database.name)
        bare_database.rows("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        bare_database.server.restore(dump, bare_database.name)

    text = plans_inside_of_append(bare_database)

    assert "nova_runs_key" in text
    assert "nova_steps_by_id" in text
    assert "Seq Scan" not in text


async def test_every_lookup_goes_by_an_index(database: Database) -> None:
    """No statement reads a whole table."""
    fill(database)

    assert [(name, text) for name, text in plans(database).items() if "Seq Scan" in text] == []


async def test_every_lookup_goes_by_an_index_from_the_first_row(bare_database: Database) -> None:
    """The same on new tables, of which the server knows nothing yet."""
    store = CheckpointStore(fixed(bare_database.dsn))
    await store.create("r")
    await store.close()

    assert [(name, text) for name, text in plans(bare_database).items() if "Seq Scan" in text] == []


@pytest.mark.parametrize("workflow", [None, "w0"])
@pytest.mark.parametrize("status", [None, RunStatus.RUNNING])
async def test_a_page_of_a_list_reads_a_page(
    store: CheckpointStore, database: Database, workflow: str | None, status: RunStatus | None
) -> None:
    """Whatever the filter, a page is read in the order of its index and ends with the page: nothing is sorted whole."""
    fill(database)
    query = list_query(RunFilter(workflow=workflow, status=status), cursor=None, limit=10)
    values = {**pg.list_values("default", query, page_bytes=10**7)}

    text = plan(database, pg.STATEMENTS.text("list", where=pg.list_where(query)), values)
    with psycopg.ClientCursor(database.connection) as cursor:
        statement = pg.STATEMENTS.text("list", where=pg.list_where(query))
        cursor.execute(b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, values)
        (row,) = cursor.fetchall()
    buffers = row[0][0]["Plan"]["Shared Hit Blocks"] + row[0][0]["Plan"]["Shared Read Blocks"]

    assert "Incremental Sort" in text
    # Of some 1,400 pages of heads: those of a few minutes.
    assert buffers < 350
    assert len((await store.list_runs(RunFilter(workflow=workflow, status=status), limit=10)).heads) == 10


async def test_heads_move_in_place_while_others_work(store: CheckpointStore, database: Database) -> None:
    """Sixteen runs side by side: heartbeats and steps leave the indexes of heads alone."""
    tokens = {}
    for number in range(16):
        await store.create(f"r{number}")
        tokens[f"r{number}"] = (await store.claim(f"r{number}", holder=A, lease=LEASE)).token
    await store.close()
    database.until_alone()
    counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'nova_runs'"
    before = database.rows(counts)[0]

    async def work(run_id: str, token: int) -> None:
        for number in range(50):
            await store.append(run_id, f"s{number}", number, token=token)
            await store.heartbeat(run_id, token)

    await asyncio.gather(*(work(run_id, token) for run_id, token in tokens.items()))
    await store.close()
    database.until_alone()

    updates, in_place = (after - earlier for after, earlier in zip(database.rows(counts)[0], before, strict=True))
    assert updates >= 16 * 100
    assert in_place >= 0.9 * updates


async def test_a_replay_is_no_error_of_the_server(store: CheckpointStore, database: Database) -> None:
    """A step that stands is seen before it is inserted: no statement fails, and nothing is written."""
    await store.create("r")
    token = (await store.claim("r", holder=A)).token
    await store.append("r", "s", 1, token=token)
    lines = database.server.log.count("nova_steps_by_id")

    for _ in range(3):
        assert (await store.append("r", "s", 1, token=token)).replayed

    assert database.server.log.count("nova_steps_by_id") == lines


async def test_claimers_do_not_stand_in_each_others_way(database: Database) -> None:
    """Sixteen processes that claim at once need a few statements for a run, however many of them there are."""
    stores = [CheckpointStore(fixed(database.dsn), pool_size=1) for _ in range(16)]
    for number in range(160):
        await stores[0].create(f"r{number}")
    for store in stores:
        await store.head("r0")
    counter = Counter(database)
    counter.reset()
    claimed: list[str] = []

    async def work(store: CheckpointStore, host: str) -> None:
        while claim := await store.claim_any(holder=replace(A, host=host), idle=timedelta(0)):
            claimed.append(claim.head.run_id)

    await asyncio.gather(*(work(store, f"h{number}") for number, store in enumerate(stores)))
    for store in stores:
        await store.close()

    assert sorted(claimed) == sorted(f"r{number}" for number in range(160))
    # 6 by measurement; 33 where all of them walk the list in its order.
    assert sum(counter.statements().values()) < 12 * 160
