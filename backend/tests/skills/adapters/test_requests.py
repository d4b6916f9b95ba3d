"""What is sent: the body of each wire format, and what is left away because a model rejects it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.credentials import Credential, fixed
from app.errors import InvalidInputError
from app.skills.adapters.claude_adapter import ClaudeAdapter
from app.skills.adapters.openai_adapter import OpenAIAdapter
from app.skills.llm_invoke_v2 import LLMAdapter, LLMConfig, Message, TextBlock
from tests.support.wire import WireServer

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
            keys = [Credential("sk-second-key-00002", "2"), Credential("sk-first-key-000001", "1")]
            adapter = make(server)
            adapter._api_key = keys.pop

            await adapter.invoke("hello")
            await adapter.invoke("hello")
            await adapter.aclose()

            sent_keys = [call.headers["authorization"] for call in server.calls[-2:]]
            assert sent_keys == ["Bearer sk-first-key-000001", "Bearer sk-second-key-00002"]

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
