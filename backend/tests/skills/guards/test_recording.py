"""What is kept under an idempotency key: a request's fingerprint, and a response byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from app.errors import InvalidInputError, StoreDamagedError
from app.skills.guards.recording import decode_response, encode_response, fingerprint
from app.skills.llm_invoke_v2 import (
    DocumentBlock,
    ImageBlock,
    LLMConfig,
    LLMResponse,
    LLMUsage,
    Message,
    Prompt,
    ReasoningBlock,
    TextBlock,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
)

texts = st.text(st.characters(), max_size=20)  # lone surrogates included: providers have sent halves of characters
marks = st.sampled_from([False, True, "5m", "1h"])
counts = st.none() | st.integers(0, 10**12)
arguments = st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts, max_size=3)
blocks = (
    st.builds(TextBlock, texts, marks)
    | st.builds(
        ImageBlock,
        media_type=texts,
        data=st.none() | texts,
        url=st.none() | texts,
        detail=st.sampled_from([None, "low", "high", "original"]),
        cache=marks,
    )
    | st.builds(DocumentBlock, media_type=texts, title=st.none() | texts, cache=marks)
    | st.builds(ToolUseBlock, id=texts, name=texts, arguments=arguments, malformed=st.none() | texts)
    | st.builds(ToolResultBlock, tool_use_id=texts, content=texts, is_error=st.booleans(), cache=marks)
    | st.builds(ReasoningBlock, text=texts, signature=st.none() | texts, redacted=st.booleans())
)
responses = st.builds(
    LLMResponse,
    content=texts,
    input_tokens=counts,
    output_tokens=counts,
    model=texts,
    finish_reason=texts,
    latency_ms=st.floats(0, 1e9),
    usage=st.none()
    | st.builds(
        LLMUsage,
        input_tokens=counts,
        output_tokens=counts,
        cache_read_tokens=counts,
        cache_write_5m_tokens=counts,
        cache_write_1h_tokens=counts,
        reasoning_tokens=counts,
        complete=st.booleans(),
        service_tier=st.none() | texts,
    ),
    cost=counts,
    price_version=st.none() | texts,
    provider=texts,
    request_id=st.none() | texts,
    blocks=st.lists(blocks, max_size=3).map(tuple),
    dropped_params=st.lists(texts, max_size=2).map(tuple),
    warnings=st.lists(texts, max_size=2).map(tuple),
    replayed=st.booleans(),
    metered=st.booleans(),
    hold_id=st.none() | texts,
    fallback_from=st.lists(texts, max_size=2).map(tuple),
)


@given(response=responses)
def test_a_response_comes_back_equal(response: LLMResponse) -> None:
    """Every field and block survives, to the last digit and surrogate; equal responses are equal bytes."""
    record = encode_response(response)

    assert decode_response(record) == response
    assert encode_response(decode_response(record)) == record


@pytest.mark.parametrize(
    "record", [b"", b"{}", b"[]", b"\xff", b"null", b'{"v":1}', b'{"v":1,"response":{}}', b'{"v":1,"response":[1]}']
)
def test_bytes_that_are_no_response_are_damage(record: bytes) -> None:
    """Something else under the key is said, not guessed at."""
    with pytest.raises(StoreDamagedError, match="is not a response"):
        decode_response(record)


def test_a_later_version_is_not_read() -> None:
    """A record of a newer Nova is refused with both versions."""
    with pytest.raises(StoreDamagedError, match="has the version 2, and this Nova reads version 1"):
        decode_response(json.dumps({"v": 2, "response": {}}).encode())


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_response_that_is_not_json_cannot_be_recorded(wrong: float) -> None:
    """What could not be read again is not written."""
    response = LLMResponse(
        content="", input_tokens=0, output_tokens=0, model="", finish_reason="stop", latency_ms=wrong
    )

    with pytest.raises(InvalidInputError, match="cannot be recorded"):
        encode_response(response)


SAME: list[tuple[Prompt, LLMConfig | None]] = [
    ("hi", None),
    ("hi", LLMConfig()),
    ("hi", LLMConfig(timeout_s=3)),
    ([Message("user", "hi")], None),
    ([Message("user", [TextBlock("hi")])], LLMConfig(max_tokens=1024)),
]
OTHERS: list[tuple[Prompt, LLMConfig | None]] = [
    ("hi!", None),
    ([Message("assistant", "hi")], None),
    ([Message("user", "h"), Message("user", "i")], None),
    ([Message("user", [TextBlock("h"), TextBlock("i")])], None),
    ([Message("user", [TextBlock("hi", cache=True)])], None),
    ("hi", LLMConfig(model="m")),
    ("hi", LLMConfig(max_tokens=1)),
    ("hi", LLMConfig(temperature=0.0)),
    ("hi", LLMConfig(top_p=0.5)),
    ("hi", LLMConfig(stop=("x",))),
    ("hi", LLMConfig(seed=0)),
    ("hi", LLMConfig(system="")),
    ("hi", LLMConfig(extra={"a": 1})),
    ("hi", LLMConfig(extra={"a": "1"})),
]


def test_the_same_request_has_the_same_fingerprint() -> None:
    """A default written out, another way to write one message, and another timeout ask for the same."""
    assert len({fingerprint(prompt, config) for prompt, config in SAME}) == 1


def test_every_other_request_has_another_fingerprint() -> None:
    """Whatever changes the answer changes the fingerprint."""
    assert len({fingerprint(prompt, config) for prompt, config in (*SAME, *OTHERS)}) == 1 + len(OTHERS)


def test_the_order_of_parameters_does_not_count() -> None:
    """Parameters are a set of names and values."""
    first = fingerprint("hi", LLMConfig(extra={"a": 1, "b": {"c": 1, "d": 2}}))
    second = fingerprint("hi", LLMConfig(extra={"b": {"d": 2, "c": 1}, "a": 1}))

    assert first == second


def test_fingerprints_do_not_change_between_releases() -> None:
    """A key that was begun by one release is known to the next; another way to compute needs another version."""
    assert fingerprint("hi", None) == "1:1e7d18d58cdf6f4f24b849eebf79eef3899d3c3b389f9ae5958dc44e9978f11b"


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_a_parameter_that_is_not_json_has_no_fingerprint(value: Any) -> None:
    """A request that cannot be compared cannot be made under a key, and says why before anything is sent."""
    with pytest.raises(InvalidInputError, match="must be JSON"):
        fingerprint("hi", LLMConfig(extra={"a": value}))


OF_ALL_KINDS = [
    Message(
        "user",
        [
            TextBlock("a", cache=True),
            ImageBlock(media_type="image/png", data="AA=="),
            DocumentBlock(media_type="application/pdf", url="https://x", title="t"),
            ToolResultBlock(tool_use_id="1", content="r"),
        ],
    ),
    Message(
        "assistant",
        [ReasoningBlock(text="t", signature="s"), ToolUseBlock(id="1", name="f", arguments={"a": [1]})],
    ),
]


@pytest.mark.parametrize(
    ("prompt", "config", "expected"),
    [
        ("hello", None, "1:82dafbc41938582af85fa0bf91acc47b2f2707b6c5bd52898efc038ea7df7c56"),
        (
            OF_ALL_KINDS,
            LLMConfig(model="m", temperature=0.5, stop=("a",), extra={"user": "u"}),
            "1:fef3aceabc72e053ebde5788356e88066438698e59f9906422c1a21c10609beb",
        ),
    ],
)
def test_fields_that_came_later_do_not_change_old_fingerprints(
    prompt: Prompt, config: LLMConfig | None, expected: str
) -> None:
    """What an earlier Nova recorded under a key is found by the same request; these were computed by one."""
    assert fingerprint(prompt, config) == expected


class Answer(BaseModel):
    """What an answer has to be."""

    good: bool


TOOL = Tool(name="look", description="Look.", parameters={"type": "object", "properties": {"at": {"type": "string"}}})
BASE = LLMConfig(tools=(TOOL,))


@pytest.mark.parametrize(
    "config",
    [
        LLMConfig(),
        LLMConfig(tools=(replace(TOOL, name="see"),)),
        LLMConfig(tools=(replace(TOOL, description="See."),)),
        LLMConfig(tools=(replace(TOOL, parameters={"type": "object"}),)),
        LLMConfig(tools=(replace(TOOL, strict=True),)),
        LLMConfig(tools=(TOOL, replace(TOOL, name="see"))),
        replace(BASE, tool_choice="required"),
        replace(BASE, parallel_tool_calls=False),
        replace(BASE, schema=Answer),
        replace(BASE, schema={"type": "object"}),
        replace(BASE, reasoning_effort="low"),
        replace(BASE, cache=True),
        replace(BASE, service_tier="flex"),
    ],
)
def test_whatever_changes_the_request_changes_the_fingerprint(config: LLMConfig) -> None:
    """Tools as they are described, the schema, and every field that is sent."""
    assert fingerprint("hello", config) != fingerprint("hello", BASE)


def test_the_function_behind_a_tool_is_not_part_of_the_request() -> None:
    """What the model is told is the same, so the key is the same; a model and its JSON schema are one request too."""

    async def look(at: str) -> str:
        return at

    assert fingerprint("hello", LLMConfig(tools=(replace(TOOL, function=look),))) == fingerprint("hello", BASE)
    assert fingerprint("hello", LLMConfig(schema=Answer)) == fingerprint(
        "hello", LLMConfig(schema=Answer.model_json_schema())
    )


def test_an_object_is_made_of_the_record_by_the_schema_of_the_caller() -> None:
    """It is not recorded: what is read is validated anew."""
    response = LLMResponse(
        content='{"good": true}', input_tokens=1, output_tokens=1, model="m", finish_reason="stop", latency_ms=1.0
    ).read_as(Answer)

    record = encode_response(response)

    assert b"output_error" not in record
    assert decode_response(record).output is None
    assert decode_response(record, schema=Answer) == response
    assert decode_response(record, schema=Answer).output == Answer(good=True)
