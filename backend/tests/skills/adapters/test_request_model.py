"""Every request that an adapter can produce is one that its provider takes, by the written model of its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from app.errors import InvalidInputError
from app.skills.adapters import claude_request, openai_request
from app.skills.llm_invoke_v2 import LLMConfig, Message
from app.skills.models import facts
from app.skills.pricing.bound import input_tokens_at_most
from tests.skills.adapters.conversations import MODELS, configs, conversations
from tests.support.wire import anthropic_schema, openai_schema

_VERSION = {"anthropic-version": "2026-10-21"}
"""What the SDK sends by itself."""


def faults(provider: str, model: str, prompt: list[Message], config: LLMConfig) -> Iterator[str]:
    """Encode a call, and yield what the provider would say against it."""
    known = facts(provider, model)
    if provider == "claude":
        request = claude_request.encode_request(tuple(prompt), config, model=model, facts=known)
        yield from anthropic_schema.faults_of(_sent(request.body), {**_VERSION, **request.headers})
    else:
        request = openai_request.encode_request(tuple(prompt), config, model=model, facts=known)
        for code, message in openai_schema.faults_of(_sent(request.body)):
            yield f"{code}: {message}"
    asked = {
        name
        for name in ("temperature", "top_p", "seed", "reasoning_effort", "service_tier", "parallel_tool_calls")
        if getattr(config, name) is not None
    }
    assert set(request.dropped) <= asked | {"stop"}, "only what was asked for can have been left away"


def _sent(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body as it arrives: by way of JSON."""
    sent: dict[str, Any] = json.loads(json.dumps(body))
    return sent


@pytest.mark.parametrize("provider", ["claude", "openai"])
@settings(max_examples=250)
@given(data=st.data())
def test_no_request_is_rejected(provider: str, data: st.DataObject) -> None:
    """Any conversation and config, to a model of any family: refused here with a reason, or taken there."""
    model = data.draw(st.sampled_from(MODELS[provider]))
    prompt, config = data.draw(conversations()), data.draw(configs())

    try:
        found = list(faults(provider, model, prompt, config))
    except InvalidInputError as error:
        event(f"refused here: {str(error)[:40]}")
        assume(False)
        raise

    assert found == []


@pytest.mark.parametrize("provider", ["claude", "openai"])
@settings(max_examples=100)
@given(data=st.data())
def test_what_is_sent_is_within_the_bound(provider: str, data: st.DataObject) -> None:
    """No text that a request carries is left out of the bound on its input, images and documents aside."""
    model = data.draw(st.sampled_from(MODELS[provider]))
    prompt, config = data.draw(conversations()), data.draw(configs())
    known = facts(provider, model)
    encode = claude_request.encode_request if provider == "claude" else openai_request.encode_request
    try:
        body = encode(tuple(prompt), config, model=model, facts=known).body
        bound = input_tokens_at_most(prompt, config, known)
    except Exception:  # refused, which is another test's subject
        assume(False)
        raise

    texts = sum(len(text.encode()) for text in _texts_in([body["messages"], body.get("system"), body.get("tools")]))
    assert texts <= bound


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield "" if value.startswith(("data:", "iVBOR", "JVBER", "https:")) else value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from () if name in {"type", "role", "mode", "detail", "cache_control"} else _texts_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts_in(part)


@pytest.mark.parametrize("provider", ["claude", "openai"])
def test_the_models_of_the_test_have_every_family(provider: str) -> None:
    """A family that is added to the table is added to the test."""
    from app.skills.model_table import FAMILIES

    tested = {facts(provider, model).family for model in MODELS[provider]}
    dead = {"claude-3", "claude-3-5", "claude-opus-4", "claude", "gpt-4-vision", "gpt-4-preview", "gpt-4.5"}
    dead |= {"o1-preview", "o1-mini", "gpt-5.4-pro", "gpt-5.5-pro", "codex", "gpt-audio", "gpt-rosalind"}

    assert {family.family for _, family in FAMILIES[provider]} - tested <= dead
