"""The tables: what each answer with an error means, for Claude and for OpenAI; and that no secret is in it."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.credentials import fixed
from app.errors import LLMError
from app.skills.adapters.claude_adapter import ClaudeAdapter
from app.skills.adapters.failures import address_of, parse_retry_after, redact
from app.skills.adapters.openai_adapter import OpenAIAdapter
from app.skills.llm_invoke_v2 import LLMAdapter, LLMConfig
from tests.support.planted import planted
from tests.support.searched.search import SEARCH
from tests.support.wire import Fault, WireServer

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    """A loopback server of both formats, of models with a small context."""
    async with WireServer(context_tokens=2000) as opened:
        yield opened


def adapter_of(name: str, server: WireServer, *, key: str | None = None) -> LLMAdapter:
    """Return an adapter at the server."""
    source = fixed(key or server.key)
    if name == "claude":
        return ClaudeAdapter(api_key=source, base_url=server.url, now=lambda: NOW)
    return OpenAIAdapter(api_key=source, base_url=server.openai_url, now=lambda: NOW)


async def error_of(adapter: LLMAdapter, prompt: str = "hello", config: LLMConfig | None = None) -> LLMError:
    """Make a call that fails, and return its error."""
    try:
        with pytest.raises(LLMError) as caught:
            await adapter.invoke(prompt, config)
    finally:
        await adapter.aclose()
    return caught.value


class TestTables:
    """Status, type and code become code, category, retryable and billed."""

    @pytest.mark.parametrize(
        ("fault", "code", "retryable", "billed"),
        [
            (Fault("status", status=400, error="invalid_request_error"), "INVALID_REQUEST", False, "no"),
            (Fault("status", status=401, error="authentication_error"), "AUTH_FAILED", False, "no"),
            (Fault("status", status=402, error="billing_error"), "PROVIDER_BUDGET", False, "no"),
            (Fault("status", status=403, error="permission_error"), "AUTH_FAILED", False, "no"),
            (Fault("status", status=404, error="not_found_error"), "INVALID_MODEL", False, "no"),
            (Fault("status", status=408, error="timeout_error"), "TIMEOUT", True, "unknown"),
            (Fault("status", status=409, error="conflict_error"), "CONFLICT", True, "no"),
            (Fault("status", status=413, error="request_too_large"), "INVALID_PROMPT", False, "no"),
            (Fault("status", status=429, error="rate_limit_error"), "RATE_LIMITED", True, "no"),
            (
                Fault("status", status=429, error="rate_limit_error", code="enforced_spend_limit_reached"),
                "PROVIDER_BUDGET",
                False,
                "no",
            ),
            (
                Fault("status", status=400, error="invalid_request_error", message="Your credit balance is too low"),
                "PROVIDER_BUDGET",
                False,
                "no",
            ),
            (
                Fault(
                    "status", status=400, error="invalid_request_error", message="Output blocked by content filtering"
                ),
                "CONTENT_BLOCKED",
                False,
                "no",
            ),
            (Fault("status", status=500, error="api_error"), "SERVER_ERROR", True, "unknown"),
            (Fault("status", status=503, error="something_new"), "SERVER_ERROR", True, "unknown"),
            (Fault("status", status=418, error="something_new"), "INVALID_REQUEST", False, "no"),
            (
                Fault("status", status=400, error="exceed_context_size_error", message="exceeds the context size"),
                "CONTEXT_TOO_LONG",
                False,
                "no",
            ),
            (Fault("status", status=504, error="timeout_error"), "TIMEOUT", True, "unknown"),
            (Fault("status", status=529, error="overloaded_error"), "OVERLOADED", True, "no"),
        ],
    )
    async def test_claude(self, server: WireServer, fault: Fault, code: str, retryable: bool, billed: str) -> None:  # noqa: FBT001  # parameters of the test
        """By the type within the body, else by the status; spending limits and filters by their words."""
        server.faults.append(fault)

        error = await error_of(adapter_of("claude", server))

        assert (error.code, error.retryable, error.billed) == (f"ERR_LLM_{code}", retryable, billed)
        assert (error.status, error.request_id) == (fault.status, "req_1")
        assert len(server.calls) == 1

    @pytest.mark.parametrize(
        ("fault", "code", "retryable", "billed"),
        [
            (Fault("status", status=400, code="invalid_value"), "INVALID_REQUEST", False, "no"),
            (Fault("status", status=400, code="context_length_exceeded"), "CONTEXT_TOO_LONG", False, "no"),
            (Fault("status", status=400, error="exceed_context_size_error"), "CONTEXT_TOO_LONG", False, "no"),
            (Fault("status", status=400, code="content_policy_violation"), "CONTENT_BLOCKED", False, "no"),
            (Fault("status", status=400, code="invalid_prompt"), "CONTENT_BLOCKED", False, "no"),
            (Fault("status", status=401, code="invalid_api_key"), "AUTH_FAILED", False, "no"),
            (Fault("status", status=403, code="x"), "AUTH_FAILED", False, "no"),
            (Fault("status", status=404, code="model_not_found"), "INVALID_MODEL", False, "no"),
            (Fault("status", status=409, code="x"), "CONFLICT", True, "no"),
            (Fault("status", status=413, code="x"), "INVALID_PROMPT", False, "no"),
            (Fault("status", status=422, code="x"), "INVALID_REQUEST", False, "no"),
            (Fault("status", status=429, code="rate_limit_exceeded"), "RATE_LIMITED", True, "no"),
            (Fault("status", status=429, code="insufficient_quota"), "PROVIDER_BUDGET", False, "no"),
            (Fault("status", status=500, code="server_error"), "SERVER_ERROR", True, "unknown"),
            (Fault("status", status=502, error="x"), "SERVER_ERROR", True, "unknown"),
            (Fault("status", status=503, error="x"), "SERVER_ERROR", True, "unknown"),
            (Fault("status", status=504, error="x"), "TIMEOUT", True, "unknown"),
        ],
    )
    async def test_openai(self, server: WireServer, fault: Fault, code: str, retryable: bool, billed: str) -> None:  # noqa: FBT001  # parameters of the test
        """By the code, else the type, else the status."""
        server.faults.append(fault)

        error = await error_of(adapter_of("openai", server))

        assert (error.code, error.retryable, error.billed) == (f"ERR_LLM_{code}", retryable, billed)
        assert (error.status, error.request_id) == (fault.status, "req_1")
        assert len(server.calls) == 1

    @pytest.mark.parametrize("name", ["claude", "openai"])
    async def test_what_the_servers_themselves_refuse(self, server: WireServer, name: str) -> None:
        """A wrong key, an unknown model and a prompt over the context are told apart."""
        wrong_key = await error_of(adapter_of(name, server, key=planted("provider.wrong_key")))
        no_model = await error_of(adapter_of(name, server), config=LLMConfig(model="unknown-model"))
        too_long = await error_of(adapter_of(name, server), "word " * 3000)

        assert wrong_key.code == "ERR_LLM_AUTH_FAILED"
        assert no_model.code == "ERR_LLM_INVALID_MODEL"
        assert too_long.code == "ERR_LLM_CONTEXT_TOO_LONG"
        assert {error.billed for error in (wrong_key, no_model, too_long)} == {"no"}
        assert "shorten the prompt" in str(too_long)

    @pytest.mark.parametrize("name", ["claude", "openai"])
    async def test_the_provider_may_say_itself_whether_to_retry(self, server: WireServer, name: str) -> None:
        """``x-should-retry: false`` on a rate limit wins over the table."""
        server.faults.append(Fault("status", status=429, headers={"x-should-retry": "false"}))

        error = await error_of(adapter_of(name, server))

        assert not error.retryable


class TestTransport:
    """Answers that are none."""

    @pytest.mark.parametrize("name", ["claude", "openai"])
    @pytest.mark.parametrize("status", [408, 499, 504])
    @pytest.mark.parametrize("kind", ["invalid_request_error", "rate_limit_error", "unheard_of"])
    async def test_who_gave_up_waiting(self, server: WireServer, name: str, status: int, kind: str) -> None:
        """The work may have been done, and billed, whatever the body says."""
        server.faults.append(Fault("status", status=status, error=kind, code=kind))

        error = await error_of(adapter_of(name, server))

        assert (error.code, error.billed, error.retryable) == ("ERR_LLM_TIMEOUT", "unknown", True)

    @pytest.mark.parametrize("name", ["claude", "openai"])
    @pytest.mark.parametrize("kind", ["html", "malformed"])
    async def test_a_body_that_cannot_be_read(self, server: WireServer, name: str, kind: Any) -> None:
        """A page of a proxy with status 200, and half a JSON: invalid, and perhaps billed."""
        server.faults.append(Fault(kind))

        error = await error_of(adapter_of(name, server))

        assert (error.code, error.billed) == ("ERR_LLM_INVALID_RESPONSE", "unknown")
        assert "proxy" in str(error)

    @pytest.mark.parametrize("name", ["claude", "openai"])
    @pytest.mark.parametrize(
        "body", [[], {}, {"choices": [], "content": None}, {"choices": [{}], "content": [5]}, {"choices": 5}, "text"]
    )
    async def test_json_of_another_shape(self, server: WireServer, name: str, body: object) -> None:
        """No AttributeError or KeyError reaches the caller."""
        server.faults.append(Fault("raw", body=body))

        error = await error_of(adapter_of(name, server))

        assert (error.code, error.billed) == ("ERR_LLM_INVALID_RESPONSE", "unknown")

    @pytest.mark.parametrize("name", ["claude", "openai"])
    async def test_half_a_body(self, server: WireServer, name: str) -> None:
        """A connection that breaks within the answer: nobody knows what is billed."""
        server.faults.append(Fault("disconnect_midway"))

        error = await error_of(adapter_of(name, server))

        assert (error.code, error.billed) == ("ERR_LLM_NETWORK", "unknown")

    @pytest.mark.parametrize("name", ["claude", "openai"])
    async def test_what_was_never_sent_is_not_billed(self, name: str) -> None:
        """Nobody listens: the one network error that is certainly free."""
        async with WireServer() as gone:
            adapter = adapter_of(name, gone)

        error = await error_of(adapter)

        assert (error.code, error.billed, error.retryable) == ("ERR_LLM_NETWORK", "no", True)


class TestSecrets:
    """No error shows a key."""

    KEY = planted("provider.echoed_key")

    @pytest.mark.parametrize("name", ["claude", "openai"])
    async def test_a_password_in_the_base_url(self, name: str) -> None:
        """Of the address that cannot be reached, the error shows scheme, host and port."""
        async with WireServer() as gone:
            host = gone.url.removeprefix("http://")
        password, parameter = planted("provider.url_password"), planted("provider.url_parameter")
        SEARCH.give([password, parameter])
        url = f"http://me:{password}@{host}/v1?key={parameter}"
        adapter = (ClaudeAdapter if name == "claude" else OpenAIAdapter)(api_key=fixed("k-1"), base_url=url)

        error = await error_of(adapter)

        shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
        assert error.code == "ERR_LLM_NETWORK"
        assert f"http://{host} failed" in str(error)
        assert password not in shown
        assert parameter not in shown

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("https://me:secret@host/v1?key=secret#secret", "https://host"),
            ("http://[::1]:8080/v1", "http://[::1]:8080"),
            ("http://secret@host:1/v1", "http://host:1"),
        ],
    )
    def test_what_is_shown_of_a_base_url(self, url: str, shown: str) -> None:
        """Scheme, host and port; where a text has a whole URL in it, the part before the host is taken out."""
        assert address_of(url) == shown
        assert "secret@" not in redact(f"cannot reach {url}")

    @pytest.mark.parametrize("name", ["claude", "openai"])
    @pytest.mark.parametrize(
        "message", ["Incorrect API key provided: {key}.", "header was Bearer {key}", "sk-very-s***3456 is not valid"]
    )
    async def test_a_provider_that_echoes_the_key(self, server: WireServer, name: str, message: str) -> None:
        """Neither the text, nor the traceback with its causes, nor ``repr`` has it."""
        server._key = None
        server.faults.append(Fault("status", status=401, error="x", message=message.format(key=self.KEY)))

        error = await error_of(adapter_of(name, server, key=self.KEY))

        shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
        assert self.KEY not in shown
        assert "sk-very" not in shown
        assert "[redacted]" in str(error)

    @pytest.mark.parametrize("name", ["claude", "openai"])
    async def test_a_key_that_looks_like_a_word(self, server: WireServer, name: str) -> None:
        """The key itself is known, whatever form it has."""
        word = planted("provider.wordlike_key")
        server._key = None
        server.faults.append(Fault("status", status=401, error="x", message=f"no account for {word} today"))

        error = await error_of(adapter_of(name, server, key=word))

        assert word not in "".join(traceback.format_exception(error))

    @pytest.mark.parametrize("name", ["claude", "openai"])
    @pytest.mark.parametrize("key", ["{}\n", "{} secret", "{}s\u00e9cret"])
    async def test_a_key_that_cannot_be_sent(self, server: WireServer, name: str, key: str) -> None:
        """The client's own error would show it; ours says what is wrong, and nothing was sent."""
        error = await error_of(adapter_of(name, server, key=key.format(self.KEY)))

        shown = "".join(traceback.format_exception(error))
        assert (error.code, error.billed) == ("ERR_LLM_AUTH_FAILED", "no")
        assert "sk-very" not in shown
        assert server.calls == []

    def test_ordinary_words_stay(self) -> None:
        """A message about keys is not blackened as a whole."""
        text = "check your API key and the bearer token, then ask-again for disk-space"

        assert redact(text) == text

    @pytest.mark.parametrize(
        "text",
        [
            "x-api-key: abc123def456",
            "Authorization: Bearer eyJ0-abc_123",
            "api_key='sk-abc-123456'",
            "sk-proj-Abc_12-3",
        ],
    )
    def test_whatever_looks_like_a_key_goes(self, text: str) -> None:
        """Also keys of somebody else, such as a proxy's."""
        shown = redact(text)

        assert "[redacted]" in shown
        assert not any(part in shown for part in ("abc123", "eyJ0", "sk-abc", "sk-proj"))


