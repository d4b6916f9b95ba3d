"""Pydantic AI as a participant, run by its own environment's interpreter: ``pydantic_ai_caller.py KIND BASE_URL``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.support.chat_server import ANSWER
from benchmarks.support.request import MAX_TOKENS, MODEL, PROMPT, TIMEOUT_S, look_up
from benchmarks.support.turns import Call, serve


@asynccontextmanager
async def pydantic_ai(kind: str, base_url: str) -> AsyncIterator[Call]:
    """An agent made once; ``run`` with a tool, or its stream of text, as its documentation shows, without retries."""
    from openai import AsyncOpenAI
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = AsyncOpenAI(base_url=base_url, api_key="sk-bench", max_retries=0, timeout=TIMEOUT_S)
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))
    agent = Agent(model, tools=[look_up] if kind == "tools" else [], model_settings={"max_tokens": MAX_TOKENS})

    async def call(_key: str) -> str:
        if kind == "stream":
            async with agent.run_stream(PROMPT) as result:
                return "".join([piece async for piece in result.stream_text(delta=True, debounce_by=None)])
        return str((await agent.run(PROMPT)).output)

    yield call
    await client.close()


if __name__ == "__main__":
    _, asked, url = sys.argv
    serve(pydantic_ai(asked, url), version=f"pydantic-ai-slim {version('pydantic-ai-slim')}", expected=ANSWER)
