"""The campaign: whatever dies, sleeps or lies, nothing is lost, doubled, read wrongly or left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from app.stores.sqlite import schema

from .campaign import Books, Campaign
from .world import World

SEEDS = 6
SOAK_SEEDS = 240


@pytest.fixture(autouse=True)
def without_syncs(monkeypatch: pytest.MonkeyPatch, blockbuster: BlockBuster) -> None:
    """Save the disk thousands of syncs: here jobs die, not hosts. Kills of processes are another test."""
    blockbuster.deactivate()
    settings = tuple(each.replace("synchronous = FULL", "synchronous = OFF") for each in schema._SETTINGS)
    assert settings != schema._SETTINGS
    monkeypatch.setattr(schema, "_SETTINGS", settings)


async def _play(tmp_path: Path, seeds: range) -> Books:
    books = Books()
    for seed in seeds:
        world = World(tmp_path / f"{seed}.db")
        try:
            books.add(await Campaign(world, seed).play())
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            await world.close()
    return books


def _check_reach(books: Books) -> None:
    assert books.deaths
    assert books.fenced
    assert books.busy
    assert books.failed
    assert books.archived_reads
    assert books.refused_reads
    assert books.copied
    assert books.purged


async def test_a_few_seeds(tmp_path: Path) -> None:
    """Three jobs, readers and writers on SQLite: 0 lost, 0 doubled, 0 wrong reads, 0 orphans."""
    _check_reach(await _play(tmp_path, range(SEEDS)))


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_many_seeds(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """The same for hundreds of seeds; every kind of step was died at."""
    books = await _play(tmp_path, range(SOAK_SEEDS))

    _check_reach(books)
    assert {
        "before commit_segment",
        "after commit_segment",
        "before put_new",
        "after put_new",
        "after purge",
    } <= books.places
    for name, value in vars(books).items():
        record_property(name, len(value) if isinstance(value, set) else value)
    print(f"\n{SOAK_SEEDS} seeds: {books}")  # noqa: T201 - a report
