"""The participants that stream or run tools in Nova's own environment: ``shaped_callers.py KIND NAME BASE_URL``."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "backend"))

from benchmarks.support.callers import LIMIT_MICROCENTS, _configure
from benchmarks.support.chat_server import ANSWER
from benchmarks.support.request import MAX_TOKENS, MODEL, PROMPT, TIMEOUT_S, TOOL_SCHEMA, TOOL_TEXT, look_up
from benchmarks.support.turns import Call, serve

Opened = AbstractAsyncContextManager[Call]
_TOOLS: Final = [
    {"type": "function", "function": {"name": "look_up", "description": TOOL_TEXT, "parameters": TOOL_SCHEMA}}
]


@asynccontextmanager
async def openai_stream(base_url: str) -> AsyncIterator[Call]:
    """The official SDK's stream, put together by hand as its documentation shows."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=base_url, api_key="sk-bench", max_retries=0, timeout=TIMEOUT_S) as client:

        async def call(_key: str) -> str:
            stream = await client.chat.completions.create(
                model=MODEL,
                max_completion_tokens=MAX_TOKENS,
                messages=[{"role": "user", "content": PROMPT}],
                stream=True,
                stream_options={"include_usage": True},
            )
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            return "".join(pieces)

        yield call


@asynccontextmanager
async def openai_tools(base_url: str) -> AsyncIterator[Call]:
    """The official SDK: a call, the tool, and a call with its result."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=base_url, api_key="sk-bench", max_retries=0, timeout=TIMEOUT_S) as client:

        async def call(_key: str) -> str:
            messages: list[Any] = [{"role": "user", "content": PROMPT}]
            tools: Any = _TOOLS
            while True:
                answer = await client.chat.completions.create(
                    model=MODEL, max_completion_tokens=MAX_TOKENS, messages=messages, tools=tools
                )
                message = answer.choices[0].message
                if not message.tool_calls:
                    return message.content or ""
                messages.append(message)
                for asked in message.tool_calls:
                    function: Any = getattr(asked, "function", None)
                    found = await look_up(**json.loads(function.arguments))
                    messages.append({"role": "tool", "tool_call_id": asked.id, "content": found})

        yield call


def nova_stream(*, guarded: bool) -> Callable[[str], Opened]:
    """Return Nova's stream: bare, or on a hold and under a key."""

    @asynccontextmanager
    async def opened(base_url: str) -> AsyncIterator[Call]:
        from app.skills.llm_invoke_v2 import CallContext, LLMConfig, TextDelta

        async with _adapter(base_url, guarded=guarded) as adapter:
            config = LLMConfig(model=MODEL, max_tokens=MAX_TOKENS, timeout_s=TIMEOUT_S)

            async def call(key: str) -> str:
                context = CallContext(idempotency_key=key) if guarded else None
                events = adapter.stream(PROMPT, config, context=context)
                return "".join([event.text async for event in events if isinstance(event, TextDelta)])

            yield call

    return opened


def nova_tools(*, guarded: bool) -> Callable[[str], Opened]:
    """Return Nova's calls with a tool by hand: bare, or each on a hold and under a key."""

    @asynccontextmanager
    async def opened(base_url: str) -> AsyncIterator[Call]:
        from app.skills.llm_invoke_v2 import CallContext, LLMConfig, Message, Tool, ToolResultBlock

        tool = Tool.of(look_up)
        config = LLMConfig(model=MODEL, max_tokens=MAX_TOKENS, timeout_s=TIMEOUT_S, tools=(tool,))
        async with _adapter(base_url, guarded=guarded) as adapter:

            async def call(key: str) -> str:
                prompt = [Message("user", PROMPT)]
                while True:
                    context = CallContext(idempotency_key=f"{key}-{len(prompt)}") if guarded else None
                    answer = await adapter.invoke(prompt, config, context=context)
                    if not answer.tool_calls:
                        return str(answer.content)
                    results = [
                        ToolResultBlock(tool_use_id=asked.id, content=await tool.call(asked.arguments))
                        for asked in answer.tool_calls
                    ]
                    prompt += [answer.message, Message("user", results)]

            yield call

    return opened


@asynccontextmanager
async def nova_run(base_url: str) -> AsyncIterator[Call]:
    """``run.llm`` with a tool: a run for each call, with every round and tool recorded; stores in memory."""
    from app.skills.llm_invoke_v2 import LLMConfig
    from app.stores import get_budget_store, get_checkpoint_store, get_idempotency_store
    from app.workflow.engine import Run, Runner, workflow

    config = LLMConfig(model=MODEL, max_tokens=MAX_TOKENS, timeout_s=TIMEOUT_S)

    @workflow(version="1")
    async def agent(run: Run) -> str:
        return (await run.llm("ask", PROMPT, config, tools=[look_up])).content

    async with _adapter(base_url, guarded=True) as adapter:
        runner = Runner(
            checkpoints=get_checkpoint_store(),
            budget=get_budget_store(),
            idempotency=get_idempotency_store(),
            guarded=adapter,
        )

        async def call(key: str) -> str:
            return str((await runner.start(agent, run_id=key)).value())

        yield call


@asynccontextmanager
async def _adapter(base_url: str, *, guarded: bool) -> AsyncIterator[Any]:
    from app.skills.adapters import close_adapters, get_llm_adapter
    from app.skills.guards import get_guarded_adapter
    from app.stores import close_stores, get_budget_store

    _configure(base_url)
    if guarded:
        await get_budget_store().set_limit("tenant", LIMIT_MICROCENTS)
    try:
        yield get_guarded_adapter() if guarded else get_llm_adapter()
    finally:
        await close_adapters()
        await close_stores()


CALLERS: Final[dict[str, dict[str, Callable[[str], Opened]]]] = {
    "stream": {
        "openai": openai_stream,
        "adapter": nova_stream(guarded=False),
        "guarded": nova_stream(guarded=True),
    },
    "tools": {
        "openai": openai_tools,
        "adapter": nova_tools(guarded=False),
        "guarded": nova_tools(guarded=True),
        "run": nova_run,
    },
}

if __name__ == "__main__":
    _, kind, name, url = sys.argv
    package = name if name == "openai" else "nova-llm"
    serve(CALLERS[kind][name](url), version=f"{package} {version(package)}", expected=ANSWER)
