"""Streams event by event, and every figure of usage: replaced, never added; unknown, never zero."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from anthropic.types import Usage
from openai.types import CompletionUsage

from app.credentials import fixed
from app.errors import LLMError
from app.skills.adapters.claude_adapter import ClaudeAdapter, claude_usage
from app.skills.adapters.openai_adapter import OpenAIAdapter, openai_usage
from app.skills.llm_invoke_v2 import LLMAdapter, LLMResponse, LLMUsage, ReasoningBlock, StreamEnd, TextBlock
from tests.support.wire import Fault, WireServer


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    """A loopback server of both formats."""
    async with WireServer() as opened:
        yield opened


async def streamed(adapter: LLMAdapter) -> LLMResponse:
    """Read a stream to its end."""
    try:
        events = [event async for event in adapter.stream("hello")]
    finally:
        await adapter.aclose()
    assert isinstance(events[-1], StreamEnd)
    return events[-1].response


async def claude_stream(server: WireServer, *events: tuple[str | None, object]) -> LLMResponse:
    """Read a stream of the given events."""
    server.faults.append(Fault("raw", events=events))
    return await streamed(ClaudeAdapter(api_key=fixed(server.key), base_url=server.url))


async def openai_stream(server: WireServer, *chunks: object) -> LLMResponse:
    """Read a stream of the given chunks."""
    server.faults.append(Fault("raw", events=tuple((None, chunk) for chunk in chunks)))
    return await streamed(OpenAIAdapter(api_key=fixed(server.key), base_url=server.openai_url))


def start(**usage: Any) -> tuple[str, object]:
    """Return the first event of Claude."""
    return "message_start", {"type": "message_start", "message": {"model": "claude-sonnet-5-5", "usage": usage}}


def text(piece: str, *, name: str | None = "content_block_delta") -> tuple[str | None, object]:
    """Return a piece of text of Claude."""
    delta = {"type": "text_delta", "text": piece}
    return name, {"type": "content_block_delta", "index": 0, "delta": delta}


def delta(reason: str | None, **usage: Any) -> tuple[str, object]:
    """Return the event in which Claude says why it ended."""
    return "message_delta", {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage or None}


STOP = ("message_stop", {"type": "message_stop"})


def chunk(piece: str | None = None, reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a chunk of OpenAI."""
    choice = {"index": 0, "delta": {} if piece is None else {"content": piece}, "finish_reason": reason}
    return {"model": "gpt-4o-mini", "choices": [choice], **fields}


