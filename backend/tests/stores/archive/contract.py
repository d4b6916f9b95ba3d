"""The contract of object stores as tests: each inherits them, and brings a store and a way to look behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.errors import ArchiveObjectExistsError, ArchiveObjectMissingError, InvalidInputError
from app.stores.archive.contract import ObjectStore

KEY = "v1/seg/0123456789abcdef/20261125/object-e1.jsonl.zst"
DATA = bytes(range(256)) * 300


async def keys(store: ObjectStore, prefix: str) -> dict[str, int]:
    """Return the objects below a prefix with their sizes."""
    return {info.key: info.size_bytes async for info in store.list(prefix)}


class ObjectStoreContract:
    """The laws. A subclass gives the fixture ``archive``."""

    async def test_what_was_put_is_read(self, archive: ObjectStore) -> None:
        """An object is its bytes, whole or in part, as they were given."""
        await archive.put_new(KEY, DATA)

        assert await archive.get(KEY) == DATA
        assert await archive.get_range(KEY, 1000, 513) == DATA[1000:1513]
        assert await archive.size(KEY) == len(DATA)

    async def test_a_range_ends_where_the_object_ends(self, archive: ObjectStore) -> None:
        """A range that reaches past the end gives what there is."""
        await archive.put_new(KEY, DATA)

        assert await archive.get_range(KEY, len(DATA) - 10, 100) == DATA[-10:]

    async def test_an_empty_object(self, archive: ObjectStore) -> None:
        """An object may be empty."""
        await archive.put_new(KEY, b"")

        assert await archive.get(KEY) == b""
        assert await archive.size(KEY) == 0

    async def test_an_object_is_never_replaced(self, archive: ObjectStore) -> None:
        """A key is taken once, and the refusal leaves the first object as it is."""
        await archive.put_new(KEY, DATA)

        with pytest.raises(ArchiveObjectExistsError) as caught:
            await archive.put_new(KEY, b"other")

        assert caught.value.key == KEY
        assert await archive.get(KEY) == DATA

    async def test_of_many_that_put_at_once_one_wins(self, archive: ObjectStore) -> None:
        """One of ten concurrent puts stores its bytes; the others are told."""
        outcomes = await asyncio.gather(
            *(archive.put_new(KEY, bytes([number]) * 100) for number in range(10)), return_exceptions=True
        )

        won = [number for number, outcome in enumerate(outcomes) if outcome is None]
        assert len(won) == 1
        assert [type(outcome) for outcome in outcomes if outcome is not None] == [ArchiveObjectExistsError] * 9
        assert await archive.get(KEY) == bytes([won[0]]) * 100

    async def test_what_is_not_there(self, archive: ObjectStore) -> None:
        """Reads of no object say so; its size is None, and to delete it is a no-op."""
        for read in (archive.get(KEY), archive.get_range(KEY, 0, 10)):
            with pytest.raises(ArchiveObjectMissingError) as caught:
                await read
            assert caught.value.key == KEY
        assert await archive.size(KEY) is None
        await archive.delete(KEY)
        assert await keys(archive, "v1/seg/") == {}

    async def test_a_deleted_object_is_gone(self, archive: ObjectStore) -> None:
        """After a delete there is no object, and to delete it again is a no-op."""
        await archive.put_new(KEY, DATA)

        await archive.delete(KEY)
        await archive.delete(KEY)

        assert await archive.size(KEY) is None

    async def test_a_list_has_what_lies_below_a_prefix(self, archive: ObjectStore) -> None:
        """A prefix is a folder: what lies in it at any depth is listed with its size, and nothing else."""
        for key in ("v1/a/1", "v1/a/b/2", "v1/ab/3", "v1/c"):
            await archive.put_new(key, key.encode())

        assert await keys(archive, "v1/a/") == {"v1/a/1": 6, "v1/a/b/2": 8}

    @pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", "ä", "a b", "a" * 2000])
    async def test_what_is_no_key(self, archive: ObjectStore, key: str) -> None:
        """A key is a plain relative path; anything else is refused before it is sent."""
        for verb in (archive.put_new(key, b""), archive.get(key), archive.size(key), archive.delete(key)):
            with pytest.raises(InvalidInputError):
                await verb

    def test_it_works_from_several_event_loops(self, make_archive: Callable[[], ObjectStore]) -> None:
        """An object store outlives an event loop."""
        archive = make_archive()

        asyncio.run(archive.put_new(KEY, DATA))

        assert asyncio.run(archive.get(KEY)) == DATA
