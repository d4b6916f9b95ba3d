"""The participants that run in Nova's own environment: ``python recorders.py NAME DSN``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "backend"))

from benchmarks.support.recording import Recorder, Steps, serve_runs

CONNECTIONS = 16


@asynccontextmanager
async def bare(dsn: str) -> AsyncIterator[Recorder]:
    """One INSERT, one commit: the bytes that Nova stores, on as many connections as it has, unprepared as its are."""
    import psycopg

    from app.stores.checkpoint.codec import canonical_json, decode, encode

    connections = [
        await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=None) for _ in range(CONNECTIONS)
    ]
    await connections[0].execute(
        "CREATE TABLE IF NOT EXISTS bare (run text, idx int, body bytea, PRIMARY KEY (run, idx))"
    )
    await connections[0].execute("ALTER TABLE bare ALTER COLUMN body SET STORAGE EXTERNAL")
    await connections[0].execute("ALTER TABLE bare SET (toast_tuple_target = 8160)")
    free = list(connections)
    # Its waiters take turns, as Nova's do; whoever gives a connection back does not get it again before them.
    slots = asyncio.Semaphore(CONNECTIONS)

    async def record(name: str, steps: Steps) -> None:
        for number in range(len(steps)):
            body = encode(canonical_json(steps.next(number)))
            async with slots:
                connection = free.pop()
                await connection.execute("INSERT INTO bare VALUES (%s, %s, %b)", (name, number, body))
                free.append(connection)

    async def load(name: str) -> int:
        cursor = await connections[0].execute("SELECT body FROM bare WHERE run = %s ORDER BY idx", (name,), binary=True)
        return len([decode(bytes(row[0])) for row in await cursor.fetchall()])

    yield Recorder(record=record, load=load)
    for connection in connections:
        await connection.close()


@asynccontextmanager
async def nova_store(dsn: str) -> AsyncIterator[Recorder]:
    """The store alone: claim, and then one append after another."""
    from app.credentials import fixed
    from app.stores.checkpoint.postgres import CheckpointStore
    from app.stores.holder import Holder

    store = CheckpointStore(fixed(dsn), pool_size=CONNECTIONS)

    async def record(name: str, steps: Steps) -> None:
        await store.create(name)
        token = (await store.claim(name, holder=Holder.current(instance=name))).token
        for number in range(len(steps)):
            await store.append(name, f"step/{number}", steps.next(number), fingerprint="0" * 64, token=token)

    async def load(name: str) -> int:
        state = await store.load(name)
        return 0 if state is None else len(state.steps)

    yield Recorder(record=record, load=load)
    await store.close()


@asynccontextmanager
async def nova(dsn: str) -> AsyncIterator[Recorder]:
    """A workflow: steps by ``run.step``, with fingerprints, a lease that is kept alive, and the engine's own work."""
    from app.credentials import fixed
    from app.stores.checkpoint.postgres import CheckpointStore
    from app.workflow.engine import Run, Runner, workflow

    store = CheckpointStore(fixed(dsn), pool_size=CONNECTIONS)
    runner = Runner(checkpoints=store)
    work: dict[str, Steps] = {}

    @workflow(version="1")
    async def record_all(run: Run, name: str) -> int:
        steps = work[name]
        for number in range(len(steps)):
            await run.step(f"step/{number}", one, name, number)
        return len(steps)

    async def one(name: str, number: int) -> str:
        return work[name].next(number)

    async def record(name: str, steps: Steps) -> None:
        work[name] = steps
        (await runner.start(record_all, {"name": name}, run_id=name)).value()

    async def load(name: str) -> int:
        state = await store.load(name)
        return 0 if state is None else len(state.steps)

    yield Recorder(record=record, load=load)
    await store.close()


PARTICIPANTS: dict[str, Callable[[str], AbstractAsyncContextManager[Recorder]]] = {
    "bare": bare,
    "nova": nova,
    "nova-store": nova_store,
}

if __name__ == "__main__":
    serve_runs(PARTICIPANTS[sys.argv[1]](sys.argv[2]), version=f"psycopg {version('psycopg')}")
