"""Tools, structured output, images, documents, reasoning and caching: one vocabulary, on every adapter."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, Field

from app.errors import LLMError
from app.skills.adapters.openai_adapter import OpenAIAdapter
from app.skills.adapters.stub_adapter import StubAdapter
from app.skills.adapters.stub_script import StubFault, StubScript
from app.skills.content import ContentBlock
from app.skills.guards import BudgetedAdapter, IdempotentAdapter
from app.skills.llm_invoke_v2 import (
    CallContext,
    DocumentBlock,
    ImageBlock,
    LLMConfig,
    LLMResponse,
    Message,
    Prompt,
    ReasoningBlock,
    ReasoningDelta,
    StreamEnd,
    StreamEvent,
    TextBlock,
    TextDelta,
    Tool,
    ToolCallDelta,
    ToolResultBlock,
    ToolUseBlock,
)
from app.skills.pricing import PriceBook
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.idempotency.memory import InMemoryIdempotencyStore
from tests.skills.adapters.subjects import NAMES, Subject, WireSubject, open_subject
from tests.support.wire import Fault


async def weather(city: str, days: int = 1) -> str:
    """Look up the weather of a city."""
    return f"{city}: sun for {days} days"


async def population(city: str) -> int:
    """Look up how many people live in a city."""
    return len(city)


TOOLS = (Tool.of(weather), Tool.of(population))
WITH_TOOLS = LLMConfig(tools=TOOLS)
ASK_BOTH = "Use weather and population for Bergen."

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+M8AAAMCAQC0v6rTAAAAAElFTkSuQmCC"
IMAGE = ImageBlock(media_type="image/png", data=PNG)
PDF = DocumentBlock(media_type="application/pdf", data="JVBERi0xLjQK", title="report.pdf")
NOTE = DocumentBlock(media_type="text/plain", data="VGhlIHRpZGUgaXMgb3V0Lg==", title="note")

REASONING = {"stub": "stub-1", "claude": "claude-sonnet-5-5", "openai": "gpt-5"}


class Place(BaseModel):
    """A place, with bounds that no provider holds."""

    name: str = Field(min_length=1)
    rank: int = Field(ge=1, le=5)
    notes: list[str] = []


class Report(BaseModel):
    """A nested answer."""

    title: str
    place: Place
    mood: str | None = None


JSON_SCHEMA = {
    "type": "object",
    "title": "A verdict!",
    "properties": {"good": {"type": "boolean"}, "score": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["good", "score"],
}


@pytest.fixture(params=NAMES)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each adapter in turn."""
    async with open_subject(request.param) as opened:
        yield opened


async def call(
    subject: Subject, prompt: Prompt, config: LLMConfig, *, streamed: bool = False
) -> tuple[LLMResponse, list[StreamEvent]]:
    """Make a call either way; the bill is never above the bound that a hold is taken for."""
    events: list[StreamEvent] = []
    if streamed:
        events = [event async for event in subject.adapter.stream(prompt, config)]
        end = events[-1]
        assert isinstance(end, StreamEnd)
        response = end.response
    else:
        response = await subject.adapter.invoke(prompt, config)
    model = config.model or subject.adapter.default_model
    bound = PriceBook().upper_bound(prompt, config, provider=subject.adapter.adapter_id, model=model)
    assert response.cost is not None
    assert 0 < response.cost <= bound
    return response, events


both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])


