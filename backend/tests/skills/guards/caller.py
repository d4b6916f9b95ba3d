"""A process that makes guarded calls through what the environment chooses, one JSON line of commands at a time.

Run as a module. A command has ``key``, ``count`` (how many duplicates at once) and ``lease_s``; the answer is a list
with one entry for each: the text, whether it was replayed, and its cost in microcents; or the name of an error.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

from app.errors import NovaError
from app.skills.guards import IdempotentAdapter, get_guarded_adapter
from app.skills.llm_invoke_v2 import CallContext, LLMConfig
from app.stores import close_stores, get_budget_store, get_idempotency_store


async def call(guard: IdempotentAdapter, key: str) -> list[Any]:
    """Make one call."""
    context = CallContext(idempotency_key=key, run_id="7")
    try:
        response = await guard.invoke("What is one key worth?", LLMConfig(max_tokens=20, timeout_s=60), context=context)
    except NovaError as error:
        return [type(error).__name__]
    return [response.content, response.replayed, response.cost]


async def serve() -> None:
    """Obey standard input until it ends."""
    whole = get_guarded_adapter()
    assert isinstance(whole, IdempotentAdapter)
    print(json.dumps("ready"), flush=True)  # noqa: T201 - the parent waits for it
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        lease = timedelta(seconds=command.get("lease_s", 30))
        guard = IdempotentAdapter(whole.inner, store=get_idempotency_store(), budget=get_budget_store(), lease=lease)
        answers = await asyncio.gather(*(call(guard, command["key"]) for _ in range(command["count"])))
        print(json.dumps(answers), flush=True)  # noqa: T201 - the parent waits for it
    await close_stores()


if __name__ == "__main__":
    asyncio.run(serve())
