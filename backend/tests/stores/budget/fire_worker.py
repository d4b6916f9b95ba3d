"""A process whose tasks reserve and settle random amounts in random scopes, however often the server goes away.

Run as a module with the server's address, the name of the process, the number of tasks, and how many calls each makes.
It prints a line of JSON for each grant, with every counter as it was returned, before the call is settled, and one for
each settlement that was acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeVar

from app.credentials import fixed
from app.errors import BudgetStoreUnavailableError
from app.stores.budget.contract import Granted
from app.stores.budget.redis import RedisBudgetStore

SCOPES: Final = tuple(f"scope {number:02d}" for number in range(40))
LEASE: Final = timedelta(seconds=60)
MOST: Final = 1_000
"""The largest amount of a hold."""

T = TypeVar("T")


async def delivered(verb: Callable[[], Awaitable[T]]) -> tuple[T, int]:
    """Return what a verb answers, tried again with the same ids while the server is away, and how often it was."""
    tries = 0
    while True:
        try:
            return await verb(), tries
        except BudgetStoreUnavailableError:
            tries += 1
            await asyncio.sleep(0.02)


def say(**facts: object) -> None:
    """Write a line at once: whoever is killed has said what it was granted."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def task(store: RedisBudgetStore, name: str, calls: int, chance: random.Random) -> None:
    """Make so many calls: most are settled below their hold, some above, some are released, expired or forgotten."""
    for number in range(calls):
        hold_id = f"{name}/{number}"
        scopes = chance.sample(SCOPES, chance.randint(1, 4))
        amount = chance.randint(0, MOST)

        answer, tries = await delivered(lambda: store.reserve(hold_id, amount, scopes, lease=LEASE))  # noqa: B023 - awaited here
        if not isinstance(answer, Granted):
            say(kind="refused", hold=hold_id)
            continue
        say(
            kind="granted",
            hold=hold_id,
            amount=amount,
            tries=tries,
            counters=[(w.scope, w.window, w.spent, w.held, w.limit) for w in answer.windows],
        )
        end = chance.random()
        if end < 0.85:
            bill = chance.randint(0, amount) if end > 0.05 else amount + chance.randint(0, 50)
            await delivered(lambda: store.settle(hold_id, bill))  # noqa: B023
            say(kind="settled", hold=hold_id, bill=bill)
        elif end < 0.90:
            await delivered(lambda: store.release(hold_id))  # noqa: B023
        elif end < 0.95:
            await delivered(lambda: store.expire(hold_id))  # noqa: B023


async def work(url: str, name: str, tasks: int, calls: int) -> None:
    """Run the tasks side by side."""
    store = RedisBudgetStore(fixed(url), timeout_s=30.0)
    seeds = random.Random(name)
    await asyncio.gather(
        *(task(store, f"{name}/{number}", calls, random.Random(seeds.random())) for number in range(tasks))
    )
    await store.close()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
