"""Checkpoints in PostgreSQL and Neon: not in this version yet."""

from __future__ import annotations

from typing import NoReturn

from app.errors import ConfigurationError

__all__ = ["CheckpointStore"]


class CheckpointStore:
    """The name is promised; building one says what to use until it is there."""

    def __new__(cls, *_: object, **__: object) -> NoReturn:
        """Refuse.

        Raises:
            ConfigurationError: always, in this version.
        """
        raise ConfigurationError(
            "checkpoints on PostgreSQL are not in this version of Nova yet; use CHECKPOINT_STORE=sqlite or memory",
            variable="CHECKPOINT_STORE",
        )