class TestTools:
    """The model asks for tools, gets their results, and answers."""

    @both_ways
    async def test_calls_come_with_their_arguments_and_results_go_back(self, subject: Subject, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """Both calls at once, as objects; their results in the next turn bring the answer."""
        asked, _ = await call(subject, ASK_BOTH, WITH_TOOLS, streamed=streamed)

        assert asked.finish_reason == "tool_use"
        assert [block.name for block in asked.tool_calls] == ["weather", "population"]
        assert set(asked.tool_calls[0].arguments) >= {"city"}
        assert len({block.id for block in asked.tool_calls}) == 2
        assert all(block.malformed is None for block in asked.tool_calls)

        results = [ToolResultBlock(tool_use_id=block.id, content=f"{block.name}: fine.") for block in asked.tool_calls]
        prompt = [Message("user", ASK_BOTH), asked.message, Message("user", results)]
        answered, _ = await call(subject, prompt, WITH_TOOLS, streamed=streamed)

        assert answered.finish_reason == "stop"
        assert answered.content
        assert answered.tool_calls == ()

    async def test_a_stream_brings_each_call_in_pieces(self, subject: Subject) -> None:
        """The first piece of a call has its id and name, all pieces together are its arguments, as in the response."""
        response, events = await call(subject, ASK_BOTH, WITH_TOOLS, streamed=True)
        whole, _ = await call(subject, ASK_BOTH, WITH_TOOLS)

        deltas = [event for event in events if isinstance(event, ToolCallDelta)]
        put_together = []
        for index in (0, 1):
            pieces = [delta for delta in deltas if delta.index == index]
            assert [piece.id for piece in pieces[1:]] == [None] * (len(pieces) - 1)
            arguments = json.loads("".join(piece.arguments for piece in pieces))
            put_together.append((pieces[0].id, pieces[0].name, arguments))
            assert len(pieces) > 1
        assert put_together == [(block.id, block.name, block.arguments) for block in response.tool_calls]
        assert response.blocks == whole.blocks
        assert response.usage == whole.usage

    @pytest.mark.parametrize(
        ("prompt", "config", "called"),
        [
            ("Say hello.", {"tool_choice": None}, []),
            ("Say hello.", {"tool_choice": "auto"}, []),
            ("Say hello.", {"tool_choice": "required"}, ["weather"]),
            ("Say hello.", {"tool_choice": "population"}, ["population"]),
            (ASK_BOTH, {"tool_choice": "none"}, []),
            (ASK_BOTH, {"parallel_tool_calls": False}, ["weather"]),
            (ASK_BOTH, {"parallel_tool_calls": True}, ["weather", "population"]),
            (ASK_BOTH, {"parallel_tool_calls": False, "tool_choice": "required"}, ["weather"]),
        ],
    )
    async def test_who_decides_about_calls(
        self, subject: Subject, prompt: str, config: dict[str, Any], called: list[str]
    ) -> None:
        """The model, or the caller: any, one of them, none; one at a time."""
        response, _ = await call(subject, prompt, LLMConfig(tools=TOOLS, **config))

        assert [block.name for block in response.tool_calls] == called
        assert response.finish_reason == ("tool_use" if called else "stop")

    async def test_an_error_of_a_tool_goes_back_as_one(self, subject: Subject) -> None:
        """The model is told that it is an error, in the way of each provider."""
        asked, _ = await call(subject, "Use weather.", WITH_TOOLS)
        failed = ToolResultBlock(tool_use_id=asked.tool_calls[0].id, content="no such city", is_error=True)

        await call(subject, [Message("user", "Use weather."), asked.message, Message("user", [failed])], WITH_TOOLS)

        if isinstance(subject, WireSubject):
            told = json.dumps(subject.server.calls[-1].body["messages"][-1])
            assert "error" in told
            assert "no such city" in told


def openai_calls(*arguments: str) -> dict[str, Any]:
    """Return an answer of Chat Completions with one call."""
    function = {"name": "weather", "arguments": "".join(arguments)}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }
    return {
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
    }


@pytest.mark.parametrize("written", ['{"city": "Ber', "[1]", "nonsense"])
async def test_arguments_that_are_no_object_are_kept_as_written(written: str) -> None:
    """Cut by max_tokens, or made up: the call is there, marked, and can go back to the model with its error."""
    async with open_subject("openai") as opened:
        assert isinstance(opened, WireSubject)
        opened.server.faults.append(Fault("raw", body=openai_calls(written)))

        response = await opened.adapter.invoke(ASK_BOTH, WITH_TOOLS)
        (block,) = response.tool_calls
        result = ToolResultBlock(tool_use_id=block.id, content="the arguments are no JSON object", is_error=True)
        await opened.adapter.invoke(
            [Message("user", "Say hello."), response.message, Message("user", [result])], WITH_TOOLS
        )

        assert (block.arguments, block.malformed) == ({}, written)
        assert opened.server.calls[-1].body["messages"][1]["tool_calls"][0]["function"]["arguments"] == written


