"""The participants that run in Nova's own environment: ``python callers.py NAME BASE_URL``."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "backend"))

from benchmarks.support.chat_server import ANSWER
from benchmarks.support.request import MAX_TOKENS, MODEL, PROMPT, TIMEOUT_S
from benchmarks.support.turns import Call, serve

LIMIT_MICROCENTS: Final = 1_000_000 * 100 * 1_000_000
"""One million dollars: a limit that is checked at every call, and never reached."""


@asynccontextmanager
async def raw_httpx2(base_url: str) -> AsyncIterator[Call]:
    """Nothing but an HTTP client: with the pool of the SDK, because httpx2's own keeps only 20 connections."""
    import httpx2

    limits = httpx2.Limits(max_connections=1_000, max_keepalive_connections=100)
    body = {"model": MODEL, "max_completion_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": PROMPT}]}
    async with httpx2.AsyncClient(base_url=base_url, limits=limits, timeout=TIMEOUT_S) as client:

        async def call(_key: str) -> str:
            answer = await client.post("/chat/completions", json=body, headers={"authorization": "Bearer sk-bench"})
            answer.raise_for_status()
            return str(answer.json()["choices"][0]["message"]["content"])

        yield call


@asynccontextmanager
async def openai_sdk(base_url: str) -> AsyncIterator[Call]:
    """The official SDK: one client for all calls, no retries."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=base_url, api_key="sk-bench", max_retries=0, timeout=TIMEOUT_S) as client:

        async def call(_key: str) -> str:
            answer = await client.chat.completions.create(
                model=MODEL, max_completion_tokens=MAX_TOKENS, messages=[{"role": "user", "content": PROMPT}]
            )
            return answer.choices[0].message.content or ""

        yield call


@asynccontextmanager
async def nova_adapter(base_url: str) -> AsyncIterator[Call]:
    """Nova's bare adapter: priced and metered, no budget, no retries."""
    from app.skills.adapters import close_adapters, get_llm_adapter
    from app.skills.llm_invoke_v2 import LLMConfig

    _configure(base_url)
    adapter = get_llm_adapter()
    config = LLMConfig(model=MODEL, max_tokens=MAX_TOKENS, timeout_s=TIMEOUT_S)

    async def call(_key: str) -> str:
        return (await adapter.invoke(PROMPT, config)).content

    yield call
    await close_adapters()


@asynccontextmanager
async def nova_guarded(base_url: str) -> AsyncIterator[Call]:
    """Nova's guarded call: a hold under a limit, retries, a record under an idempotency key; memory stores."""
    from app.skills.adapters import close_adapters
    from app.skills.guards import get_guarded_adapter
    from app.skills.llm_invoke_v2 import CallContext, LLMConfig
    from app.stores import close_stores, get_budget_store

    _configure(base_url)
    await get_budget_store().set_limit("tenant", LIMIT_MICROCENTS)
    adapter = get_guarded_adapter()
    config = LLMConfig(model=MODEL, max_tokens=MAX_TOKENS, timeout_s=TIMEOUT_S)

    async def call(key: str) -> str:
        response = await adapter.invoke(PROMPT, config, context=CallContext(idempotency_key=key))
        if not response.cost or response.replayed:
            raise RuntimeError(f"a guarded call must be made and charged: {response!r}")
        return response.content

    yield call
    (total, *_) = await get_budget_store().usage("tenant")
    if not total.spent or total.held:
        raise RuntimeError(f"a hold was left open, or nothing was charged: {total!r}")
    await close_adapters()
    await close_stores()


def _configure(base_url: str) -> None:
    os.environ.update(
        LLM_ADAPTER="openai",
        OPENAI_API_KEY="sk-bench",
        OPENAI_BASE_URL=base_url,
        BUDGET_STORE="memory",
        IDEMPOTENCY_STORE="memory",
    )


CALLERS: Final[dict[str, Callable[[str], AbstractAsyncContextManager[Call]]]] = {
    "httpx2": raw_httpx2,
    "openai": openai_sdk,
    "adapter": nova_adapter,
    "guarded": nova_guarded,
}

if __name__ == "__main__":
    _, name, url = sys.argv
    package = name if name in {"httpx2", "openai"} else "nova-llm"
    serve(CALLERS[name](url), version=f"{package} {version(package)}", expected=ANSWER)
