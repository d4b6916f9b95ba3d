"""What children do until they are killed: one verb each, on a run that has three steps and a holder.

``Child.say`` reports ``[verb, what the store acknowledged]``, right when it was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from app.credentials import fixed
from app.errors import NovaError
from app.stores.checkpoint.codec import JsonValue
from app.stores.checkpoint.contract import DEFAULT_LEASE, CheckpointStorage, RunStatus
from app.stores.checkpoint.postgres import CheckpointStore
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.stores.holder import Holder
from tests.support.crash import Child

OUTPUTS: Final[dict[str, JsonValue]] = {"a": "first", "b": ["second"], "c": {"third": "x" * 9000}}
INPUTS: Final[JsonValue] = {"documents": ["one", "two"]}
NEW: Final[JsonValue] = {"new": "y" * 3000}
HOLDER: Final = Holder(host="elsewhere", boot_id="b", pid=1, started="1")

Action = Callable[[CheckpointStorage, int, Child], Awaitable[None]]


def _opened(child: Child) -> CheckpointStorage:
    if isinstance(child.database, str):
        return CheckpointStore(fixed(child.database), timeout_s=5)
    return SqliteCheckpointStore(child.database)


def _scenario(action: Action) -> Callable[[Child], Awaitable[None]]:
    async def run(child: Child) -> None:
        store = _opened(child)
        if await store.head("r") is None:
            await store.create("r", inputs=INPUTS)
        # Who is frozen finds its lease ended when it goes on.
        lease = timedelta(milliseconds=1) if child.mode == "freeze" else DEFAULT_LEASE
        token = (await store.claim("r", holder=HOLDER, steal=True, lease=lease)).token
        for step_id, output in OUTPUTS.items():
            await store.append("r", step_id, output, token=token)
        child.say(["token", token])
        child.arm()
        try:
            await action(store, token, child)
        except NovaError as error:
            child.say(["refused", error.code])
        child.disarm()
        await store.close()

    return run


async def _append(store: CheckpointStorage, token: int, child: Child) -> None:
    appended = await store.append("r", "new", NEW, fingerprint="f", token=token)
    child.say(["append", appended.hash.hex()])


async def _claim(store: CheckpointStorage, _token: int, child: Child) -> None:
    claim = await store.claim("r", holder=HOLDER)
    child.say(["claim", claim.token])


async def _heartbeat(store: CheckpointStorage, token: int, child: Child) -> None:
    await store.heartbeat("r", token)
    child.say(["heartbeat", token])


async def _finish(store: CheckpointStorage, token: int, child: Child) -> None:
    head = await store.finish("r", RunStatus.COMPLETED, result=NEW, token=token)
    child.say(["finish", head.version])


async def _fork(store: CheckpointStorage, _token: int, child: Child) -> None:
    head = await store.fork("r", "forked", steps=2)
    child.say(["fork", head.next_step_index])


async def _delete(store: CheckpointStorage, token: int, child: Child) -> None:
    child.disarm()
    await store.release("r", token)
    child.arm()
    child.say(["delete", await store.delete("r")])


async def _burst(store: CheckpointStorage, token: int, child: Child) -> None:
    async def one(number: int) -> None:
        await store.append("r", f"n{number}", number, token=token)
        child.say(["burst", f"n{number}"])

    await asyncio.gather(*map(one, range(12)))


append = _scenario(_append)
claim = _scenario(_claim)
heartbeat = _scenario(_heartbeat)
finish = _scenario(_finish)
fork = _scenario(_fork)
delete = _scenario(_delete)
burst = _scenario(_burst)
"""Twelve appends that share commits."""