class TestClaudeStreams:
    """Server-sent events of the Messages API."""

    async def test_cumulative_usage_is_replaced_and_never_added(self, server: WireServer) -> None:
        """The estimate at the start, a figure under way and the last one: the last one counts."""
        response = await claude_stream(
            server,
            start(input_tokens=10, output_tokens=1, cache_read_input_tokens=90),
            text("a"),
            delta(None, output_tokens=5),
            delta("end_turn", input_tokens=12, cache_read_input_tokens=88, output_tokens=9),
            STOP,
        )

        assert response.usage == LLMUsage(input_tokens=100, output_tokens=9, cache_read_tokens=88)

    async def test_an_event_without_a_name_is_read_all_the_same(self, server: WireServer) -> None:
        """The SDK skips it, and with it text that was paid for."""
        response = await claude_stream(
            server, start(input_tokens=1), text("a"), text("b", name=None), delta("end_turn", output_tokens=2), STOP
        )

        assert response.content == "ab"

    async def test_a_usage_that_only_began_is_not_complete(self, server: WireServer) -> None:
        """The figures of message_start are an estimate."""
        response = await claude_stream(
            server, start(input_tokens=10, output_tokens=1), text("a"), delta("end_turn"), STOP
        )

        assert not response.usage_complete
        assert (response.input_tokens, response.cost) == (10, None)

    @pytest.mark.parametrize(
        "events",
        [
            [],
            [start(input_tokens=1)],
            [start(input_tokens=1), text("a")],
            [start(input_tokens=1), text("a"), delta(None, output_tokens=3), STOP],
            [start(input_tokens=1), text("a"), delta("end_turn", output_tokens=3)],
        ],
    )
    async def test_a_stream_without_its_end_is_an_error(self, server: WireServer, events: list[Any]) -> None:
        """No stop_reason, or no message_stop: it was cut, however cleanly."""
        with pytest.raises(LLMError) as caught:
            await claude_stream(server, *(events or [("ping", {"type": "ping"})]))

        code = "ERR_LLM_STREAM_CUT" if events else "ERR_LLM_INVALID_RESPONSE"
        assert (caught.value.code, caught.value.billed != "no") == (code, True)

    async def test_partial_usage_of_a_cut_stream_is_kept(self, server: WireServer) -> None:
        """What had been reported goes with the error."""
        with pytest.raises(LLMError) as caught:
            await claude_stream(
                server, start(input_tokens=10, output_tokens=1), text("a"), delta(None, output_tokens=7)
            )

        assert (caught.value.partial_input_tokens, caught.value.partial_output_tokens) == (10, 7)
        assert caught.value.partial_text == "a"

    async def test_a_blocked_answer_within_a_stream_is_not_taken_as_fully_reported(self, server: WireServer) -> None:
        """``billed`` is unknown: a known bill would be settled by figures that are an estimate."""
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": "content filtering policy"}}

        with pytest.raises(LLMError) as caught:
            await claude_stream(server, start(input_tokens=10, output_tokens=1), text("a"), ("error", error))

        assert (caught.value.code, caught.value.billed) == ("ERR_LLM_CONTENT_BLOCKED", "unknown")

    async def test_reasoning_comes_as_blocks_and_not_as_text(self, server: WireServer) -> None:
        """With its signature, which must be handed back unchanged."""
        thinking = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}}
        signature = {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}}
        answer = {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Yes."}}
        kinds: list[Any] = [("thinking", 0), ("text", 1)]
        starts = [
            ("content_block_start", {"type": "content_block_start", "index": index, "content_block": {"type": kind}})
            for kind, index in kinds
        ]

        response = await claude_stream(
            server,
            start(input_tokens=1),
            *starts,
            ("content_block_delta", thinking),
            ("content_block_delta", signature),
            ("content_block_delta", answer),
            delta("end_turn", output_tokens=4),
            STOP,
        )

        assert response.content == "Yes."
        assert response.blocks == (ReasoningBlock(text="Hm.", signature="s"), TextBlock("Yes."))


class TestOpenAIStreams:
    """Chunks of Chat Completions."""

    async def test_running_usage_is_replaced_and_never_added(self, server: WireServer) -> None:
        """Servers that report with each chunk: the figures at the end count."""
        response = await openai_stream(
            server,
            chunk("a", usage={"prompt_tokens": 5, "completion_tokens": 1}),
            chunk("b", usage={"prompt_tokens": 5, "completion_tokens": 2}),
            chunk(None, "stop", usage={"prompt_tokens": 5, "completion_tokens": 3}),
        )

        assert response.usage == LLMUsage(input_tokens=5, output_tokens=3)
        assert response.cost is not None

    async def test_usage_from_before_the_end_is_not_complete(self, server: WireServer) -> None:
        """It is a figure under way, so there is no bill."""
        response = await openai_stream(
            server, chunk("a", usage={"prompt_tokens": 5, "completion_tokens": 1}), chunk(None, "stop")
        )

        assert not response.usage_complete
        assert (response.output_tokens, response.cost) == (1, None)

    async def test_only_the_first_of_several_answers_is_the_content(self, server: WireServer) -> None:
        """Answers to ``n`` come interleaved."""
        other = {"index": 1, "delta": {"content": "X"}, "finish_reason": "length"}

        response = await openai_stream(
            server,
            chunk("a"),
            {"choices": [other]},
            chunk("b", "stop", usage={"prompt_tokens": 5, "completion_tokens": 3}),
        )

        assert (response.content, response.finish_reason) == ("ab", "stop")

    @pytest.mark.parametrize("chunks", [[chunk("a")], [chunk("a"), {"choices": [], "usage": {"prompt_tokens": 5}}]])
    async def test_a_stream_without_a_finish_reason_is_an_error(self, server: WireServer, chunks: list[Any]) -> None:
        """Even where it ends with ``[DONE]``."""
        with pytest.raises(LLMError) as caught:
            await openai_stream(server, *chunks)

        assert (caught.value.code, caught.value.partial_text) == ("ERR_LLM_STREAM_CUT", "a")

    @pytest.mark.parametrize("bad", [5, {"choices": 5}, {"choices": [5]}, {"choices": [{"delta": 5}]}])
    async def test_a_chunk_of_another_shape(self, server: WireServer, bad: object) -> None:
        """It is an answer that cannot be read, not a TypeError."""
        with pytest.raises(LLMError) as caught:
            await openai_stream(server, chunk("a"), bad)

        assert caught.value.code == "ERR_LLM_INVALID_RESPONSE"


CLAUDE_USAGES = [
    ({"input_tokens": 5, "output_tokens": 7}, LLMUsage(input_tokens=5, output_tokens=7)),
    # 504 uncached + 123 read + 7 written
    (
        {"input_tokens": 504, "output_tokens": 97, "cache_read_input_tokens": 123, "cache_creation_input_tokens": 7},
        LLMUsage(input_tokens=634, output_tokens=97, cache_read_tokens=123, cache_write_5m_tokens=7),
    ),
    (
        {
            "input_tokens": 1,
            "output_tokens": 2,
            "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        },
        LLMUsage(input_tokens=31, output_tokens=2, cache_write_5m_tokens=10, cache_write_1h_tokens=20),
    ),
    (
        {"input_tokens": 1, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}},
        LLMUsage(input_tokens=1, output_tokens=9, reasoning_tokens=4),
    ),
    (
        {"input_tokens": 1, "output_tokens": 9, "service_tier": "standard", "speed": "fast"},
        LLMUsage(input_tokens=1, output_tokens=9, service_tier="fast"),
    ),
    (
        {"input_tokens": 1, "output_tokens": 9, "service_tier": "standard", "inference_geo": "us"},
        LLMUsage(input_tokens=1, output_tokens=9, service_tier="standard@us"),
    ),
    (
        {"input_tokens": 1, "output_tokens": 9, "service_tier": "standard", "inference_geo": "global"},
        LLMUsage(input_tokens=1, output_tokens=9, service_tier="standard"),
    ),
    (
        {
            "input_tokens": 1,
            "output_tokens": 9,
            "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0},
        },
        LLMUsage(input_tokens=1, output_tokens=9, complete=False),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), CLAUDE_USAGES)
def test_claude_usage_of_the_sdks_type(fields: dict[str, Any], expected: LLMUsage) -> None:
    """Totals have the cache in them; absent parts are unknown; a fee beside the tokens is no complete bill."""
    assert claude_usage(Usage(**fields).to_dict()) == expected


@pytest.mark.parametrize("usage", [None, "x", {}, {"input_tokens": -1, "output_tokens": 2}, {"output_tokens": True}])
def test_a_claude_usage_without_its_totals_is_not_complete(usage: object) -> None:
    """Nothing is made up."""
    read = claude_usage(usage)

    assert not read.complete
    assert read.input_tokens is None


OPENAI_USAGES = [
    (
        {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
        LLMUsage(input_tokens=5, output_tokens=7, service_tier="default"),
    ),
    (
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
            "completion_tokens_details": {"reasoning_tokens": 40},
        },
        LLMUsage(
            input_tokens=100,
            output_tokens=50,
            cache_read_tokens=60,
            cache_write_5m_tokens=30,
            reasoning_tokens=40,
            service_tier="default",
        ),
    ),
    (
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "completion_tokens_details": {"audio_tokens": 40},
        },
        LLMUsage(input_tokens=100, output_tokens=50, complete=False, service_tier="default"),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), OPENAI_USAGES)
