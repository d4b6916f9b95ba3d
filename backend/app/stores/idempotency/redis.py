"""Idempotency in Redis, Valkey and Upstash: not in this version yet."""

from __future__ import annotations

from typing import NoReturn

from app.errors import ConfigurationError

__all__ = ["RedisIdempotencyStore"]


class RedisIdempotencyStore:
    """The name is promised; building one says what to use until it is there."""

    def __new__(cls, *_: object, **__: object) -> NoReturn:
        """Refuse.

        Raises:
            ConfigurationError: always, in this version.
        """
        raise ConfigurationError(
            "idempotency on Redis is not in this version of Nova yet; use IDEMPOTENCY_STORE=sqlite or memory",
            variable="IDEMPOTENCY_STORE",
        )
