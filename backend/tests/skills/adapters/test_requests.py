"""What is sent: the body of each wire format, and what is left away because a model rejects it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from app.credentials import Credential, fixed
from app.errors import InvalidInputError
from app.skills.adapters.claude_adapter import ClaudeAdapter
from app.skills.adapters.openai_adapter import OpenAIAdapter
from app.skills.llm_invoke_v2 import (
    DocumentBlock,
    ImageBlock,
    LLMAdapter,
    LLMConfig,
    Message,
    ReasoningBlock,
    TextBlock,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
)
from tests.support.planted import planted
from tests.support.wire import WireServer

AT = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
LOOK = Tool(name="look", description="Look.", parameters=AT)
USE = ToolUseBlock(id="c1", name="look", arguments={"at": "sea"})
CONTENT = (
    ImageBlock(media_type="image/png", data="AA=="),
    ImageBlock(media_type="image/png", url="https://x/y.png", detail="low"),
    DocumentBlock(media_type="application/pdf", data="AA==", title="r.pdf"),
    DocumentBlock(media_type="text/plain", data="aGk=", title="note"),
    TextBlock("Look."),
)
FULL = LLMConfig(temperature=0.5, top_p=0.9, stop=("END",), seed=7, system="Be brief.")


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    """A loopback server of both formats."""
    async with WireServer() as opened:
        yield opened


def claude(server: WireServer) -> ClaudeAdapter:
    """Return an adapter at the server."""
    return ClaudeAdapter(api_key=fixed(server.key), base_url=server.url)


def openai(server: WireServer) -> OpenAIAdapter:
    """Return an adapter at the server."""
    return OpenAIAdapter(api_key=fixed(server.key), base_url=server.openai_url)


async def sent(server: WireServer, adapter: LLMAdapter, prompt: Any, config: LLMConfig) -> dict[str, Any]:
    """Make a call that the server accepts, and return the body that it got."""
    await adapter.invoke(prompt, config)
    await adapter.aclose()
    assert server.calls[-1].status == 200
    return server.calls[-1].body


class TestClaude:
    """The Messages API."""

    async def test_a_current_model_gets_no_sampling_parameters(self, server: WireServer) -> None:
        """They are rejected since Opus 4.7; the response lists them, and the seed, which the API never had."""
        adapter = claude(server)

        response = await adapter.invoke("hello", FULL)
        await adapter.aclose()

        assert response.dropped_params == ("temperature", "top_p", "seed")
        assert server.calls[-1].headers["anthropic-version"] == "2026-10-21"
        assert server.calls[-1].body == {
            "model": "claude-sonnet-5-5",
            "max_tokens": 1024,
            "messages": [{"role": "user", "content": "hello"}],
            "system": "Be brief.",
            "stop_sequences": ["END"],
        }

    @pytest.mark.parametrize(
        ("model", "expected", "dropped"),
        [
            ("claude-sonnet-4", {"temperature": 0.5, "top_p": 0.9}, ("seed",)),
            ("claude-opus-4-1", {"temperature": 0.5}, ("top_p", "seed")),
            ("claude-sonnet-4-5", {"temperature": 0.5}, ("top_p", "seed")),
            ("claude-haiku-4-5", {"temperature": 0.5}, ("top_p", "seed")),
            ("claude-opus-4-6", {"temperature": 0.5}, ("top_p", "seed")),
            ("claude-opus-4-7", {}, ("temperature", "top_p", "seed")),
            ("claude-fable-5-2", {}, ("temperature", "top_p", "seed")),
        ],
    )
    async def test_an_older_model_gets_them_with_the_version_that_takes_them(
        self, server: WireServer, model: str, expected: dict[str, float], dropped: tuple[str, ...]
    ) -> None:
        """Only with the old version header, and only one of the two where both are rejected."""
        adapter = claude(server)

        config = LLMConfig(model=model, temperature=0.5, top_p=0.9, seed=7)
        response = await adapter.invoke("hello", config)
        await adapter.aclose()

        body = server.calls[-1].body
        assert server.calls[-1].status == 200
        assert {name: body[name] for name in ("temperature", "top_p") if name in body} == expected
        assert response.dropped_params == dropped
        assert server.calls[-1].headers["anthropic-version"] == ("2023-06-01" if expected else "2026-10-21")

    async def test_a_temperature_above_one_is_left_away(self, server: WireServer) -> None:
        """Claude's ends at 1."""
        adapter = claude(server)

        response = await adapter.invoke("hello", LLMConfig(model="claude-sonnet-4", temperature=1.5))
        await adapter.aclose()

        assert response.dropped_params == ("temperature",)

    async def test_leading_system_messages_and_the_system_text_become_the_system_prompt(
        self, server: WireServer
    ) -> None:
        """In this order, with the marks for the cache; the turns keep theirs."""
        prompt = [
            Message("system", [TextBlock("Rules.", cache=True)]),
            Message("user", "one"),
            Message("assistant", "two"),
            Message("user", [TextBlock("three")]),
        ]

        body = await sent(server, claude(server), prompt, LLMConfig(system="Be brief."))

        assert body["system"] == [
            {"type": "text", "text": "Be brief."},
            {"type": "text", "text": "Rules.", "cache_control": {"type": "ephemeral"}},
        ]
        assert body["messages"] == [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": [{"type": "text", "text": "three"}]},
        ]

    async def test_input_that_only_claude_rejects(self, server: WireServer) -> None:
        """A stop sequence of white space, and a prompt of system messages only, are refused before sending."""
        with pytest.raises(InvalidInputError, match="white space"):
            await claude(server).invoke("hello", LLMConfig(stop=(" ",)))
        with pytest.raises(InvalidInputError, match="system messages"):
            await claude(server).invoke([Message("system", "Rules.")])

        assert server.calls == []

    async def test_content_of_every_kind(self, server: WireServer) -> None:
        """Blocks in the provider's form, marks of the cache on each; results come first in their turn."""
        prompt = [
            Message("user", [replace(CONTENT[0], cache="1h"), *CONTENT[1:]]),
            Message("assistant", [ReasoningBlock(text="", signature="c2ln", redacted=True), USE]),
            Message("user", [TextBlock("And?"), ToolResultBlock(tool_use_id="c1", content="sun", is_error=True)]),
        ]
        config = LLMConfig(tools=(LOOK,), tool_choice="look", parallel_tool_calls=False, cache=True)

        body = await sent(server, claude(server), prompt, config)

        assert body["messages"] == [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
                        "cache_control": {"type": "ephemeral", "ttl": "1h"},
                    },
                    {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
                        "title": "r.pdf",
                    },
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "hi"},
                        "title": "note",
                    },
                    {"type": "text", "text": "Look."},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "redacted_thinking", "data": "c2ln"},
                    {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "sea"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "sun", "is_error": True},
                    {"type": "text", "text": "And?"},
                ],
            },
        ]
        assert body["tools"] == [{"name": "look", "description": "Look.", "input_schema": AT}]
        assert body["tool_choice"] == {"type": "tool", "name": "look", "disable_parallel_tool_use": True}
        assert body["cache_control"] == {"type": "ephemeral"}

    @pytest.mark.parametrize(
        ("model", "effort", "expected", "dropped"),
        [
            ("claude-3-5-haiku-latest", "high", {}, ("reasoning_effort",)),
            ("claude-sonnet-4-5", "low", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, ()),
            ("claude-sonnet-4-5", "max", {"thinking": {"type": "enabled", "budget_tokens": 3276}}, ()),
            ("claude-sonnet-4-5", "none", {}, ()),
            (
                "claude-opus-4-6",
                "xhigh",
                {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
                (),
            ),
            ("claude-opus-4-7", "none", {}, ()),
            ("claude-opus-5", "none", {"thinking": {"type": "disabled"}}, ()),
            ("claude-opus-5-5", "none", {}, ("reasoning_effort",)),
            (
                "claude-opus-5-5",
                "max",
                {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
                (),
            ),
        ],
    )
    async def test_effort_is_said_in_the_way_of_each_model(
        self, server: WireServer, model: str, effort: Any, expected: dict[str, Any], dropped: tuple[str, ...]
    ) -> None:
        """A number of tokens, or a level; nothing where it has none, and nothing that it rejects."""
        adapter = claude(server)

        response = await adapter.invoke("hello", LLMConfig(model=model, reasoning_effort=effort, max_tokens=4096))
        await adapter.aclose()

        body = server.calls[-1].body
        assert server.calls[-1].status == 200
        assert {name: body[name] for name in ("thinking", "output_config") if name in body} == expected
        assert response.dropped_params == dropped

    async def test_a_schema_is_held_by_the_provider_or_said_in_words(self, server: WireServer) -> None:
        """By a grammar where the model and the shape allow it."""
        opened = {"type": "object", "additionalProperties": {"type": "string"}}

        held = await sent(server, claude(server), "hello", LLMConfig(schema=AT))
        by_shape = await sent(server, claude(server), "hello", LLMConfig(schema=opened, system="Be brief."))
        by_model = await sent(server, claude(server), "hello", LLMConfig(schema=AT, model="claude-opus-4-1"))

        assert held["output_config"]["format"]["schema"]["additionalProperties"] is False
        assert "system" not in held
        assert by_shape["system"].startswith("Be brief.\n\nAnswer with one JSON object")
        assert '"at"' in by_model["system"]
        assert not {"output_config"} & (by_shape.keys() | by_model.keys())

    @pytest.mark.parametrize(
        ("tier", "expected", "dropped"),
        [
            ("auto", {"service_tier": "auto"}, ()),
            ("default", {"service_tier": "standard_only"}, ()),
            ("fast", {"speed": "fast"}, ()),
            ("flex", {}, ("service_tier",)),
        ],
    )
    async def test_a_service_tier(
        self, server: WireServer, tier: Any, expected: dict[str, str], dropped: tuple[str, ...]
    ) -> None:
        """In the provider's words; one that it has not is left away and named."""
        adapter = claude(server)

        response = await adapter.invoke("hello", LLMConfig(service_tier=tier))
        await adapter.aclose()

        body = server.calls[-1].body
        assert {name: body[name] for name in ("service_tier", "speed") if name in body} == expected
        assert response.dropped_params == dropped

    async def test_a_turn_of_its_own_is_not_gone_on_with(self, server: WireServer) -> None:
        """Current models reject a prompt that ends with an answer; older ones go on with it."""
        prompt = [Message("user", "Count."), Message("assistant", "One, two,")]

        with pytest.raises(InvalidInputError, match="end the prompt with one of the user"):
            await claude(server).invoke(prompt)
        await sent(server, claude(server), prompt, LLMConfig(model="claude-sonnet-4-5"))


class TestOpenAI:
    """Chat Completions."""

    @pytest.mark.parametrize(
        ("model", "limit", "kept"),
        [
            ("gpt-3.5-turbo", "max_tokens", {"temperature", "top_p", "stop", "seed"}),
            ("gpt-4", "max_tokens", {"temperature", "top_p", "stop", "seed"}),
            ("gpt-4-turbo", "max_tokens", {"temperature", "top_p", "stop", "seed"}),
            ("gpt-4o-mini", "max_completion_tokens", {"temperature", "top_p", "stop", "seed"}),
            ("ft:gpt-4o-mini:acme::1", "max_completion_tokens", {"temperature", "top_p", "stop", "seed"}),
            ("gpt-4.1", "max_completion_tokens", {"temperature", "top_p", "stop", "seed"}),
            ("gpt-5-chat-latest", "max_completion_tokens", {"temperature", "top_p", "stop", "seed"}),
            ("o3", "max_completion_tokens", {"seed"}),
            ("o4-mini", "max_completion_tokens", {"seed"}),
            ("gpt-5", "max_completion_tokens", {"seed"}),
            ("gpt-5-mini", "max_completion_tokens", {"seed"}),
            ("gpt-5.6-sol", "max_completion_tokens", {"seed"}),
            ("gpt-6.1-sol", "max_completion_tokens", {"seed"}),
            ("gpt-7-nobody-knows-yet", "max_completion_tokens", {"seed"}),
            ("smollm2-135m", "max_tokens", {"temperature", "top_p", "stop", "seed"}),
            ("gpt-oss-20b", "max_tokens", {"temperature", "top_p", "stop", "seed"}),
        ],
    )
    async def test_each_family_gets_what_it_accepts(
        self, server: WireServer, model: str, limit: str, kept: set[str]
    ) -> None:
        """The name of the limit and the optional parameters follow the model; the rest is listed as dropped."""
        adapter = openai(server)

        response = await adapter.invoke("hello", LLMConfig(model=model, **_optional()))
        await adapter.aclose()

        body = server.calls[-1].body
        assert server.calls[-1].status == 200
        assert body[limit] == 1024
        assert len({"max_tokens", "max_completion_tokens"} & body.keys()) == 1
        assert body.keys() & {"temperature", "top_p", "stop", "seed"} == kept
        assert set(response.dropped_params) == {"temperature", "top_p", "stop", "seed"} - kept

    @pytest.mark.parametrize(
        ("model", "effort", "sampling"),
        [
            ("gpt-5.1", None, True),
            ("gpt-5.1", "none", True),
            ("gpt-5.1", "high", False),
            ("gpt-5.5", None, False),
            ("gpt-5.5", "none", True),
            ("gpt-5", "none", False),
        ],
    )
    async def test_sampling_follows_reasoning(
        self,
        server: WireServer,
        model: str,
        effort: str | None,
        sampling: bool,  # noqa: FBT001  # a parameter of the test
    ) -> None:
        """From gpt-5.1 to 5.6 a temperature is taken while the model does not reason."""
        adapter = openai(server)
        extra = {} if effort is None else {"reasoning_effort": effort}

        server.faults.clear()
        request = adapter._encode(
            (Message("user", "hello"),),
            LLMConfig(model=model, temperature=0.1, extra=extra),
            model=model,
            facts=_facts(model),
        )

        assert ("temperature" in request.body) is sampling
        assert request.dropped == (() if sampling else ("temperature",))

    async def test_the_system_text_comes_first(self, server: WireServer) -> None:
        """In front of the messages; extra parameters are passed as they are."""
        config = LLMConfig(system="Be brief.", extra={"user": "u1"})

        body = await sent(server, openai(server), [Message("user", [TextBlock("one")])], config)

        assert body == {
            "model": "gpt-4o-mini",
            "max_completion_tokens": 1024,
            "user": "u1",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "one"}]},
            ],
        }

    async def test_content_of_every_kind(self, server: WireServer) -> None:
        """Images with a detail, whose tokens are bounded by it; files; plain text as text; results as messages."""
        prompt = [
            Message("user", CONTENT),
            Message("assistant", [TextBlock("I look."), USE]),
            Message("user", [TextBlock("And?"), ToolResultBlock(tool_use_id="c1", content="sun", is_error=True)]),
        ]

        body = await sent(server, openai(server), prompt, LLMConfig(tools=(LOOK,), tool_choice="look"))

        assert body["messages"] == [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "high"}},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                    {
                        "type": "file",
                        "file": {"filename": "r.pdf", "file_data": "data:application/pdf;base64,AA=="},
                    },
                    {"type": "text", "text": "note\n\nhi"},
                    {"type": "text", "text": "Look."},
                ],
            },
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "I look."}],
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "error: sun"},
            {"role": "user", "content": [{"type": "text", "text": "And?"}]},
        ]
        assert body["tools"] == [
            {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": AT}}
        ]
        assert body["tool_choice"] == {"type": "function", "function": {"name": "look"}}

    @pytest.mark.parametrize(
        ("model", "asked", "sent_effort", "dropped"),
        [
            ("gpt-4o", "high", None, ("reasoning_effort",)),
            ("o3", "high", "high", ()),
            ("o3", "max", "high", ()),
            ("o3", "none", None, ("reasoning_effort",)),
            ("gpt-5", "none", None, ("reasoning_effort",)),
            ("gpt-5", "xhigh", "high", ()),
            ("gpt-5-pro", "low", "high", ()),
            ("gpt-5.1", "minimal", "low", ()),
            ("gpt-5.6-sol", "max", "max", ()),
        ],
    )
    async def test_the_nearest_effort_is_asked_for(
        self, server: WireServer, model: str, asked: Any, sent_effort: str | None, dropped: tuple[str, ...]
    ) -> None:
        """A level that a model has not is the next lower one, or its lowest; not to think is no level."""
        adapter = openai(server)

        response = await adapter.invoke("hello", LLMConfig(model=model, reasoning_effort=asked))
        await adapter.aclose()

        assert server.calls[-1].body.get("reasoning_effort") == sent_effort
        assert response.dropped_params == dropped

    async def test_a_schema_is_held_by_the_provider_or_said_in_words(self, server: WireServer) -> None:
        """Strictly where it can be; loosely where its shape is open; as JSON, or in words alone, by older models."""
        opened = {"type": "object", "additionalProperties": {"type": "string"}}

        strict = await sent(server, openai(server), "hello", LLMConfig(schema=AT))
        loose = await sent(server, openai(server), "hello", LLMConfig(schema=opened))
        as_json = await sent(server, openai(server), "hello", LLMConfig(schema=AT, model="gpt-4-turbo"))
        in_words = await sent(server, openai(server), "hello", LLMConfig(schema=AT, model="gpt-4"))

        assert strict["response_format"]["json_schema"]["strict"] is True
        assert loose["response_format"]["json_schema"] == {"name": "output", "schema": opened, "strict": False}
        assert as_json["response_format"] == {"type": "json_object"}
        assert "response_format" not in in_words
        for body in (as_json, in_words):
            assert body["messages"][0]["role"] == "system"
            assert '"at"' in body["messages"][0]["content"]

    async def test_a_parameter_is_set_once(self, server: WireServer) -> None:
        """By the field or as an extra parameter, not both."""
        with pytest.raises(InvalidInputError, match="'service_tier' beside the field"):
            await openai(server).invoke("hello", LLMConfig(service_tier="flex", extra={"service_tier": "auto"}))

        assert server.calls == []

    async def test_a_stream_asks_for_its_usage(self, server: WireServer) -> None:
        """Without that, the API sends none."""
        adapter = openai(server)

        async for _ in adapter.stream("hello"):
            pass
        await adapter.aclose()

        assert server.calls[-1].body["stream_options"] == {"include_usage": True}

    async def test_more_stop_sequences_than_the_api_takes(self, server: WireServer) -> None:
        """Five are refused before sending; a server of one's own may take them."""
        with pytest.raises(InvalidInputError, match="at most 4"):
            await openai(server).invoke("hello", LLMConfig(stop=("a", "b", "c", "d", "e")))

        assert server.calls == []


class TestCredentials:
    """The key is asked for at each call."""

    async def test_a_rotated_key_is_used_by_the_next_call(self, server: WireServer) -> None:
        """Without a new adapter; the old one is not sent again."""
        server._key = None
        for make in (claude, openai):
            keys = [Credential(planted("provider.second_key"), "2"), Credential(planted("provider.first_key"), "1")]
            adapter = make(server)
            adapter._api_key = keys.pop

            await adapter.invoke("hello")
            await adapter.invoke("hello")
            await adapter.aclose()

            sent_keys = [call.headers["authorization"] for call in server.calls[-2:]]
            assert sent_keys == [f"Bearer {planted(f'provider.{which}_key')}" for which in ("first", "second")]

    async def test_a_server_of_ones_own_needs_no_key(self) -> None:
        """No key is made up from the environment either."""
        async with WireServer(key=None) as server:
            adapter = OpenAIAdapter(api_key=None, base_url=server.openai_url, default_model="smollm2-135m")

            response = await adapter.invoke("hello")
            await adapter.aclose()

            assert response.content
            assert server.calls[-1].headers["authorization"] == "Bearer no-key"


def _optional() -> dict[str, Any]:
    return {"temperature": 0.5, "top_p": 0.9, "stop": ("END",), "seed": 7}


def _facts(model: str) -> Any:
    from app.skills.models import facts

    return facts("openai", model)
