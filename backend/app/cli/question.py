"""What a question is asked with: pictures and schemas from files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.errors import InvalidInputError

if TYPE_CHECKING:
    from app.skills.llm_invoke_v2 import ImageBlock

__all__ = ["read_image", "read_schema"]

MAX_IMAGE_BYTES: Final = 20 * 1024 * 1024
"""OpenAI takes up to 20 MB of an image in a request, Anthropic 5: what is too large for a provider, it says itself."""

_KINDS: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def read_image(source: str) -> ImageBlock:
    """Return a picture from a file, told by how it begins, or by its url.

    Raises:
        InvalidInputError: it cannot be read, is too large, or is of a kind that no model reads.
    """
    from app.skills.llm_invoke_v2 import ImageBlock

    if source.startswith(("https://", "http://")):
        return ImageBlock(media_type="", url=source)
    data = _bytes_of(Path(source), most=MAX_IMAGE_BYTES)
    kind = next((kind for start, kind in _KINDS if data.startswith(start)), None)
    if kind is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise InvalidInputError(f"{source!r} is no picture that models read: use PNG, JPEG, GIF or WebP")
    return ImageBlock(media_type=kind, data=base64.b64encode(data).decode())


def read_schema(path: Path) -> dict[str, Any]:
    """Return a JSON schema from a file.

    Raises:
        InvalidInputError: it cannot be read, or is not a JSON object.
    """
    text = _bytes_of(path, most=1024 * 1024)
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"the schema in {str(path)!r} is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise InvalidInputError(f"the schema in {str(path)!r} is not a JSON object")
    return schema


def _bytes_of(path: Path, *, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise InvalidInputError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    if len(data) > most:
        raise InvalidInputError(f"{str(path)!r} is larger than {most // (1024 * 1024)} MB")
    return data
