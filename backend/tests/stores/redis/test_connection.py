"""A connection to a real server: one round trip per script, several loops, TLS, credentials that change, faults."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import ssl
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from app.credentials import Credential, fixed
from app.errors import BudgetStoreUnavailableError, ConfigurationError, StoreDamagedError
from app.stores.redis.connection import RedisConnection
from app.stores.redis.scripts import Script
from tests.support.planted import planted
from tests.support.servers.process import free_port
from tests.support.servers.proxy import FaultProxy
from tests.support.servers.valkey import ValkeyServer

PASSWORD = planted("redis.password")
BOUND_S = 10.0
"""Far more than any script may need."""


def script(text: str) -> Script:
    """Return a script of a test."""
    return Script("test", text, hashlib.sha1(text.encode()).hexdigest())


COUNT = script("return redis.call('INCR', KEYS[1])")
ECHO = script("return {KEYS[1], ARGV[1], ARGV[2], 7, false}")


def connect(url: str, *, timeout_s: float = 5.0, pool_size: int = 50) -> RedisConnection:
    """Return a connection with the budget store's error."""
    return RedisConnection(
        fixed(url), unavailable=BudgetStoreUnavailableError, timeout_s=timeout_s, pool_size=pool_size
    )


def through(proxy: FaultProxy) -> str:
    """Return the address of a proxy."""
    return f"redis://127.0.0.1:{proxy.port}/0"


@pytest.fixture
async def connection(valkey: ValkeyServer) -> AsyncIterator[RedisConnection]:
    """Give a connection to an empty server."""
    connection = connect(valkey.url)
    yield connection
    await connection.close()


class Source:
    """A credential that a test rotates."""

    def __init__(self, url: str) -> None:
        self.present = Credential(url, "1")
        self.asked = 0

    def rotate(self, url: str) -> None:
        """Make another URL the present one."""
        self.present = Credential(url, str(int(self.present.version) + 1))

    def __call__(self) -> Credential:
        """Give the present credential."""
        self.asked += 1
        return self.present


class TestRunning:
    """What a script gets and gives."""

    async def test_keys_and_arguments_arrive_as_they_are(self, connection: RedisConnection) -> None:
        """Text as UTF-8, numbers as digits, bytes untouched; back come bytes, int and None."""
        answer = await connection.run(ECHO, ["nova:{ü}:k"], [2**53, b"\x00\xff"])

        assert answer == ["nova:{ü}:k".encode(), b"9007199254740992", b"\x00\xff", 7, None]

    async def test_a_script_is_one_round_trip_once_it_is_known(self, valkey: ValkeyServer) -> None:
        """The first run of a server's life takes two, every further one a single answer."""
        async with FaultProxy(valkey.port) as proxy:
            connection = connect(through(proxy))
            fresh = script(f"return 'unknown so far {free_port()}'")
            answers = []
            for _ in range(3):
                before = proxy.answers
                await connection.run(fresh, ["k"], [])
                answers.append(proxy.answers - before)
            await connection.close()

        assert answers == [2, 1, 1]

    async def test_a_server_that_forgot_its_scripts_is_given_them_again(self, valkey: ValkeyServer) -> None:
        """After SCRIPT FLUSH, or a restart, the script runs once and is known again."""
        connection = connect(valkey.url)
        await connection.run(COUNT, ["k"], [])
        await connection.run(script("return redis.call('SET', KEYS[1], 0)"), ["k"], [])
        reader, writer = await asyncio.open_connection("127.0.0.1", valkey.port)
        writer.write(b"SCRIPT FLUSH\r\n")
        await reader.readline()
        writer.close()

        counted = [await connection.run(COUNT, ["k"], []) for _ in range(2)]
        await connection.close()

        assert counted == [1, 2]

    async def test_concurrent_scripts_wait_for_a_connection(self, valkey: ValkeyServer) -> None:
        """No more connections than the pool holds, and every script gets its own answer."""
        async with FaultProxy(valkey.port) as proxy:
            connection = connect(through(proxy), pool_size=3)

            counted = await asyncio.gather(*(connection.run(COUNT, ["k"], []) for _ in range(60)))
            accepted = proxy.accepted
            await connection.close()

        assert sorted(counted) == list(range(1, 61))
        assert accepted == 3

    async def test_a_cancelled_script_leaves_no_answer_to_the_next_one(self) -> None:
        """A connection whose answer is still on its way is not used again, and its place in the pool is free."""
        with await asyncio.to_thread(ValkeyServer, durable=False) as server:
            connection = connect(server.url, pool_size=1)
            await connection.run(ECHO, ["warm"], ["", ""])
            await connection.run(COUNT, ["a"], [])
            server.freeze()
            running = asyncio.ensure_future(connection.run(ECHO, ["stale"], ["", ""]))
            for _ in range(20):
                await asyncio.sleep(0)  # it has sent its command, and waits
            running.cancel()
            await asyncio.wait([running])
            server.thaw()

            counted = await connection.run(COUNT, ["a"], [])
            await connection.close()

        assert counted == 2


