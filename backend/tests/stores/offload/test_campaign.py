"""The campaign: whatever dies, sleeps or lies, nothing is lost, doubled, read wrongly or left behind."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from app.credentials import fixed
from app.stores.archive.r2 import R2Archive
from app.stores.sqlite import schema
from tests.stores.archive.below import Below
from tests.stores.checkpoint.conftest import Database
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.s3 import S3Server

from .campaign import Books, Campaign
from .world import World

SEEDS = 6
SERVER_SEEDS = 2
SOAK_SEEDS = 240

Place = Callable[[int], AbstractContextManager[World]]
"""Makes the world of a seed."""


@pytest.fixture
def on_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return what makes worlds of SQLite and memory, and saves the disk thousands of syncs: jobs die, not hosts."""
    settings = tuple(each.replace("synchronous = FULL", "synchronous = OFF") for each in schema._SETTINGS)
    assert settings != schema._SETTINGS
    monkeypatch.setattr(schema, "_SETTINGS", settings)
    return lambda seed: nullcontext(World(tmp_path / f"{seed}.db"))


@pytest.fixture
def on_servers(postgres_server: PostgresServer, s3_server: S3Server) -> Place:
    """Return what makes worlds of a real PostgreSQL and a real S3 server, each below a prefix of its own."""

    @contextmanager
    def make(seed: int) -> Iterator[World]:
        database = Database(postgres_server, f"campaign{seed}-{uuid.uuid4().hex[:8]}")
        archive = R2Archive(
            s3_server.bucket,
            endpoint=s3_server.endpoint,
            access_key_id=fixed(s3_server.access_key_id),
            secret_access_key=fixed(s3_server.secret_access_key),
        )
        try:
            yield World(database, objects=Below(archive))
        finally:
            database.close()

    return make


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    """Run an S3 server."""
    with S3Server().start() as server:
        yield server


@pytest.fixture(autouse=True)
def may_block(blockbuster: BlockBuster) -> None:
    """Let the back door look at the databases."""
    blockbuster.deactivate()


async def _play(place: Place, seeds: int, *, at_most: int | None = None) -> Books:
    """Play some seeds, and more where nobody has read from the archive yet: how jobs and readers meet is chance."""
    books = Books()
    for seed in range(at_most or seeds):
        if seed >= seeds and books.archived_reads > 0:
            break
        with place(seed) as world:
            try:
                books.add(await Campaign(world, seed).play())
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            finally:
                await world.close()
    return books


def _check_reach(books: Books) -> None:
    """A campaign in which nobody died or read from the archive would show nothing."""
    assert books.deaths + books.fenced > 0
    assert books.archived_reads > 0


async def test_a_few_seeds(on_sqlite: Place) -> None:
    """Three jobs, readers and writers on SQLite: 0 lost, 0 doubled, 0 wrong reads, 0 orphans."""
    _check_reach(await _play(on_sqlite, SEEDS, at_most=5 * SEEDS))


async def test_a_few_seeds_on_servers(on_servers: Place) -> None:
    """The same on PostgreSQL, with a bucket of an S3 server behind the faults."""
    _check_reach(await _play(on_servers, SERVER_SEEDS, at_most=10 * SERVER_SEEDS))


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("place", ["on_sqlite", "on_servers"])
async def test_many_seeds(place: str, request: pytest.FixtureRequest) -> None:
    """The same for hundreds of seeds; every kind of step was died at."""
    books = await _play(request.getfixturevalue(place), SOAK_SEEDS)

    assert min(books.deaths, books.fenced, books.busy, books.failed, books.archived_reads, books.refused_reads) > 0
    assert min(books.copied, books.purged, books.rewritten) > 0
    died_at = {place.split()[-1] for place in books.places}
    assert died_at >= _WRITES
    print(f"\n{place}, {SOAK_SEEDS} seeds: {books}")  # noqa: T201 - a report


_WRITES = {"begin_segment", "put_new", "get", "commit_segment", "purge", "delete", "swept", "tombstones_written", "end"}