def tool_chunk(reason: str | None = None, **piece: Any) -> tuple[None, dict[str, Any]]:
    """Return a chunk of Chat Completions with a piece of a call."""
    delta = {"tool_calls": [piece]} if piece else {}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return None, {"model": "gpt-4o-mini", "choices": [choice]}


@pytest.mark.parametrize(
    "numbers", [(0, 1), (None, None), (0, 0)], ids=["numbered", "without numbers", "all the first"]
)
async def test_calls_are_told_apart_however_a_server_numbers_them(numbers: tuple[int | None, int | None]) -> None:
    """By their number, else by their ids: two calls are never run together."""
    events = []
    for number, name in zip(numbers, ("weather", "population"), strict=True):
        index: dict[str, Any] = {} if number is None else {"index": number}
        events.append(tool_chunk(**index, id=f"c-{name}", function={"name": name, "arguments": '{"city": "Bergen"}'}))
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    last = {"model": "gpt-4o-mini", "choices": [], "usage": usage}
    async with open_subject("openai") as opened:
        assert isinstance(opened, WireSubject)
        opened.server.faults.append(Fault("raw", events=(*events, tool_chunk("tool_calls"), (None, last))))

        response, pieces = await call(opened, ASK_BOTH, WITH_TOOLS, streamed=True)

    assert [(block.id, block.name) for block in response.tool_calls] == [
        ("c-weather", "weather"),
        ("c-population", "population"),
    ]
    assert {block.arguments["city"] for block in response.tool_calls} == {"Bergen"}
    assert [piece.index for piece in pieces if isinstance(piece, ToolCallDelta)] == [0, 1]


async def keep(events: AsyncIterator[StreamEvent], pieces: list[StreamEvent]) -> None:
    """Read a stream, and keep what came before it broke."""
    async for event in events:
        pieces.append(event)  # noqa: PERF401  # a comprehension would lose it


@pytest.mark.parametrize("kind", ["disconnect_midway", "truncated", "stalled"])
@pytest.mark.parametrize("name", ["claude", "openai"])
async def test_a_call_that_is_cut_is_no_answer(name: str, kind: Any) -> None:
    """Pieces of a call of a tool had arrived: it is an error whose bill is unknown, and the next call works."""
    async with open_subject(name) as opened:
        assert isinstance(opened, WireSubject)
        await opened.adapter.invoke("Warm up.")
        opened.server.faults.append(Fault(kind, after=3))
        pieces: list[StreamEvent] = []

        with pytest.raises(LLMError) as caught:
            await keep(opened.adapter.stream(ASK_BOTH, replace(WITH_TOOLS, timeout_s=0.3)), pieces)

        assert any(isinstance(piece, ToolCallDelta) for piece in pieces)
        assert caught.value.code == ("ERR_LLM_TIMEOUT" if kind == "stalled" else "ERR_LLM_STREAM_CUT")
        assert caught.value.billed == "unknown"
        assert (await opened.adapter.invoke(ASK_BOTH, WITH_TOOLS)).tool_calls


async def test_a_call_that_is_cut_is_estimated_by_what_arrived() -> None:
    """Where estimates are preferred, the pieces of a call count as output, as the provider counts them."""
    store = InMemoryBudgetStore()
    faults = StubScript([StubFault(kind="cut_stream", after_chunks=1), StubFault(kind="cut_stream", after_chunks=2)])
    adapter = BudgetedAdapter(StubAdapter(faults=faults), budget=store, prices=PriceBook(), cut_stream="estimate")

    for _ in range(2):
        with pytest.raises(LLMError):
            await keep(adapter.stream(ASK_BOTH, WITH_TOOLS), [])

    first, second = sorted(hold.charged for hold in await store.holds())
    assert 0 < first < second