class TestLoops:
    """Several event loops, one after another."""

    def test_each_loop_has_its_connections_and_leaves_none(self, valkey: ValkeyServer) -> None:
        """One connection object serves three loops; nobody closes it, nothing warns, no loop hangs at its end."""
        connection = connect(valkey.url)

        async def several() -> list[Any]:
            return await asyncio.gather(*(connection.run(COUNT, ["k"], []) for _ in range(5)))

        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            counted = [sorted(asyncio.run(several())) for _ in range(3)]
            gc.collect()

        assert counted == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15]]
        assert [str(warning.message) for warning in warned] == []

    def test_a_loop_that_ends_with_a_script_on_its_way_does_not_hang(self) -> None:
        """A frozen server does not keep ``asyncio.run`` from ending."""
        code = """
import asyncio, hashlib, sys
from app.credentials import fixed
from app.errors import BudgetStoreUnavailableError
from app.stores.redis.connection import RedisConnection
from app.stores.redis.scripts import Script

async def main():
    connection = RedisConnection(fixed(sys.argv[1]), unavailable=BudgetStoreUnavailableError, timeout_s=60)
    running = asyncio.ensure_future(connection.run(Script("t", "return 1", "0" * 40), ["k"], []))
    await asyncio.sleep(0.3)

asyncio.run(main())
print("ended")
"""
        with ValkeyServer(durable=False) as server:
            server.freeze()
            command = [sys.executable, "-W", "error", "-c", code, server.url]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

        assert (ran.stdout, ran.stderr) == ("ended\n", "")

    async def test_a_closed_connection_opens_again(self, connection: RedisConnection) -> None:
        """Closing twice is harmless; what is in use when it is closed still answers."""
        running = asyncio.ensure_future(connection.run(COUNT, ["k"], []))
        await connection.close()
        await connection.close()

        counted = [await running, await connection.run(COUNT, ["k"], [])]

        assert counted == [1, 2]


