"""What a conversation is made of: messages of blocks, in one vocabulary for all providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from app.errors import InvalidInputError

__all__ = [
    "CacheMark",
    "ContentBlock",
    "DocumentBlock",
    "ImageBlock",
    "ImageDetail",
    "Message",
    "Prompt",
    "ReasoningBlock",
    "Role",
    "TextBlock",
    "ToolResultBlock",
    "ToolUseBlock",
    "as_messages",
]

Role = Literal["system", "user", "assistant"]

CacheMark: TypeAlias = bool | Literal["5m", "1h"]
"""Whether the prompt up to here may be kept by the provider, and how long; True is as long as it keeps it by itself."""

ImageDetail = Literal["low", "high", "original"]


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Text. ``cache`` marks the end of a prefix that the provider may keep."""

    text: str
    cache: CacheMark = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBlock:
    """An image: ``data`` in base64, or a ``url``.

    Attributes:
        media_type: ``image/png``, ``image/jpeg``, ``image/gif`` or ``image/webp``; not looked at where a url is given.
        detail: how closely OpenAI looks at it; None is ``high``. Only ``original`` has no bound in tokens.
        cache: as of :class:`TextBlock`.
    """

    media_type: str
    data: str | None = None
    url: str | None = None
    detail: ImageDetail | None = None
    cache: CacheMark = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentBlock:
    """A document: ``data`` in base64, or a ``url``.

    Attributes:
        media_type: ``application/pdf`` or ``text/plain``.
        title: what the model is told that it is called.
        cache: as of :class:`TextBlock`.
    """

    media_type: str
    data: str | None = None
    url: str | None = None
    title: str | None = None
    cache: CacheMark = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUseBlock:
    """A call of a tool that the model asks for.

    Attributes:
        id: what the result is to be handed back under.
        arguments: empty where they are malformed.
        malformed: the arguments as the model wrote them, where they are not a JSON object; None where they are.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]
    malformed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResultBlock:
    """What a tool gave; it belongs into a message of the user, in front of any text."""

    tool_use_id: str
    content: str
    is_error: bool = False
    cache: CacheMark = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningBlock:
    """Reasoning that a model shows, to be handed back unchanged in the next turn.

    Attributes:
        text: what is shown of it, empty where nothing is.
        signature: the provider's proof that it is its own, or the reasoning itself as only the provider can read it.
        redacted: the provider shows nothing, and ``signature`` holds all there is.
    """

    text: str
    signature: str | None = None
    redacted: bool = False


ContentBlock: TypeAlias = TextBlock | ImageBlock | DocumentBlock | ToolUseBlock | ToolResultBlock | ReasoningBlock


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: Role
    content: str | Sequence[ContentBlock]

    @property
    def blocks(self) -> tuple[ContentBlock, ...]:
        """The content as blocks."""
        return (TextBlock(self.content),) if isinstance(self.content, str) else tuple(self.content)


Prompt: TypeAlias = str | Sequence[Message]


def as_messages(prompt: Prompt) -> tuple[Message, ...]:
    """Return a prompt as messages; a string is one turn of the user.

    Raises:
        InvalidInputError: it has no message, or none of its messages has content.
    """
    messages = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
    if not any(
        (isinstance(block, TextBlock) and block.text.strip()) or not isinstance(block, TextBlock)
        for message in messages
        for block in message.blocks
    ):
        raise InvalidInputError("the prompt is empty: give it some text")
    return messages
