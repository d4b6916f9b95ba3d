"""Both adapters through their official SDKs, on a real model that speaks both APIs: what no script can show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

from app.credentials import fixed
from app.errors import LLMError
from app.settings import Settings
from app.skills.adapters.claude_adapter import ClaudeAdapter
from app.skills.adapters.openai_adapter import OpenAIAdapter
from app.skills.llm_invoke_v2 import LLMAdapter, LLMConfig, LLMResponse, StreamEnd, TextDelta, Tool
from app.skills.pricing import PriceBook, get_price_book
from examples.local_model import MODEL, LocalModel

_EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
_DOCUMENTS = sorted((_EXAMPLES / "documents").iterdir())
_SHORT = LLMConfig(max_tokens=8, temperature=0.2, seed=7)
_DROPPED = {"openai": (), "claude": ("temperature", "seed")}
"""What an adapter does not send to a model that it does not know: today's Claude models take neither."""


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    """The price file of the demo, for whichever adapter asks."""
    text = (_EXAMPLES / "prices.yaml").read_text()
    assert "provider: openai" in text
    file = tmp_path_factory.mktemp("prices") / "prices.yaml"
    file.write_text("\n".join(line for line in text.splitlines() if "provider: openai" not in line))
    return get_price_book(Settings(nova_prices_file=file))


@pytest.fixture(params=["openai", "claude"])
async def adapter(
    request: pytest.FixtureRequest, local_model: LocalModel, prices: PriceBook
) -> AsyncIterator[LLMAdapter]:
    """Each adapter on the same server, by the API that it speaks."""
    made: LLMAdapter
    if request.param == "openai":
        made = OpenAIAdapter(api_key=None, base_url=local_model.base_url, default_model=MODEL, prices=lambda: prices)
    else:
        root = local_model.base_url.removesuffix("/v1")
        made = ClaudeAdapter(api_key=fixed("none-is-needed"), base_url=root, default_model=MODEL, prices=lambda: prices)
    yield made
    await made.aclose()


async def test_an_answer_has_text_tokens_and_a_cost(adapter: LLMAdapter) -> None:
    """A real answer arrives whole: text, the model's name, exact usage, the price of it, and why it ended."""
    response = await adapter.invoke("Name three rivers.", _SHORT)

    assert response.content.strip()
    assert response.model == MODEL
    assert response.output_tokens == 8
    assert response.finish_reason == "length"
    assert response.usage is not None
    assert response.usage.complete
    assert response.input_tokens is not None
    # A dollar per million tokens in and four out, in microcents (a hundred to the millionth of a dollar).
    assert response.cost == response.input_tokens * 100 + 8 * 400
    assert response.dropped_params == _DROPPED[adapter.adapter_id]


async def test_a_stream_gives_the_text_in_pieces_and_the_usage_at_its_end(adapter: LLMAdapter) -> None:
    """The pieces make up the text of the response; its usage and cost are as exact as those of a whole answer."""
    pieces: list[str] = []
    end: LLMResponse | None = None
    async for event in adapter.stream("What is a bridge?", _SHORT):
        if isinstance(event, TextDelta):
            pieces.append(event.text)
        elif isinstance(event, StreamEnd):
            end = event.response

    assert end is not None
    assert len(pieces) > 1
    assert "".join(pieces) == end.content
    assert end.usage_complete
    assert end.input_tokens is not None
    assert end.output_tokens == 8
    assert end.cost == end.input_tokens * 100 + 8 * 400


@pytest.mark.parametrize("adapter", ["openai"], indirect=True)
async def test_the_same_seed_streams_what_it_gave_whole(adapter: LLMAdapter) -> None:
    """A stream and a whole answer of the same call are equal, where there is a seed; the Messages API has none."""
    whole = await adapter.invoke("What is a bridge?", _SHORT)

    end = [event async for event in adapter.stream("What is a bridge?", _SHORT)][-1]

    assert isinstance(end, StreamEnd)
    assert (end.response.content, end.response.cost) == (whole.content, whole.cost)


async def test_a_prompt_beyond_the_context_is_refused_unbilled(adapter: LLMAdapter) -> None:
    """A prompt that does not fit into the model's context is an error of its own kind, and costs nothing."""
    with pytest.raises(LLMError) as caught:
        await adapter.invoke("river " * 3000, _SHORT)

    assert caught.value.code == "ERR_LLM_CONTEXT_TOO_LONG"
    assert caught.value.billed == "no"
    assert not caught.value.retryable


async def test_no_call_costs_more_than_its_bound(adapter: LLMAdapter, prices: PriceBook) -> None:
    """The upper bound that a hold would take covers what the real tokenizer makes of every text."""
    config = LLMConfig(max_tokens=1)
    texts = [document.read_text(encoding="utf-8") for document in _DOCUMENTS]

    bills = [(text, await adapter.invoke(text, config)) for text in [*(text[:80] for text in texts), "é€😀" * 20]]

    for text, response in bills:
        bound = prices.upper_bound(text, config, provider=adapter.adapter_id, model=MODEL)
        assert response.cost is not None
        assert 0 < response.cost <= bound


class Verdict(BaseModel):
    """An answer that a grammar can hold even this model to."""

    river: Literal["Rhine", "Nile", "Amazon"]
    long: bool


async def asked(name: str) -> str:
    """Look up how long a river is."""
    return name


@pytest.mark.parametrize("adapter", ["openai"], indirect=True)
async def test_a_schema_is_held_by_the_server_s_grammar(adapter: LLMAdapter) -> None:
    """Whole and streamed, a model of 135 million parameters answers with an object of the type that was asked for."""
    config = LLMConfig(max_tokens=60, temperature=0.2, seed=7, schema=Verdict)

    whole = await adapter.invoke("Which river is the longest?", config)
    end = [event async for event in adapter.stream("Which river is the longest?", config)][-1]

    assert isinstance(whole.validated(), Verdict)
    assert isinstance(end, StreamEnd)
    assert end.response.output == whole.output


async def test_tools_and_schemas_cost_no_more_than_their_bound(adapter: LLMAdapter, prices: PriceBook) -> None:
    """What a real chat template makes of tools is within what a hold is taken for; of a schema too."""
    tools = LLMConfig(max_tokens=8, tools=(Tool.of(asked), Tool(name="other", description="Look. " * 40)))
    for config in (tools, LLMConfig(max_tokens=8, schema=Verdict)):
        response = await adapter.invoke("How long is the Nile?", config)

        bound = prices.upper_bound("How long is the Nile?", config, provider=adapter.adapter_id, model=MODEL)
        assert response.cost is not None
        assert 0 < response.cost <= bound
