"""The OpenAI adapter through the official SDK, on a real model: what a scripted server cannot show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.credentials import CredentialSource
from app.errors import LLMError
from app.settings import Settings
from app.skills.adapters.openai_adapter import OpenAIAdapter
from app.skills.llm_invoke_v2 import LLMConfig, LLMResponse, StreamEnd, TextDelta
from app.skills.pricing import PriceBook, get_price_book
from examples.local_model import MODEL, LocalModel

_EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
_DOCUMENTS = sorted((_EXAMPLES / "documents").iterdir())
_SETTINGS = LLMConfig(max_tokens=8, temperature=0.2, seed=7, extra={"frequency_penalty": 0.6})
_NO_KEY: CredentialSource | None = None


@pytest.fixture
def prices() -> PriceBook:
    """The prices of the demo."""
    return get_price_book(Settings(nova_prices_file=_EXAMPLES / "prices.yaml"))


@pytest.fixture
async def adapter(local_model: LocalModel, prices: PriceBook) -> AsyncIterator[OpenAIAdapter]:
    """The adapter as the demo configures it."""
    made = OpenAIAdapter(api_key=_NO_KEY, base_url=local_model.base_url, default_model=MODEL, prices=lambda: prices)
    yield made
    await made.aclose()


async def test_an_answer_has_text_tokens_and_a_cost(adapter: OpenAIAdapter) -> None:
    """A real answer arrives whole: text, the model's name, exact usage, the price of it, and why it ended."""
    response = await adapter.invoke("Name three rivers.", _SETTINGS)

    assert response.content.strip()
    assert response.model == MODEL
    assert response.output_tokens == 8
    assert response.finish_reason == "length"
    assert response.usage is not None
    assert response.usage.complete
    assert response.input_tokens is not None
    # A dollar per million tokens in and four out, in microcents (a hundred to the millionth of a dollar).
    assert response.cost == response.input_tokens * 100 + 8 * 400
    assert response.dropped_params == ()


async def test_the_same_seed_streams_what_it_gave_whole(adapter: OpenAIAdapter) -> None:
    """A stream gives in pieces the text, and at its end the usage, that the same call gave whole."""
    whole = await adapter.invoke("What is a bridge?", _SETTINGS)

    pieces: list[str] = []
    end: LLMResponse | None = None
    async for event in adapter.stream("What is a bridge?", _SETTINGS):
        if isinstance(event, TextDelta):
            pieces.append(event.text)
        elif isinstance(event, StreamEnd):
            end = event.response

    assert end is not None
    assert len(pieces) > 1
    assert "".join(pieces) == end.content == whole.content
    assert (end.input_tokens, end.output_tokens, end.cost) == (whole.input_tokens, whole.output_tokens, whole.cost)


async def test_a_prompt_beyond_the_context_is_refused_unbilled(adapter: OpenAIAdapter) -> None:
    """A prompt that does not fit into the model's context is an error of its own kind, and costs nothing."""
    with pytest.raises(LLMError) as caught:
        await adapter.invoke("river " * 3000, _SETTINGS)

    assert caught.value.code == "ERR_LLM_CONTEXT_TOO_LONG"
    assert caught.value.billed == "no"
    assert not caught.value.retryable


async def test_no_call_costs_more_than_its_bound(adapter: OpenAIAdapter, prices: PriceBook) -> None:
    """The upper bound that a hold would take covers what the real tokenizer makes of every text."""
    config = LLMConfig(max_tokens=1, extra={"frequency_penalty": 0.6})
    texts = [document.read_text(encoding="utf-8") for document in _DOCUMENTS]

    bills = [(text, await adapter.invoke(text, config)) for text in [*(text[:80] for text in texts), "é€😀" * 20]]

    for text, response in bills:
        bound = prices.upper_bound(text, config, provider="openai", model=MODEL)
        assert response.cost is not None
        assert 0 < response.cost <= bound
