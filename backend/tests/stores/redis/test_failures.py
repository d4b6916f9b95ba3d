"""Every answer by which a server refuses is one error with a remedy, in the words of Redis 6.2, 7 and of Valkey."""

from __future__ import annotations

import ssl

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

from app.errors import IdempotencyStoreUnavailableError, StoreDamagedError
from app.stores.redis.address import Address
from app.stores.redis.failures import explained, translated
from tests.support.planted import planted

PASSWORD = planted("redis.parsed_password")
ADDRESS = Address(host="db.example", port=6379, database=0, username="someone", password=PASSWORD)


def told(error: Exception, *, sent: bool = True) -> str:
    """Return the text of the store's error."""
    nova = translated(error, address=ADDRESS, unavailable=IdempotencyStoreUnavailableError, sent=sent)  # type: ignore[arg-type]
    assert isinstance(nova, IdempotencyStoreUnavailableError)
    return str(nova)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("READONLY You can't write against a read only replica.", "read-only replica"),
        (
            (
                "ERR Error running script (call to f_5c): @user_script:9: @user_script: 9: "
                "-READONLY You can't write against a read only replica. "
            ),
            "read-only replica",
        ),
        ("READONLY You can't write against a read only replica. script: 5c, on @user_script:9.", "read-only replica"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "out of memory"),
        (
            (
                "ERR Error running script (call to f_5c): @user_script:9: @user_script: 9: "
                "-OOM command not allowed when used memory > 'maxmemory'. "
            ),
            "out of memory",
        ),
        ("LOADING Redis is loading the dataset in memory", "loading"),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", "busy"),
        (
            "ERR Error running script (call to f_5c): @user_script:1: Script killed by user with SCRIPT KILL... ",
            "SCRIPT KILL",
        ),
        ("ERR Script killed by user with SCRIPT KILL. script: 5c, on @user_script:1.", "SCRIPT KILL"),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "lost its primary"),
        ("CLUSTERDOWN The cluster is down", "cluster that is down"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "moving these keys"),
        ("MOVED 3999 10.0.0.1:6381", "one node of a cluster"),
        ("ASK 3999 10.0.0.1:6381", "one node of a cluster"),
        ("NOREPLICAS Not enough good replicas to write.", "too few replicas"),
        ("MISCONF Valkey is configured to save RDB snapshots, but it's unable to persist to disk.", "disk"),
        ("ERR max number of clients reached", "maxclients"),
        ("NOAUTH Authentication required.", "asks for a password"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "refuses the user name"),
        (
            "ERR AUTH <password> called without any password configured for the default user. Are you sure?",
            "refuses the user name",
        ),
        ("NOPERM this user has no permissions to run the 'evalsha' command", "grant it"),
        ("NOSCRIPT No matching script. Please use EVAL.", "several in turn"),
    ],
)
def test_a_refusal_is_told_with_its_remedy_and_changed_nothing(answer: str, said: str) -> None:
    """The store's own error, the server's name, what to do, and that nothing was changed."""
    text = told(BaseParser.parse_error(answer))

    assert "db.example:6379" in text
    assert said in text
    assert text.endswith("Nothing was changed")


@pytest.mark.parametrize(
    "answer",
    [
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "ERR Error running script (call to f_5c): @user_script:2: WRONGTYPE Operation against a key of another kind ",
    ],
)
def test_a_key_of_another_type_is_damage(answer: str) -> None:
    """What is not Nova's is no outage: trying again does not help."""
    error = translated(
        BaseParser.parse_error(answer), address=ADDRESS, unavailable=IdempotencyStoreUnavailableError, sent=True
    )

    assert isinstance(error, StoreDamagedError)
    assert not error.retryable


@pytest.mark.parametrize(
    ("sent", "said"), [(False, "nothing was sent"), (True, "whether it did what was asked is not known")]
)
def test_a_broken_connection_says_what_is_known_of_the_effect(*, sent: bool, said: str) -> None:
    """Before the script was sent nothing can have happened; afterwards nobody knows."""
    assert told(RedisConnectionError("Connection closed by server."), sent=sent).partition("; ")[2].startswith(said)


def test_a_failure_of_tls_is_told_as_one() -> None:
    """However deep the driver has it."""
    error = RedisConnectionError("Error 1 connecting to db.example:6379. certificate verify failed")
    error.__context__ = ssl.SSLCertVerificationError(1, "certificate verify failed")

    assert "ssl_ca_certs" in told(error, sent=False)


def test_something_that_is_no_redis_is_told() -> None:
    """A server of HTTP, for one."""
    assert "does not answer as Redis does" in told(InvalidResponse("Protocol Error: b'HTTP/1.1 400'"))


def test_neither_the_error_nor_its_cause_shows_a_credential() -> None:
    """A text that repeats one is cleaned, and the driver's error with it is not shown as the cause."""
    repeated = BaseParser.parse_error(f"ERR unknown command 'AUTH', with args beginning with: 'someone' '{PASSWORD}' ")
    harmless = BaseParser.parse_error("ERR unknown command 'FOO'")

    assert PASSWORD not in told(repeated)
    assert "someone" not in told(repeated)
    assert explained(repeated, ADDRESS) is None
    assert explained(harmless, ADDRESS) is harmless
