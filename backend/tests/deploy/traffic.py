"""A process that makes calls of every kind on command, each line of standard input being one; run by the tests.

``calls``: one of each kind of event that the dashboard shows. ``hang``: a call that never ends. Each is answered by a
line: for ``calls`` what was billed, in microcents; for ``hang`` ``hanging``, when the call is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import replace

from app.errors import BudgetExceededError, LLMError
from app.skills.adapters import get_llm_adapter
from app.skills.adapters.stub_adapter import StubAdapter
from app.skills.adapters.stub_script import FaultKind, StubFault, StubScript
from app.skills.guards import RetryPolicy, get_guarded_adapter
from app.skills.llm_invoke_v2 import CallContext, LLMConfig, LLMUsage, StreamEnd
from app.stores import get_budget_store, get_checkpoint_store, get_idempotency_store
from app.stores.budget.contract import HoldState
from app.workflow.engine import Run, Runner, workflow

CONFIG = LLMConfig(max_tokens=40, timeout_s=20)
AT_ONCE = RetryPolicy(max_attempts=2, first_backoff_s=0.001, longest_backoff_s=0.001)


@workflow(version="1")
async def two_steps(run: Run) -> str:
    """Record two steps."""
    await run.step("first", _say, "one")
    return await run.step("second", _say, "two")


async def _say(text: str) -> str:
    return text


class Cached(StubAdapter):
    """The stub as a provider that caches: part of what it reads is cheaper, part of what it writes is reasoning."""

    def _response(self, *args: object, **kwargs: object):  # type: ignore[no-untyped-def]  # noqa: ANN202  # as the base has it
        response = super()._response(*args, **kwargs)  # type: ignore[arg-type]
        usage = LLMUsage(
            input_tokens=response.input_tokens,
            output_tokens=response.output_tokens,
            cache_read_tokens=1,
            reasoning_tokens=1,
        )
        return replace(response, usage=usage)


async def calls(number: int) -> int:
    """Make one call of each kind and return what was billed, in microcents."""
    billed = 0
    script = StubScript()
    first = get_guarded_adapter(StubAdapter(faults=script), retry=AT_ONCE)
    script.add(StubFault(kind="rate_limited"))
    answer = await first.invoke(f"retried {number}", CONFIG, context=CallContext(idempotency_key=f"k{number}"))
    billed += answer.cost or 0
    await first.invoke(f"retried {number}", CONFIG, context=CallContext(idempotency_key=f"k{number}"))  # a replay

    for _ in range(2):
        script.add(StubFault(kind="overloaded"))
    falling = get_guarded_adapter(StubAdapter(faults=script), fallbacks=[Cached()], retry=AT_ONCE)
    billed += (await falling.invoke(f"passed over {number}", CONFIG)).cost or 0

    async for event in get_guarded_adapter(Cached()).stream(f"streamed {number}", CONFIG):
        if isinstance(event, StreamEnd):
            billed += event.response.cost or 0

    uncertain: tuple[FaultKind, ...] = ("missing_usage", "cut_stream")
    for kind in uncertain:
        script.add(StubFault(kind=kind))
        try:
            async for _ in get_guarded_adapter(StubAdapter(faults=script), retry=AT_ONCE).stream("cut", CONFIG):
                pass
        except LLMError:
            pass

    failing = CallContext(idempotency_key=f"again{number}")
    for _ in range(2):
        script.add(StubFault(kind="server_error"))
    try:
        await get_guarded_adapter(StubAdapter(faults=script), retry=AT_ONCE).invoke("x", CONFIG, context=failing)
    except LLMError:
        billed += (await get_guarded_adapter(StubAdapter()).invoke("x", CONFIG, context=failing)).cost or 0

    with contextlib.suppress(BudgetExceededError):
        await first.invoke("too dear", CONFIG, context=CallContext(scopes=("agent:poor",)))

    runner = Runner(checkpoints=get_checkpoint_store(), budget=get_budget_store(), idempotency=get_idempotency_store())
    await runner.start(two_steps, {})
    return billed


def tell(what: object) -> None:
    """Write a line."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def main() -> None:
    """Do what each line says."""
    get_llm_adapter()  # shows the metrics
    await get_budget_store().set_limit("agent:poor", 1, window="day")
    number = 0
    tell("ready")
    hanging = []
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        number += 1
        if line == "calls":
            tell(await calls(number))
        elif line == "hang":
            script = StubScript()
            script.add(StubFault(kind="timeout"))
            slow = get_guarded_adapter(StubAdapter(faults=script))
            hanging.append(asyncio.ensure_future(slow.invoke("no end", replace(CONFIG, timeout_s=3600))))
            while not await get_budget_store().holds(state=HoldState.HELD):  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0)
            tell("hanging")


if __name__ == "__main__":
    asyncio.run(main())
