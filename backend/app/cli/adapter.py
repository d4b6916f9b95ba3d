"""The guarded adapter of a command, closed behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.cli.session import Session
    from app.skills.llm_invoke_v2 import LLMAdapter

__all__ = ["guarded_adapter"]


@asynccontextmanager
async def guarded_adapter(session: Session, *, adapter_id: str | None = None) -> AsyncIterator[LLMAdapter]:
    """Yield the guarded chain over the session's stores and prices.

    Args:
        adapter_id: in place of the adapter that the settings choose.
    """
    from app.skills.adapters import close_adapters
    from app.skills.guards import get_guarded_adapter
    from app.skills.pricing import get_price_book
    from app.stores import get_idempotency_store

    settings = session.settings if adapter_id is None else session.settings.with_changes(llm_adapter=adapter_id)
    try:
        yield get_guarded_adapter(
            settings=settings,
            budget_store=session.budget(),
            idempotency_store=get_idempotency_store(session.settings),
            prices=get_price_book(session.settings),
        )
    finally:
        await close_adapters()
