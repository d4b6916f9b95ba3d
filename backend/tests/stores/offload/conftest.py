"""What the tests of the offload get: worlds on both databases."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

from tests.stores.checkpoint.conftest import Database
from tests.support.servers.postgres import PostgresServer

from .world import World

_names = (f"offload{number}" for number in itertools.count(1))

MakeWorld = Callable[..., World]


@pytest.fixture(params=["sqlite", "postgres"])
def make_world(request: pytest.FixtureRequest, tmp_path: Path, blockbuster: BlockBuster) -> Iterator[MakeWorld]:
    """Return what makes worlds, each on an empty database of its own."""
    blockbuster.deactivate()
    databases: list[Database] = []

    def make(**options: Any) -> World:
        name = next(_names)
        if request.param == "sqlite":
            return World(tmp_path / f"{name}.db", **options)
        server: PostgresServer = request.getfixturevalue("postgres_server")
        databases.append(Database(server, name))
        return World(databases[-1], **options)

    yield make
    for database in databases:
        database.close()


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """Return a world."""
    world = make_world()
    yield world
    await world.close()
