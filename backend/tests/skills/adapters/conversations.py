"""Calls of every shape, for property tests: conversations with all kinds of content, and configs with all fields."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from app.skills.llm_invoke_v2 import (
    CacheMark,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    LLMConfig,
    Message,
    ReasoningBlock,
    TextBlock,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
)

__all__ = ["MODELS", "configs", "conversations"]

MODELS = {
    "openai": (
        *(
            "gpt-3.5-turbo",
            "gpt-4",
            "gpt-4-turbo",
            "gpt-4-32k",
            "gpt-4o",
            "gpt-4o-2024-05-13",
            "gpt-4o-mini",
            "gpt-4.1",
        ),
        *("o1", "o3", "o3-mini", "o4-mini", "gpt-5", "gpt-5-pro", "gpt-5-chat-latest", "gpt-5.1", "gpt-5.1-codex"),
        *("gpt-5.2", "gpt-5.2-pro", "gpt-5.3-chat-latest", "gpt-5.4", "gpt-5.4-mini", "gpt-5.5", "gpt-5.6-sol"),
        *("gpt-6-sol", "gpt-6.1-terra", "gpt-9-unknown", "smollm2-135m", "gpt-oss-20b"),
    ),
    "claude": (
        *("claude-2.1", "claude-3-haiku", "claude-3-5-haiku-latest", "claude-3-7-sonnet-latest", "claude-sonnet-4"),
        *("claude-opus-4-1", "claude-sonnet-4-5", "claude-opus-4-5", "claude-opus-4-6", "claude-sonnet-4-6"),
        *("claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-sonnet-5", "claude-opus-5-5"),
        *("claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-2", "claude-mythos-5-2"),
    ),
}
"""At least one of each family."""


class Leaf(BaseModel):
    """A part of a structured answer."""

    name: str
    count: int = 0


class Tree(BaseModel):
    """A structured answer that contains itself."""

    leaf: Leaf
    children: list[Tree] = []
    note: str | None = None


_CLOSED = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}
_OPEN = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 9}}
_UNION = {
    "type": "object",
    "properties": {"x": {"oneOf": [{"type": "string", "default": "a"}, {"$ref": "#/$defs/n"}]}},
    "$defs": {"n": {"type": "number", "multipleOf": 2}},
}
SCHEMAS: tuple[Any, ...] = (Leaf, Tree, _CLOSED, _OPEN, _UNION)

_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
_marks: st.SearchStrategy[CacheMark] = st.sampled_from([False, True, "5m", "1h"])
_text_blocks = st.builds(TextBlock, _texts, _marks)
_images = st.builds(
    ImageBlock,
    media_type=st.sampled_from(["image/png", "image/jpeg", "image/gif", "image/webp"]),
    data=st.just("iVBORw0KGgo="),
    detail=st.sampled_from([None, "low", "high", "original"]),
    cache=_marks,
) | st.just(ImageBlock(media_type="image/png", url="https://example.com/x.png"))
_documents = st.builds(
    DocumentBlock,
    media_type=st.sampled_from(["application/pdf", "text/plain"]),
    data=st.just("JVBERi0xLjQ="),
    title=st.none() | _texts,
    cache=_marks,
) | st.just(DocumentBlock(media_type="application/pdf", url="https://example.com/x.pdf"))
_reasoning = st.builds(ReasoningBlock, text=_texts, signature=st.none() | st.just("c2ln")) | st.just(
    ReasoningBlock(text="", signature="c2ln", redacted=True)
)
_arguments = st.dictionaries(st.sampled_from(["city", "n"]), st.integers() | _texts | st.none(), max_size=2)

_TOOLS = (
    Tool(name="look", description="Look it up.", parameters=_CLOSED),
    Tool(name="add-1", parameters={"type": "object", "properties": {}}),
    Tool(name="strict_one", description="Held.", parameters=_CLOSED, strict=True),
    Tool(name="open_one", parameters=_OPEN),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Draw a conversation: turns of every kind, with a result for each call of a tool."""
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(Message("system", draw(_texts | st.lists(_text_blocks, min_size=1, max_size=2))))
    for _ in range(draw(st.integers(0, 2))):
        messages.append(Message("user", draw(_user_content())))
        messages += draw(_answers())
    messages.append(Message("user", draw(_user_content())))
    return messages


def _user_content() -> st.SearchStrategy[str | list[ContentBlock]]:
    # Text comes first half of the time, so that what only some models read does not refuse nearly every example.
    blocks: st.SearchStrategy[ContentBlock] = st.one_of(_text_blocks, _text_blocks, _text_blocks, _images, _documents)
    return _texts | st.lists(blocks, min_size=1, max_size=3)


@st.composite
def _answers(draw: st.DrawFn) -> list[Message]:
    """Draw an answer of the model; where it calls tools, with the turn that has their results."""
    if draw(st.booleans()):
        return [Message("assistant", draw(_texts))]
    blocks: list[ContentBlock] = draw(st.lists(_reasoning, max_size=1))
    blocks += draw(st.lists(_text_blocks, min_size=1, max_size=1))
    names = draw(st.lists(st.sampled_from([tool.name for tool in _TOOLS]), max_size=2))
    calls = [
        ToolUseBlock(
            id=f"call_{draw(st.uuids())}",
            name=name,
            arguments=draw(_arguments),
            malformed=draw(st.none() | st.just('{"cut')),
        )
        for name in names
    ]
    answer = Message("assistant", [*blocks, *calls])
    if not calls:
        return [answer]
    results: list[ContentBlock] = [
        ToolResultBlock(tool_use_id=call.id, content=draw(_texts), is_error=draw(st.booleans()), cache=draw(_marks))
        for call in calls
    ]
    return [answer, Message("user", draw(st.permutations([*results, *draw(st.lists(_text_blocks, max_size=1))])))]


@st.composite
def configs(draw: st.DrawFn) -> LLMConfig:
    """Draw a config that sets any of its fields."""
    tools = tuple(draw(st.lists(st.sampled_from(_TOOLS), unique_by=lambda tool: tool.name)))
    choices = [None, None, "auto", "required", "none", *(tool.name for tool in tools)] if tools else [None]
    return LLMConfig(
        max_tokens=draw(st.sampled_from([1, 1024, 1025, 4096])),
        temperature=draw(st.none() | st.floats(0, 2)),
        top_p=draw(st.none() | st.floats(0.01, 1)),
        stop=tuple(draw(st.lists(_texts, max_size=5))),
        seed=draw(st.none() | st.integers(0, 9)),
        system=draw(st.none() | _texts),
        tools=tools,
        tool_choice=draw(st.sampled_from(choices)),
        parallel_tool_calls=draw(st.none() | st.booleans()),
        schema=draw(st.none() | st.sampled_from(SCHEMAS)),
        reasoning_effort=draw(
            st.sampled_from([None, None, "none", "minimal", "low", "medium", "high", "xhigh", "max"])
        ),
        cache=draw(_marks),
        service_tier=draw(st.sampled_from([None, "auto", "default", "flex", "priority", "fast"])),
    )