class TestTls:
    """rediss://"""

    @pytest.fixture
    def authority(self, tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
        """Give a server's context and the file of the authority that signed it."""
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        file = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(file))
        return context, file

    async def test_a_script_runs_over_tls(self, valkey: ValkeyServer, authority: tuple[ssl.SSLContext, Path]) -> None:
        """With the authority named at the end of the URL the certificate and its name are checked, and it works."""
        context, file = authority
        async with FaultProxy(valkey.port, tls=context) as proxy:
            connection = connect(f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={file}")
            counted = await asyncio.gather(*(connection.run(COUNT, ["k"], []) for _ in range(5)))
            await connection.close()

        assert sorted(counted) == [1, 2, 3, 4, 5]

    async def test_an_unknown_authority_is_refused(
        self, valkey: ValkeyServer, authority: tuple[ssl.SSLContext, Path]
    ) -> None:
        """Nothing is sent to a server that cannot prove its name; the error says how to name the authority."""
        context, _ = authority
        async with FaultProxy(valkey.port, tls=context) as proxy:
            connection = connect(f"rediss://:{PASSWORD}@127.0.0.1:{proxy.port}/0")
            with pytest.raises(BudgetStoreUnavailableError, match=r"ssl_ca_certs") as caught:
                await connection.run(COUNT, ["k"], [])
            await connection.close()

        assert "Nothing was sent" in str(caught.value)

    async def test_a_server_without_tls_is_told(self, valkey: ValkeyServer) -> None:
        """A plain server waits for the rest of what it takes for a command: the error names redis://."""
        connection = connect(f"rediss://127.0.0.1:{valkey.port}/0", timeout_s=0.2)

        with pytest.raises(BudgetStoreUnavailableError, match="redis://"):
            await connection.run(COUNT, ["k"], [])
        await connection.close()


class TestCredentials:
    """Passwords: used, rotated, and never shown."""

    async def test_a_rotated_credential_replaces_the_connections(self, valkey: ValkeyServer) -> None:
        """Connections of an earlier version are not used again; the credential is asked for at each script."""
        source = Source(f"{valkey.url[:-1]}1")
        connection = RedisConnection(source, unavailable=BudgetStoreUnavailableError)
        await connection.run(script("return redis.call('SET', KEYS[1], 40)"), ["k"], [])

        source.rotate(f"{valkey.url[:-1]}2")
        rotated = await connection.run(COUNT, ["k"], [])
        source.rotate(f"{valkey.url[:-1]}1")
        back = await connection.run(COUNT, ["k"], [])
        await connection.close()

        assert (rotated, back) == (1, 41)
        assert source.asked >= 3

    async def test_a_credential_that_changed_while_it_was_used_is_asked_for_again(self) -> None:
        """The server refuses the old password, the source has a new one by then: one more try, which works."""
        with await asyncio.to_thread(ValkeyServer, durable=False, requirepass=PASSWORD) as server:
            good, stale = (f"redis://:{word}@127.0.0.1:{server.port}/0" for word in (PASSWORD, "old"))
            given = [Credential(stale, "1"), Credential(good, "2")]
            connection = RedisConnection(
                lambda: given.pop(0) if len(given) > 1 else given[0], unavailable=BudgetStoreUnavailableError
            )
            counted = await connection.run(COUNT, ["k"], [])
            await connection.close()

        assert counted == 1

    @pytest.mark.parametrize(
        ("credentials", "said"), [("someone:{refused}@", "refuses the user name"), ("", "asks for a password")]
    )
    async def test_a_wrong_password_is_told_and_not_shown(self, credentials: str, said: str) -> None:
        """The error says which variable to correct, after one try; no part of it or of its causes has the password."""
        with await asyncio.to_thread(ValkeyServer, durable=False, requirepass=PASSWORD) as server:
            refused = planted("redis.refused_password")
            connection = connect(f"redis://{credentials.format(refused=refused)}127.0.0.1:{server.port}/0")
            with pytest.raises(BudgetStoreUnavailableError, match=said) as caught:
                await connection.run(COUNT, ["k"], [])
            await connection.close()

        error: BaseException | None = caught.value
        while error is not None:
            assert refused not in f"{error!r} {error}"
            assert "someone" not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__

    async def test_a_server_that_repeats_the_password_is_not_quoted(self) -> None:
        """Servers repeat a command that they do not know, with its arguments: AUTH has the password as one."""
        reply = f"-ERR unknown command 'AUTH', with args beginning with: '{PASSWORD}' \r\n".encode()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.write(reply)
            await reader.read()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            connection = connect(f"redis://:{PASSWORD}@127.0.0.1:{port}/0")
            with pytest.raises(BudgetStoreUnavailableError, match="unknown command") as caught:
                await connection.run(COUNT, ["k"], [])
            await connection.close()

        assert PASSWORD not in str(caught.value)
        assert caught.value.__cause__ is None

    async def test_a_pool_shows_no_password(self, valkey: ValkeyServer) -> None:
        """Not even to whoever prints everything inside a connection."""
        connection = connect(f"redis://default:{PASSWORD}@127.0.0.1:{valkey.port}/0")
        pool = await connection._pools.get()

        assert PASSWORD not in f"{connection!r} {pool!r} {vars(connection)!r} {vars(pool)!r}"
        await connection.close()

    async def test_a_url_that_cannot_be_read_is_told_at_the_first_use(self) -> None:
        """Building reads nothing; the first script names the variable."""
        with pytest.raises(ConfigurationError, match="REDIS_URL"):
            await connect("redis://h/database").run(COUNT, ["k"], [])


class TestFaults:
    """Each in bounded time, with what to do and whether anything can have happened."""

    async def test_nobody_listens(self) -> None:
        """Refused at once; nothing was sent."""
        connection = connect(f"redis://127.0.0.1:{free_port()}/0")

        with pytest.raises(BudgetStoreUnavailableError, match=r"cannot be reached.*nothing was sent.*REDIS_URL"):
            await connection.run(COUNT, ["k"], [])
        await connection.close()

    async def test_a_silent_server_is_given_up(self, valkey: ValkeyServer) -> None:
        """After the time limit it is not known whether the script ran; the next one uses a new connection."""
        async with FaultProxy(valkey.port) as proxy:
            connection = connect(through(proxy))
            await connection.run(COUNT, ["k"], [])
            proxy.deaf, connection._timeout_s = True, 0.2
            with pytest.raises(BudgetStoreUnavailableError, match=r"0\.2 s.*not known"):
                async with asyncio.timeout(BOUND_S):
                    await connection.run(COUNT, ["k"], [])
            proxy.deaf, connection._timeout_s = False, BOUND_S

            counted = await connection.run(COUNT, ["k"], [])
            await connection.close()

        assert counted == 3
        assert proxy.accepted == 2

    async def test_a_full_pool_is_told(self, valkey: ValkeyServer) -> None:
        """A script that got no connection in time says so, and that nothing was sent."""
        async with FaultProxy(valkey.port) as proxy:
            connection = connect(through(proxy), pool_size=1)
            await connection.run(COUNT, ["k"], [])
            proxy.silent, connection._timeout_s = True, 0.2

            told = await asyncio.gather(*(connection.run(COUNT, ["k"], []) for _ in range(2)), return_exceptions=True)
            await connection.close()

        assert [type(error) for error in told] == [BudgetStoreUnavailableError] * 2
        assert "NOVA_REDIS_POOL_SIZE" in str(told[1])

    async def test_what_waited_too_long_is_not_sent(self, connection: RedisConnection, valkey: ValkeyServer) -> None:
        """Whoever waited behind others for as long as a verb may take is told so, and that nothing was sent."""
        long_ago = asyncio.get_running_loop().time() - 5

        with pytest.raises(BudgetStoreUnavailableError, match=r"busy .* for 5 s .*nothing was sent"):
            await connection.run(COUNT, ["n"], [], since=long_ago)

        assert await connection.run(COUNT, ["n"], [], since=long_ago + 4) == 1

    async def test_a_connection_that_the_server_closed_is_replaced(self, valkey: ValkeyServer) -> None:
        """A server that was restarted, or that ends idle connections, costs no verb an error."""
        async with FaultProxy(valkey.port) as proxy:
            connection = connect(through(proxy))
            counted = [await connection.run(COUNT, ["k"], [])]
            for reset in (True, False):
                proxy.cut(reset=reset)
                await until_gone(connection)
                counted.append(await connection.run(COUNT, ["k"], []))
            await connection.close()

        assert counted == [1, 2, 3]

    async def test_a_lost_answer_is_an_error_and_not_a_second_run(self, valkey: ValkeyServer) -> None:
        """The script took effect once; nothing here repeats what may have happened."""
        async with FaultProxy(valkey.port) as proxy:
            connection = connect(through(proxy))
            await connection.run(COUNT, ["k"], [])
            proxy.lose_answers(1)
            with pytest.raises(BudgetStoreUnavailableError, match="not known"):
                await connection.run(COUNT, ["k"], [])

            counted = await connection.run(COUNT, ["k"], [])
            await connection.close()

        assert counted == 3

    async def test_a_foreign_value_is_damage(self, connection: RedisConnection) -> None:
        """A key of another type belongs to somebody else: nothing is changed, and it is told."""
        await connection.run(script("return redis.call('LPUSH', KEYS[1], 1)"), ["nova:k"], [])

        with pytest.raises(StoreDamagedError, match="nova:"):
            await connection.run(COUNT, ["nova:k"], [])

    async def test_a_script_that_fails_is_told_with_the_servers_words(self, connection: RedisConnection) -> None:
        """What the table does not know is passed on, and the connection stays in use."""
        with pytest.raises(BudgetStoreUnavailableError, match="refused the script: Something odd"):
            await connection.run(script("return redis.error_reply('Something odd')"), ["k"], [])

        assert await connection.run(COUNT, ["k"], []) == 1


async def until_gone(connection: RedisConnection) -> None:
    """Wait until the loop has heard that the idle connections were cut."""
    pool = await connection._pools.get()
    while any([await link.is_usable() for link in pool._idle]):  # noqa: ASYNC110 - the loop itself is waited for
        await asyncio.sleep(0.001)
