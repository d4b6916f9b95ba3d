"""Everything that a tenant's budget on Redis keeps, read in portions and yet of one moment, for the audit.

Where little is kept one script gives all of it. Else the server notes in a journal what changes from then on; holds,
entries and counters are read by portions; and what the journal names is read again until a portion of it is not full.
At that moment what was read is what is kept: whatever had not changed since it was read is still so, and whatever had
was in the journal. No script takes longer than its portion does, however much there is.
"""

from __future__ import annotations

from typing import Final

from app.errors import BudgetStoreUnavailableError
from app.stores.budget import ledger, redis_book
from app.stores.budget.contract import AuditReport
from app.stores.budget.ledger import CounterKey
from app.stores.budget.redis_book import RedisBook, budget_script
from app.stores.budget.redis_rows import counter_of, counters_of, entry_of, field_key, hold_of
from app.stores.budget.rules import Counter
from app.stores.clock import from_ms

__all__ = ["Audited", "audited"]

_TRIES: Final = 5
_AUDIT: Final = budget_script("audit")


class Audited:
    """What was read of a tenant; a later portion replaces what an earlier one gave.

    Attributes:
        repairs: how often the tenant's counters had been repaired until then.
    """

    def __init__(self, tenant_id: str) -> None:
        self.repairs = "0"
        self._tenant_id = tenant_id
        self._now_ms = 0
        self._holds: dict[str, str] = {}
        self._entries: dict[str, str] = {}
        self._book: dict[str, str] = {}
        self._ended: dict[str, str] = {}

    def take(self, answer: list[str]) -> str:
        """Take a portion in, and return what comes next."""
        now_ms, self.repairs, following, *triples = answer
        self._now_ms = int(now_ms)
        kept = {"h": self._holds, "e": self._entries, "c": self._book, "w": self._ended}
        for kind, name, value in zip(triples[::3], triples[1::3], triples[2::3], strict=True):
            if value:
                kept[kind][name] = value
            else:
                kept[kind].pop(name, None)
        return following

    def report(self) -> AuditReport:
        """Recompute every counter."""
        counters: dict[CounterKey, Counter] = {
            field_key(field): counter_of(packed) for field, packed in self._ended.items()
        }
        for scope, packed in self._book.items():
            counters |= counters_of(scope, packed)
        holds = (hold_of(self._tenant_id, hold_id, packed) for hold_id, packed in self._holds.items())
        entries = (entry_of(name[1:], packed) for name, packed in self._entries.items())
        return ledger.audit(counters, holds, entries, now=from_ms(self._now_ms))


async def audited(book: RedisBook, tenant_id: str) -> Audited:
    """Read everything as it is at one moment.

    Raises:
        BudgetStoreUnavailableError: a minute passed between two portions, again and again.
    """
    for _ in range(_TRIES):
        kept = Audited(tenant_id)
        if await _read(book, tenant_id, kept):
            return kept
    raise BudgetStoreUnavailableError(
        f"the audit of tenant {tenant_id!r} was interrupted {_TRIES} times by pauses of more than a minute; nothing "
        "was changed. Try again when this program and the server have less to do"
    )


async def _read(book: RedisBook, tenant_id: str, kept: Audited) -> bool:
    """Read everything; False where the journal was closed meanwhile."""
    last = kept.take(await book.texts(_AUDIT, tenant_id, "begin", "", redis_book.LOOKED_AT))
    if last == "whole":
        return True
    for phase, first in (("holds", ""), ("entries", "0"), ("book", "0"), ("ended", "0"), ("changes", last)):
        cursor = kept.take(await book.texts(_AUDIT, tenant_id, phase, first, redis_book.LOOKED_AT))
        while cursor and cursor != "lapsed":
            cursor = kept.take(await book.texts(_AUDIT, tenant_id, phase, cursor, redis_book.LOOKED_AT))
        if cursor:
            return False
    return True
