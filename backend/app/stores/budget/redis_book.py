"""The scripts of the budget, and how they are asked: one round trip, more only while many leases have ended at once.

What several tasks reserve, settle, release and expire at one time goes in one script, each as if it were alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Any, Final

from app.errors import BudgetStoreUnavailableError
from app.stores.budget.redis_rows import damaged
from app.stores.clock import Clock
from app.stores.redis.batches import Batches
from app.stores.redis.connection import RedisConnection
from app.stores.redis.scripts import Script, key_name, load_script
from app.stores.redis.words import Packed, Word

if TYPE_CHECKING:
    from app.credentials import CredentialSource

__all__ = [
    "ALL_TENANTS",
    "CLEARED",
    "LOOKED_AT",
    "SWEPT",
    "SWEPT_AGAIN",
    "Answer",
    "RedisBook",
    "budget_script",
    "packed_words",
]

SWEPT: Final = 8
"""How many ended leases a verb writes down beside its own work: it keeps a script under a quarter of a millisecond."""

SWEPT_AGAIN: Final = 64
"""How many it writes down when it is asked again because there were more."""

CLEARED: Final = 8
"""How many closed holds, entries and old counters a ``reserve`` clears away: more than it adds, as a rule, so that
they never pile up."""

LOOKED_AT: Final = 500
"""How many holds, entries or counters one script reads for a list or an audit: about a millisecond."""

TOGETHER: Final = 32
"""How many verbs one script does at most: about half a millisecond."""

_KEYS: Final = (
    ("budget", "book"),
    ("budget", "agenda"),
    ("budget", "ids"),
    ("budget", "entries"),
    ("budget", "ended"),
    ("budget", "journal"),
)
"""In the order of the prelude."""

ALL_TENANTS: Final = "\n"
"""In whose book the stop of all tenants is; its keys lie in one slot too, and no tenant has a line feed in its name."""

Answer = tuple[str, int, str]
"""What happened, the time in ms, and the lines behind that, as one text."""


@dataclass(frozen=True, slots=True)
class _Verb:
    """What is done with one hold: ``words`` are the verb, how many arguments it has, and these."""

    hold_id: str
    words: tuple[Word, ...]
    swept: int = SWEPT


def budget_script(name: str, *parts: str) -> Script:
    """Return ``redis_scripts/<name>.lua`` behind the prelude that all of them share, and other parts that it needs."""
    body = load_script("budget", name)
    text = "\n".join([*(load_script("budget", part).text for part in ("prelude", *parts)), body.text])
    return Script(body.name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_VERBS: Final = budget_script("verbs", "counters", "rarely", "together", "reserve", "close")


@lru_cache(maxsize=1024)
def packed_words(*words: str | int) -> Packed:
    """Return arguments that most calls of a program share: their scopes, their lease."""
    return Packed.of(*words)


class RedisBook:
    """Asks one server.

    Args:
        url: gives ``REDIS_URL``.
        clock: the time, for tests; without it the server's.
        pool_size: the largest number of connections of one event loop.
        timeout_s: the longest that one script may take.
    """

    def __init__(self, url: CredentialSource, *, clock: Clock | None, pool_size: int, timeout_s: float) -> None:
        self._connection = RedisConnection(
            url, unavailable=BudgetStoreUnavailableError, pool_size=pool_size, timeout_s=timeout_s
        )
        self._clock = clock
        self._batches = Batches(self._run_verbs, largest=TOGETHER, within_s=timeout_s / 10)

    async def ask(self, script: Script, tenant_id: str, *arguments: Word, hold_id: str | None = None) -> Answer:
        """Run a script that first writes ended leases down, until none is left and it has done its own work."""
        keys, now, swept = _keys(tenant_id, hold_id), self._now(), SWEPT
        while True:
            answer = _read(await self._connection.run(script, keys, (now, swept, *arguments)))
            if answer[0] != "again":
                return answer
            now, swept = self._now(), SWEPT_AGAIN

    async def change(self, tenant_id: str, hold_id: str, *words: Word) -> Answer:
        """Reserve or close a hold, together with what other tasks ask of the tenant at this time.

        Args:
            tenant_id: whose budget.
            hold_id: the hold.
            words: ``reserve``, ``settle``, ``release`` or ``expire``, how many arguments it has, and these; see
                ``redis_scripts/verbs.lua``.
        """
        verb = _Verb(hold_id, words)
        answer = _read(await self._batches.ask(tenant_id, verb))
        while answer[0] in {"again", "alone"}:
            if answer[0] == "again":
                verb = replace(verb, swept=SWEPT_AGAIN)
                answer = _read(await self._batches.ask(tenant_id, verb))
            else:
                answer = _read((await self._run_verbs(tenant_id, (verb,)))[0])
        return answer

    async def _run_verbs(self, tenant_id: str, verbs: Sequence[_Verb], since: float | None = None) -> list[bytes]:
        keys, holds = _keys_of(tenant_id)
        count = len(verbs)
        answer: bytes = await self._connection.run(
            _VERBS,
            (keys, *[holds + verb.hold_id for verb in verbs]),
            (
                self._now(),
                max(verb.swept for verb in verbs),
                CLEARED + count - 1,
                *chain.from_iterable(verb.words for verb in verbs),
            ),
            since=since,
        )
        return [answer] if count == 1 else _apart(answer)

    async def run(self, script: Script, tenant_id: str, *arguments: Word, hold_id: str | None = None) -> Answer:
        """Run a script that answers with lines.

        Raises:
            StoreDamagedError: it met a value that it cannot read.
        """
        return _read(await self._connection.run(script, _keys(tenant_id, hold_id), (self._now(), *arguments)))

    async def texts(self, script: Script, tenant_id: str, *arguments: str | int) -> list[str]:
        """Run a script that answers with a list."""
        answer: list[Any] = await self._connection.run(script, _keys(tenant_id), (self._now(), *arguments))
        return [each.decode() for each in answer]

    async def close(self) -> None:
        """Let go of the connections of the running loop."""
        await self._connection.close()

    def _now(self) -> str | int:
        return "" if self._clock is None else self._clock()


def _apart(answer: bytes) -> list[bytes]:
    """Return the answers of several verbs: behind the lengths of all, one after another."""
    lengths, _, rest = answer.partition(b"\n")
    ends = list(accumulate(map(int, lengths.split(b" "))))
    return [rest[start:end] for start, end in pairwise([0, *ends])]


def _read(answer: bytes) -> Answer:
    first, _, rest = answer.decode().partition("\n")
    what, _, now_ms = first.partition(" ")
    if what == "damaged":
        raise damaged(rest)
    return what, int(now_ms), rest


def _keys(tenant_id: str, hold_id: str | None = None) -> tuple[Packed] | tuple[Packed, str]:
    keys, holds = _keys_of(tenant_id)
    return (keys,) if hold_id is None else (keys, holds + hold_id)


@lru_cache(maxsize=256)
def _keys_of(tenant_id: str) -> tuple[Packed, str]:
    """Return the keys of a tenant, and what stands before the id in that of a hold."""
    return Packed.of(*(key_name(tenant_id, *parts) for parts in _KEYS)), key_name(tenant_id, "hold", "")
