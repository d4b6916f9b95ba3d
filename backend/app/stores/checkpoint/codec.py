r"""How a value becomes bytes: canonical JSON, compressed where that is smaller, with a version in front.

Canonical means sorted keys, no spaces, UTF-8, no NaN or infinity. A stored body is one byte of format and the payload:
``\x01`` canonical JSON as it is, ``\x02`` one zstd frame of it. Never pickle: reading a body runs nothing.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from app.errors import StateNotStorableError

if TYPE_CHECKING:
    import zstandard

__all__ = ["MAX_DEPTH", "MAX_VALUE_BYTES", "JsonValue", "canonical_json", "decode", "encode", "parse_json"]

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

MAX_VALUE_BYTES: Final = 16 * 1024 * 1024
"""The largest value, as canonical JSON."""

MAX_DEPTH: Final = 100
"""How deeply lists and objects may be nested."""


class _Extent(NamedTuple):
    """At least how many bytes a value has as JSON, and how many levels it has below it."""

    size_bytes: int
    height: int


_PLAIN: Final = b"\x01"
_ZSTD: Final = b"\x02"
_TRY_COMPRESSION_FROM: Final = 128
_ZSTD_LEVEL: Final = 3
_ENCODER: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DECODER: Final = json.JSONDecoder()
_SCALAR: Final = _Extent(1, 0)
_codecs = threading.local()
"""A compressor and a decompressor for each thread: none is safe for two, and making one takes longer than 2 KB do."""


def canonical_json(value: object, *, what: str = "the value") -> bytes:
    """Return the canonical JSON of a value.

    Raises:
        StateNotStorableError: it is not made of None, bool, int, finite float, str, list, tuple and dict with str keys;
            or it is larger than ``MAX_VALUE_BYTES``, or nested more than ``MAX_DEPTH`` deep.
    """
    _check(value, what=what, path="$", depth=0, known={})
    try:
        encoded = _ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        raise StateNotStorableError(f"{what} has text that is not valid Unicode (a lone surrogate)") from None
    except ValueError:
        # Python refuses to write and to read integers of more than 4,300 digits.
        raise StateNotStorableError(f"{what} has an integer of thousands of digits; store it as a str") from None
    if len(encoded) > MAX_VALUE_BYTES:
        raise _too_large(what, f"{len(encoded):,}")
    return encoded


def parse_json(canonical: bytes) -> JsonValue:
    """Return the value of canonical JSON."""
    # Said to be UTF-8: json.loads would look for UTF-16 and UTF-32 first.
    value: JsonValue = _DECODER.decode(canonical.decode())
    return value


def encode(canonical: bytes) -> bytes:
    """Return the stored body of canonical JSON."""
    if len(canonical) >= _TRY_COMPRESSION_FROM:
        packed = _compressor().compress(canonical)
        if len(packed) < len(canonical):
            return _ZSTD + packed
    return _PLAIN + canonical


def decode(body: bytes) -> bytes:
    """Return the canonical JSON of a stored body.

    Raises:
        ValueError: the body is damaged, or of a format that this version does not know.
    """
    form, payload = body[:1], body[1:]
    if form == _PLAIN:
        return payload
    if form == _ZSTD:
        import zstandard

        try:
            # Asked first: a damaged size would be allocated, whatever max_output_size says.
            if zstandard.frame_content_size(payload) > MAX_VALUE_BYTES:
                raise ValueError("a compressed body claims to be larger than any value")
            return _decompressor().decompress(payload, max_output_size=MAX_VALUE_BYTES)
        except zstandard.ZstdError as error:
            raise ValueError(f"a compressed body does not unpack: {error}") from error
    raise ValueError(f"a body of unknown format {form.hex() or 'empty'}")


def _compressor() -> zstandard.ZstdCompressor:
    import zstandard

    found: zstandard.ZstdCompressor | None = getattr(_codecs, "compressor", None)
    if found is None:
        found = _codecs.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    import zstandard

    found: zstandard.ZstdDecompressor | None = getattr(_codecs, "decompressor", None)
    if found is None:
        found = _codecs.decompressor = zstandard.ZstdDecompressor()
    return found


def _check(value: object, *, what: str, path: str, depth: int, known: dict[int, _Extent]) -> _Extent:
    """Refuse what JSON cannot express or what is too much, before any of it is written out.

    ``known`` has the lists and dicts that were looked at: a few that hold each other many times over are small in
    memory, and endless as JSON.
    """
    if depth > MAX_DEPTH:
        raise _too_deep(what)
    if isinstance(value, str):
        return _Extent(len(value) + 2, 0)
    if value is None or isinstance(value, int):  # a bool is one too
        return _SCALAR
    if isinstance(value, float):
        if not math.isfinite(value):
            raise StateNotStorableError(f"{what} has {value} at {path}, which JSON cannot express")
        return _SCALAR
    if (extent := known.get(id(value))) is not None:
        if depth + extent.height > MAX_DEPTH:
            raise _too_deep(what)
        return extent
    size_bytes, height = 2, 0
    for place, item in _items(value, what=what, path=path):
        below = _check(item, what=what, path=path + place, depth=depth + 1, known=known)
        size_bytes += below.size_bytes + 1
        height = max(height, below.height + 1)
        if size_bytes - 1 > MAX_VALUE_BYTES:
            raise _too_large(what, f"more than {MAX_VALUE_BYTES:,}")
    extent = known[id(value)] = _Extent(size_bytes, height)
    return extent


def _items(value: object, *, what: str, path: str) -> Iterator[tuple[str, object]]:
    """Yield what a list or dict holds, and where."""
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise StateNotStorableError(f"{what} has a key that is not a str at {path}: {key!r:.60}")
            yield f".{key:.40}", item
    else:
        raise StateNotStorableError(
            f"{what} has a {type(value).__name__} at {path}, which is not JSON. "
            "Return dicts, lists, strings, numbers, booleans or None"
        )


def _too_large(what: str, size: str) -> StateNotStorableError:
    return StateNotStorableError(
        f"{what} has {size} bytes as JSON; at most {MAX_VALUE_BYTES:,} are stored. "
        "Keep large data elsewhere and record where it lies"
    )


def _too_deep(what: str) -> StateNotStorableError:
    return StateNotStorableError(f"{what} is nested more than {MAX_DEPTH} deep")