class TestStructuredOutput:
    """A schema in, a validated object out."""

    @both_ways
    async def test_a_pydantic_model_comes_back_as_its_instance(self, subject: Subject, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """Nested, with optional fields, and with bounds that are checked here."""
        response, _ = await call(subject, "Report on Bergen.", LLMConfig(schema=Report), streamed=streamed)

        assert isinstance(response.output, Report)
        assert response.output_error is None
        assert response.validated() is response.output
        assert response.output == Report.model_validate_json(response.content)

    @both_ways
    async def test_a_json_schema_comes_back_as_json(self, subject: Subject, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """As a dict that satisfies it."""
        response, _ = await call(subject, "Judge it.", LLMConfig(schema=JSON_SCHEMA), streamed=streamed)

        assert set(response.output) == {"good", "score"}
        assert response.output == json.loads(response.content)

    async def test_an_answer_that_was_cut_is_no_object(self, subject: Subject) -> None:
        """It is paid and returned, says why, and is never taken for one."""
        response, _ = await call(subject, "Report on Bergen.", LLMConfig(schema=Report, max_tokens=3))

        assert response.finish_reason == "length"
        assert response.output is None
        assert response.output_error
        with pytest.raises(LLMError, match=r"does not satisfy its schema.*raise max_tokens") as caught:
            response.validated()
        assert (caught.value.code, caught.value.billed) == ("ERR_LLM_INVALID_OUTPUT", "yes")

    async def test_a_tool_may_be_called_before_the_object_comes(self, subject: Subject) -> None:
        """A call of a tool is no failed object."""
        config = LLMConfig(schema=Report, tools=TOOLS)

        asked, _ = await call(subject, "Use weather, then report.", config)
        results = [ToolResultBlock(tool_use_id=asked.tool_calls[0].id, content="sun")]
        prompt = [Message("user", "Use weather, then report."), asked.message, Message("user", results)]
        answered, _ = await call(subject, prompt, config)

        assert (asked.output, asked.output_error) == (None, None)
        assert isinstance(answered.output, Report)

    async def test_a_replay_gives_an_equal_object_of_the_same_type(self, subject: Subject) -> None:
        """What is on record is the text; the object is made of it anew, in a stream too."""
        guarded = IdempotentAdapter(subject.adapter, store=InMemoryIdempotencyStore())
        context, config = CallContext(idempotency_key="k"), LLMConfig(schema=Report)

        first = await guarded.invoke("Report.", config, context=context)
        again = await guarded.invoke("Report.", config, context=context)
        events = [event async for event in guarded.stream("Report.", config, context=context)]

        assert again.replayed
        assert isinstance(again.output, Report)
        assert again.output == first.output
        assert isinstance(events[-1], StreamEnd)
        assert events[-1].response.output == first.output


class TestReasoning:
    """Thinking that is shown, and goes back unchanged."""

    @both_ways
    async def test_effort_is_asked_for_and_paid_as_output(self, subject: Subject, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """The tokens of reasoning are a part of the output."""
        config = LLMConfig(model=REASONING[subject.adapter.adapter_id], reasoning_effort="low", max_tokens=2048)

        response, events = await call(subject, "Think about Bergen.", config, streamed=streamed)

        assert response.dropped_params == ()
        assert response.usage is not None
        assert response.usage.reasoning_tokens
        assert response.output_tokens is not None
        assert response.usage.reasoning_tokens < response.output_tokens
        shown = [block for block in response.blocks if isinstance(block, ReasoningBlock)]
        assert len(shown) == (0 if subject.adapter.adapter_id == "openai" else 1)
        if streamed:
            text = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
            assert text == "".join(block.text for block in shown)
            assert response.content == "".join(event.text for event in events if isinstance(event, TextDelta))

    async def test_reasoning_goes_back_with_the_calls_that_it_led_to(self, subject: Subject) -> None:
        """Signature and text as they came, in front of the calls."""
        model = {"openai": "smollm2-135m"}.get(subject.adapter.adapter_id) or REASONING[subject.adapter.adapter_id]
        config = LLMConfig(model=model, reasoning_effort="low", tools=TOOLS, max_tokens=2048)
        if subject.adapter.adapter_id == "openai":
            assert isinstance(subject, WireSubject)
            body = openai_calls('{"city": "Bergen"}')
            body["choices"][0]["message"]["reasoning_content"] = "Let me think."
            subject.server.faults.append(Fault("raw", body=body))
        asked = await subject.adapter.invoke("Use weather.", config)
        result = ToolResultBlock(tool_use_id=asked.tool_calls[0].id, content="sun")

        await subject.adapter.invoke(
            [Message("user", "Use weather."), asked.message, Message("user", [result])], config
        )

        assert isinstance(asked.blocks[0], ReasoningBlock)
        if isinstance(subject, WireSubject):
            turn = subject.server.calls[-1].body["messages"][1]
            if subject.adapter.adapter_id == "openai":
                assert turn["reasoning_content"] == asked.blocks[0].text == "Let me think."
            else:
                assert turn["content"][0] == {
                    "type": "thinking",
                    "thinking": "Let me think.",
                    "signature": asked.blocks[0].signature,
                }


class TestContent:
    """Images, documents and marks of the cache."""

    @pytest.mark.parametrize("block", [IMAGE, PDF, NOTE], ids=["image", "pdf", "text"])
    @both_ways
    async def test_content_is_read_and_billed(self, subject: Subject, block: ContentBlock, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """It costs input, and the server takes the form in which it is sent."""
        plain, _ = await call(subject, [Message("user", [TextBlock("Look.")])], LLMConfig(), streamed=streamed)

        seen, _ = await call(subject, [Message("user", [block, TextBlock("Look.")])], LLMConfig(), streamed=streamed)

        assert seen.content
        assert seen.input_tokens is not None
        assert plain.input_tokens is not None
        assert seen.input_tokens > plain.input_tokens

    async def test_a_written_cache_is_a_part_of_the_input(self, subject: Subject) -> None:
        """Where the provider says what it wrote, it is in the total and priced; nowhere is it added to it."""
        prompt = [Message("user", [TextBlock("A long beginning.", cache=True), TextBlock("And a question.")])]
        model = {"openai": "gpt-5.6-sol"}.get(subject.adapter.adapter_id)

        plain, _ = await call(
            subject, [Message("user", [TextBlock("A long beginning."), *prompt[0].blocks[1:]])], LLMConfig(model=model)
        )
        kept, _ = await call(subject, prompt, LLMConfig(model=model))

        assert kept.usage is not None
        assert kept.usage.complete
        assert kept.input_tokens == plain.input_tokens
        if subject.adapter.adapter_id != "stub":
            assert kept.usage.cache_write_5m_tokens
            assert kept.cost is not None
            assert plain.cost is not None
            assert kept.cost > plain.cost


@pytest.mark.parametrize("name", ["claude", "openai"])
async def test_reasoning_of_another_provider_is_not_sent(name: str) -> None:
    """A fallback may get a conversation that another provider began; what only that one can read is left away."""
    foreign = ReasoningBlock(text="Elsewhere.", signature=None if name == "claude" else "c2ln")
    prompt = [Message("user", "One."), Message("assistant", [foreign, TextBlock("Two.")]), Message("user", "Three.")]
    async with open_subject(name) as opened:
        assert isinstance(opened, WireSubject)

        await opened.adapter.invoke(prompt)

        assert "Elsewhere" not in json.dumps(opened.server.calls[-1].body)


async def test_a_tool_that_thinking_stands_in_the_way_of_is_called_without() -> None:
    """Chat Completions takes no tools beside reasoning from gpt-5.4 on: it is turned off, and the response says so."""
    async with open_subject("openai") as opened:
        assert isinstance(opened, WireSubject)
        adapter = opened.adapter
        assert isinstance(adapter, OpenAIAdapter)

        for model, sent in (("gpt-5.4", None), ("gpt-5.5", "none"), ("gpt-5.6-sol", "none"), ("gpt-6.1-sol", "none")):
            response = await adapter.invoke(ASK_BOTH, LLMConfig(model=model, tools=TOOLS, reasoning_effort="high"))
            assert opened.server.calls[-1].body.get("reasoning_effort") == sent
            assert response.dropped_params == ("reasoning_effort",)
            assert response.tool_calls


def test_blocks_survive_a_turn() -> None:
    """The message of a response is its blocks, or its text."""
    response = LLMResponse(
        content="hi", input_tokens=1, output_tokens=1, model="m", finish_reason="stop", latency_ms=1.0
    )
    use = ToolUseBlock(id="1", name="f", arguments={})

    assert response.message == Message("assistant", "hi")
    assert replace(response, blocks=(use,)).message == Message("assistant", (use,))
