"""The ids of what is under way, for every log line that is written meanwhile, by whatever logger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["current_ids", "log_ids"]

_ids: ContextVar[Mapping[str, str]] = ContextVar("nova_log_ids", default={})  # noqa: B039 - it is replaced, never changed


@contextmanager
def log_ids(**ids: str | None) -> Iterator[None]:
    """Add ids to the log lines of the block and of the tasks that it starts; None leaves one away."""
    token = _ids.set({**_ids.get(), **{name: value for name, value in ids.items() if value is not None}})
    try:
        yield
    finally:
        _ids.reset(token)


def current_ids() -> Mapping[str, str]:
    """Return the ids that are in force."""
    return _ids.get()
