"""The connections of one event loop: opened when they are needed, used last in, first out, never more than a limit.

redis-py connects and parses; everything that decides lies here, because its own pool retries by itself, opens TLS
contexts on the loop, and knows nothing of credentials that change.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from redis.asyncio import Connection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from app.credentials import Credential, CredentialSource, instead_of
from app.errors import StoreUnavailableError
from app.stores.redis.address import Address, parse_address, tls_context
from app.stores.redis.failures import MOVED_AWAY, error_code, explained, translated
from app.stores.redis.scripts import Script
from app.stores.redis.words import Packed, Word, packed

__all__ = ["ConnectionPool", "Progress"]

_REFUSED_CREDENTIAL: Final = ("NOAUTH", "WRONGPASS")


@dataclass(slots=True)
class Progress:
    """How far one verb has come; whoever runs out of patience reads it."""

    stage: Literal["queue", "connect", "answer"] = "queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """Where one version of the credential leads; the context of TLS is built once, since it reads files."""

    version: str
    address: Address
    context: ssl.SSLContext | None


class _Link(Connection):
    """A connection that knows the version of its credential."""

    def __init__(self, target: _Target) -> None:
        address = target.address
        super().__init__(
            host=address.host,
            port=address.port,
            db=address.database,
            username=address.username,
            password=address.password,
            # Version 2 needs no greeting, and every server speaks it: the first command is the first round trip.
            protocol=2,
            driver_info=None,
            # The verb as a whole has one deadline, see RedisConnection.
            socket_timeout=None,
            socket_connect_timeout=None,
        )
        self.version = target.version
        self._context = target.context

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._context}

    async def is_usable(self) -> bool:
        """Whether the server has neither closed the connection nor sent what nobody waits for; asks nobody."""
        return self._writer is not None and not self._writer.is_closing() and not await self.can_read()

    def drop(self) -> asyncio.StreamWriter | None:
        """Cut the connection at once, whatever is on its way; return what ends a moment later."""
        writer, self._reader, self._writer = self._writer, None, None
        self._parser.on_disconnect()
        if writer is not None:
            # Not close(): with TLS that would wait for a server which may be frozen.
            writer.transport.abort()
        return writer


class ConnectionPool:
    """Executes commands on connections of the running loop.

    Args:
        source: gives ``REDIS_URL``; asked for each command, so that no connection outlives its credential.
        unavailable: the store's class for "cannot be used now".
        size: the largest number of connections; further commands wait for one.
    """

    def __init__(self, source: CredentialSource, *, unavailable: type[StoreUnavailableError], size: int) -> None:
        self._source = source
        self._unavailable = unavailable
        self._slots = asyncio.Semaphore(size)
        self._idle: list[_Link] = []
        self._target: _Target | None = None
        self._closed = False

    @property
    def server(self) -> str:
        """The server's name, for an error."""
        return "Redis" if self._target is None else f"Redis at {str(self._target.address)!r}"

    def begun(self) -> Progress:
        """Return the progress of a verb that begins."""
        return Progress()

    async def evaluate(self, progress: Progress, script: Script, rest: tuple[Word, ...]) -> Any:
        """Run a script, and make it known to the server if it is not; errors as for :meth:`execute`.

        Args:
            progress: of the verb.
            script: the script.
            rest: how many keys there are, the keys, and the arguments.
        """
        try:
            return await self.execute(progress, _named(script.sha), *rest)
        except NoScriptError:
            # It did not run. EVAL runs it and makes it known, in one round trip.
            return await self.execute(progress, "EVAL", script.text, *rest)

    async def execute(self, progress: Progress, *command: Word) -> Any:
        """Send one command and return the answer.

        Raises:
            StoreUnavailableError: the server cannot be reached, or refuses; see the table in ``failures``.
            StoreDamagedError: a key holds what is not Nova's.
            ResponseError: NOSCRIPT, which is the caller's to answer.
        """
        async with self._slots:
            progress.stage = "connect"
            link, target = await self._checked_out()
            try:
                progress.stage = "answer"
                await link.send_packed_command(packed(command), check_health=False)
                answer = await link.read_response(disable_decoding=True)
            except ResponseError as error:
                # The server answered, so the connection is in order; no await before it is idle or cut.
                self._check_in(link, usable=error_code(error) not in MOVED_AWAY)
                if error_code(error) == "NOSCRIPT":
                    raise
                raise self._error(error, target, sent=True) from explained(error, target.address)
            except (RedisError, OSError) as error:
                self._check_in(link, usable=False)
                raise self._error(error, target, sent=True) from explained(error, target.address)
            except BaseException:
                # Cancelled while the answer was on its way: nobody else may read it.
                link.drop()
                raise
            self._check_in(link, usable=True)
            return answer

    async def close(self) -> None:
        """Cut what is idle now, and what is in use when it comes back."""
        self._closed = True
        ending = [writer for link in self._take_idle() if (writer := link.drop()) is not None]
        for writer in ending:
            # An aborted transport ends in the loop's next turn; a loop that ends before would leave its socket open.
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _checked_out(self) -> tuple[_Link, _Target]:
        """Return a connection in order: an idle one of the present credential, else a new one."""
        credential = self._source()
        target = await self._present(credential)
        while self._idle:
            link = self._idle.pop()
            if link.version == target.version and await link.is_usable():
                return link, target
            link.drop()
        try:
            return await self._opened(target), target
        except RedisError as error:
            another = await self._instead_of(credential) if error_code(error) in _REFUSED_CREDENTIAL else None
            if another is None:
                raise self._error(error, target, sent=False) from explained(error, target.address)
        # It was rotated, here or at the server first: once more with the newer one, or with the one before.
        target = await self._present(another)
        try:
            return await self._opened(target), target
        except RedisError as error:
            raise self._error(error, target, sent=False) from explained(error, target.address)

    async def _instead_of(self, refused: Credential) -> Credential | None:
        """Return another credential to try; None where there is none."""
        present = self._source()
        if present.version != refused.version:
            return present
        # In a thread: it may ask Vault.
        return await asyncio.to_thread(instead_of, self._source, refused)

    async def _opened(self, target: _Target) -> _Link:
        link = _Link(target)
        try:
            await link.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            link.drop()
            raise
        return link

    async def _present(self, credential: Credential) -> _Target:
        if self._target is None or self._target.version != credential.version:
            # In a thread: a context of TLS reads files.
            self._target = await asyncio.to_thread(_resolved, credential)
        return self._target

    def _check_in(self, link: _Link, *, usable: bool) -> None:
        if usable and not self._closed:
            self._idle.append(link)
            return
        link.drop()
        if not usable:
            # What broke one connection, or moved the primary, is true of the idle ones too.
            for other in self._take_idle():
                other.drop()

    def _take_idle(self) -> list[_Link]:
        taken, self._idle = self._idle, []
        return taken

    def _error(self, error: RedisError | OSError, target: _Target, *, sent: bool) -> Exception:
        return translated(error, address=target.address, unavailable=self._unavailable, sent=sent)


@lru_cache(maxsize=256)
def _named(sha: str) -> Packed:
    return Packed.of("EVALSHA", sha)


def _resolved(credential: Credential) -> _Target:
    address = parse_address(credential.reveal())
    return _Target(
        version=credential.version,
        address=address,
        context=None if address.tls is None else tls_context(address.tls),
    )