def test_openai_usage_of_the_sdks_type(fields: dict[str, Any], expected: LLMUsage) -> None:
    """Totals as they are, parts where they are reported; audio has a price that no figure holds."""
    assert openai_usage(CompletionUsage(**fields).to_dict(), service_tier="default") == expected


@pytest.mark.parametrize("usage", [None, "x", {}, {"prompt_tokens": 5}, {"prompt_tokens": 5, "completion_tokens": -1}])
def test_an_openai_usage_without_its_totals_is_not_complete(usage: object) -> None:
    """Nothing is made up."""
    read = openai_usage(usage)

    assert not read.complete
    assert read.output_tokens is None


NOTHING = {"prompt_tokens": 5, "completion_tokens": 0}

OPENAI_BILLS = [
    # A server that does not count sends zeros.
    ("hello", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, False),
    ("", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, False),
    ("hello", {"prompt_tokens": 0, "completion_tokens": 3, "total_tokens": 3}, False),
    ("hello", {**NOTHING, "total_tokens": 5}, False),
    # The reasoning is in the total alone, or one of the three is wrong.
    ("hello", {**NOTHING, "total_tokens": 500}, False),
    ("hello", {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 9}, False),
    ("hello", {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": -8}, False),
    # Nothing written is nothing to count, and a total may be left away.
    ("", {**NOTHING, "total_tokens": 5}, True),
    ("", NOTHING, True),
    ("hello", {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}, True),
    ("hello", {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": None}, True),
    ("hello", {"prompt_tokens": 5, "completion_tokens": 3}, True),
]

CLAUDE_BILLS = [
    ("hello", {"input_tokens": 0, "output_tokens": 0}, False),
    ("hello", {"input_tokens": 0, "output_tokens": 3, "cache_read_input_tokens": 0}, False),
    ("hello", {"input_tokens": 5, "output_tokens": 0}, False),
    ("", {"input_tokens": 5, "output_tokens": 0}, True),
    ("hello", {"input_tokens": 0, "output_tokens": 3, "cache_read_input_tokens": 7}, True),
    ("hello", {"input_tokens": 5, "output_tokens": 3}, True),
]


class TestContradictions:
    """A usage that contradicts itself, or the answer, is not known: it is no bill."""

    @pytest.mark.parametrize(("content", "usage", "known"), OPENAI_BILLS)
    async def test_of_openai(self, server: WireServer, content: str, usage: dict[str, Any], known: bool) -> None:  # noqa: FBT001 - a parameter of the test
        """Zeros beside a text, a prompt of nothing, and a total that is not the sum of its parts."""
        choice = {"index": 0, "message": {"content": content}, "finish_reason": "stop"}
        server.faults.append(Fault("raw", body={"choices": [choice], "usage": usage}))
        adapter = OpenAIAdapter(api_key=fixed(server.key), base_url=server.openai_url)

        whole = await adapter.invoke("hello")
        in_pieces = await openai_stream(server, chunk(content), chunk(None, "stop", usage=usage))

        await adapter.aclose()
        for response in (whole, in_pieces):
            assert response.usage is not None
            assert (response.usage.complete, response.cost is not None) == (known, known)

    @pytest.mark.parametrize(("content", "usage", "known"), CLAUDE_BILLS)
    async def test_of_claude(self, server: WireServer, content: str, usage: dict[str, Any], known: bool) -> None:  # noqa: FBT001 - a parameter of the test
        """Zeros beside a text, and a prompt of nothing, the cache counted in."""
        body = {"content": [{"type": "text", "text": content}], "stop_reason": "end_turn", "usage": usage}
        server.faults.append(Fault("raw", body=body))
        adapter = ClaudeAdapter(api_key=fixed(server.key), base_url=server.url)

        whole = await adapter.invoke("hello")
        in_pieces = await claude_stream(server, start(**usage), text(content), delta("end_turn", **usage), STOP)

        await adapter.aclose()
        for response in (whole, in_pieces):
            assert response.usage is not None
            assert (response.usage.complete, response.cost is not None) == (known, known)

    async def test_the_call_of_a_tool_is_something_written(self, server: WireServer) -> None:
        """It has no text, and is paid for all the same."""
        calls = [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}}]
        choice = {"index": 0, "message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}
        server.faults.append(Fault("raw", body={"choices": [choice], "usage": NOTHING}))
        adapter = OpenAIAdapter(api_key=fixed(server.key), base_url=server.openai_url)
        piece = {"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": None}]}

        whole = await adapter.invoke("hello")
        in_pieces = await openai_stream(server, piece, chunk(None, "tool_calls", usage=NOTHING))

        await adapter.aclose()
        assert [response.cost for response in (whole, in_pieces)] == [None, None]
