"""A process that completes every key of a store, with the others that do the same, and notes what it was told.

Run as a module with the place of the store, the path of the notes, the number of keys and a seed. A note is one line:
``acknowledged KEY RESULT`` once complete has returned, ``replayed KEY RESULT`` where begin gave a result.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from app.stores.holder import Holder
from app.stores.idempotency.contract import Completed, Started

from .places import open_store


async def work(place: str, notes: int, keys: list[str]) -> None:
    """Go through the keys until each has a result; a key that somebody else is at comes again later."""
    store = open_store(place)
    holder = Holder.current()
    while keys:
        key = keys.pop(0)
        match await store.begin(key, "f", holder=holder):
            case Started() as started:
                result = f"{os.getpid()}-{started.token}"
                await store.complete(key, started.token, result.encode())
                os.write(notes, f"acknowledged {key} {result}\n".encode())
                keys.append(key)
            case Completed() as completed:
                os.write(notes, f"replayed {key} {completed.result.decode()}\n".encode())
            case _:
                keys.append(key)
    await store.close()


def main(place: str, notes: str, count: str, seed: str) -> None:
    """Work through ``count`` keys in an order of this process's own."""
    keys = [f"key {number}" for number in range(int(count))]
    random.Random(seed).shuffle(keys)
    # One write of one line at the end of a file is not mixed with those of others.
    asyncio.run(work(place, os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT), keys))


if __name__ == "__main__":
    main(*sys.argv[1:])
