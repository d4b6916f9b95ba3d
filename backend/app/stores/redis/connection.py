"""A Redis, Valkey or Upstash server as a store uses it: one script, one round trip, one deadline.

Nothing is repeated here except what certainly did nothing: a script that the server did not know yet, and a connection
that it refused for a credential which has changed since. Whether a verb may be repeated after a lost answer is for the
store's contract to say and for its caller to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from app.errors import ConfigurationError, StoreUnavailableError
from app.loops import LoopClients
from app.stores.redis.words import Packed, Word

if TYPE_CHECKING:
    from app.credentials import CredentialSource
    from app.stores.redis.pool import ConnectionPool, Progress
    from app.stores.redis.scripts import Script

__all__ = ["DEFAULT_POOL_SIZE", "DEFAULT_TIMEOUT_S", "RedisConnection"]

DEFAULT_POOL_SIZE: Final = 50
DEFAULT_TIMEOUT_S: Final = 5.0


class RedisConnection:
    """Runs scripts on one server, from any number of event loops one after another; opens nothing before it is used.

    Args:
        url: gives ``REDIS_URL``. It is asked for each script: a connection of an earlier version is not used again.
        unavailable: the class for "cannot be used now": the store's own.
        pool_size: the largest number of connections of one event loop; further verbs wait for one.
        timeout_s: the longest that one script may take in all, in seconds: waiting for a connection, opening it, and
            the answer.
    """

    def __init__(
        self,
        url: CredentialSource,
        *,
        unavailable: type[StoreUnavailableError],
        pool_size: int = DEFAULT_POOL_SIZE,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._url = url
        self._unavailable = unavailable
        self._pool_size = pool_size
        self._timeout_s = timeout_s
        self._pools: LoopClients[ConnectionPool] = LoopClients(self._build_pool)

    async def run(
        self, script: Script, keys: Sequence[Word], arguments: Sequence[Word], *, since: float | None = None
    ) -> Any:
        """Run a script and return what it returns: bytes, int, None, or a list of these.

        One round trip; two where the server does not know the script yet, as after a restart. If the caller is
        cancelled, or the answer is lost, the script may have taken effect all the same.

        Args:
            script: as :func:`~app.stores.redis.scripts.load_script` gave it.
            keys: every key that it touches, all of one tenant; the first may be several, packed.
            arguments: its ARGV.
            since: from when on the deadline counts, by the loop's clock; None for now.

        Raises:
            StoreUnavailableError: the store's class; the server cannot be reached, refuses, or is too slow. The text
                says whether anything can have been changed.
            StoreDamagedError: a key holds what is not Nova's.
            ConfigurationError: ``REDIS_URL`` cannot be read, or redis-py is not installed.
        """
        count = len(keys)
        if isinstance(keys[0], Packed):
            count += keys[0].count - 1
        return await self._within_deadline(
            lambda pool, progress: pool.evaluate(progress, script, (count, *keys, *arguments)), since
        )

    async def ask(self, *command: str) -> Any:
        """Send a command that changes nothing, such as INFO, and return the answer; errors as for :meth:`run`."""
        return await self._within_deadline(lambda pool, progress: pool.execute(progress, *command))

    async def close(self) -> None:
        """Close the connections of the running loop. A later script opens them again."""
        await self._pools.aclose()

    async def _within_deadline(
        self, work: Callable[[ConnectionPool, Progress], Awaitable[Any]], since: float | None = None
    ) -> Any:
        pool = await self._pools.get()
        progress = pool.begun()
        now = asyncio.get_running_loop().time()
        deadline = (now if since is None else since) + self._timeout_s
        if deadline <= now:
            raise self._unavailable(
                f"{pool.server} was busy with what was asked before for {self._timeout_s:g} s (NOVA_REDIS_TIMEOUT_S); "
                "nothing was sent. Look at what keeps the server, or make fewer calls at a time"
            )
        try:
            async with asyncio.timeout_at(deadline):
                return await work(pool, progress)
        except TimeoutError as error:
            raise self._unavailable(self._too_slow(pool, progress)) from error

    def _build_pool(self) -> ConnectionPool:
        try:
            from app.stores.redis.pool import ConnectionPool
        except ImportError as error:
            raise ConfigurationError("Redis needs the package redis: pip install 'nova-llm[redis]'") from error

        return ConnectionPool(self._url, unavailable=self._unavailable, size=self._pool_size)

    def _too_slow(self, pool: ConnectionPool, progress: Progress) -> str:
        if progress.stage == "queue":
            return (
                f"all {self._pool_size} connections to {pool.server} were in use for {self._timeout_s:g} s; nothing "
                "was sent. Raise NOVA_REDIS_POOL_SIZE, or make fewer calls at a time"
            )
        if progress.stage == "connect":
            return (
                f"{pool.server} cannot be reached: no connection within {self._timeout_s:g} s; nothing was sent. Check "
                "host and port in REDIS_URL, that the server runs, and whether it has TLS (rediss://) or not (redis://)"
            )
        return (
            f"{pool.server} did not answer within {self._timeout_s:g} s (NOVA_REDIS_TIMEOUT_S); whether it did what "
            "was asked is not known"
        )