class TestRetryAfter:
    """How long the provider asks to wait."""

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({}, None),
            ({"retry-after": "7"}, timedelta(seconds=7)),
            ({"retry-after": "0.5"}, timedelta(seconds=0.5)),
            ({"retry-after-ms": "1500", "retry-after": "9"}, timedelta(seconds=1.5)),
            ({"retry-after": "Tue, 24 Nov 2026 12:00:30 GMT"}, timedelta(seconds=30)),
            ({"retry-after": "Tue, 24 Nov 2026 11:00:00 GMT"}, timedelta(0)),
            ({"retry-after": "-3"}, timedelta(0)),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "nan"}, None),
            ({"retry-after": "inf"}, None),
            ({"retry-after": "1e300"}, timedelta(days=365)),
            ({"retry-after-ms": "x", "retry-after": "2"}, timedelta(seconds=2)),
        ],
    )
    def test_forms(self, headers: dict[str, str], expected: timedelta | None) -> None:
        """Milliseconds before seconds or a date; never negative; None for what cannot be read."""
        assert parse_retry_after(headers, now=NOW) == expected

    @pytest.mark.parametrize("name", ["claude", "openai"])
    async def test_it_is_on_the_error(self, server: WireServer, name: str) -> None:
        """As a date, by the clock that was passed in."""
        date = "Tue, 24 Nov 2026 12:01:00 GMT"
        server.faults.append(Fault("status", status=429, headers={"retry-after": date}))

        error = await error_of(adapter_of(name, server))

        assert error.retry_after == timedelta(minutes=1)
