"""LiteLLM's SDK as a participant, run by the interpreter of its own environment: ``litellm_caller.py BASE_URL``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.support.chat_server import ANSWER
from benchmarks.support.request import MAX_TOKENS, MODEL, PROMPT, TIMEOUT_S
from benchmarks.support.turns import Call, serve


@asynccontextmanager
async def litellm_sdk(base_url: str) -> AsyncIterator[Call]:
    """``acompletion`` as its documentation shows it, without retries; it keeps its client between calls itself."""
    import litellm

    litellm.telemetry = False

    async def call(_key: str) -> str:
        answer = await litellm.acompletion(
            model=f"openai/{MODEL}",
            messages=[{"role": "user", "content": PROMPT}],
            max_completion_tokens=MAX_TOKENS,
            api_base=base_url,
            api_key="sk-bench",
            timeout=TIMEOUT_S,
            max_retries=0,
        )
        return answer.choices[0].message.content or ""

    yield call


if __name__ == "__main__":
    serve(litellm_sdk(sys.argv[1]), version=f"litellm {version('litellm')}", expected=ANSWER)
