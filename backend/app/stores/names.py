"""The rules for names that become part of a key: tenants, runs, steps, scopes, holds, idempotency keys."""

from __future__ import annotations

from typing import Final

from app.errors import InvalidInputError

__all__ = ["DEFAULT_TENANT", "MAX_NAME_BYTES", "check_name"]

DEFAULT_TENANT: Final = "default"
MAX_NAME_BYTES: Final = 512


def check_name(name: str, *, what: str) -> str:
    """Return ``name`` if it can be part of a key: 1 to 512 bytes of UTF-8, every character printable.

    Raises:
        InvalidInputError: it is not a str, empty, too long, or has a control character or a lone surrogate.
    """
    if not isinstance(name, str):
        raise InvalidInputError(f"{what} must be a str, not {type(name).__name__}")
    if not name:
        raise InvalidInputError(f"{what} is empty")
    if len(name) > MAX_NAME_BYTES:
        raise InvalidInputError(f"{what} has {len(name)} characters; at most {MAX_NAME_BYTES} bytes are taken")
    if not name.isprintable():
        raise InvalidInputError(f"{what} has a character that cannot be printed: {name[:40]!r}")
    if not name.isascii() and len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidInputError(f"{what} has {len(name.encode())} bytes; at most {MAX_NAME_BYTES} are taken")
    return name
