"""The failures of a Redis server, and of the way to it, as Nova's errors: one table."""

from __future__ import annotations

import re
import ssl
from typing import Final

from redis.exceptions import InvalidResponse, RedisError, ResponseError

from app.errors import NovaError, StoreDamagedError, StoreUnavailableError
from app.stores.redis.address import Address

__all__ = ["MOVED_AWAY", "error_code", "explained", "translated"]

_UNAVAILABLE: Final = {
    "READONLY": "is a read-only replica: a failover may be under way, else REDIS_URL must name the primary",
    "OOM": "is out of memory. Give it more (maxmemory), or keep results for a shorter time; never turn eviction on",
    "LOADING": "is loading its data after a start; try again",
    "BUSY": "is busy with a script of somebody else; try again, or end that script with SCRIPT KILL",
    "KILLED": "ended the script by SCRIPT KILL before it wrote anything; try again",
    "MASTERDOWN": "is a replica that has lost its primary; try again when the failover is over",
    "CLUSTERDOWN": "belongs to a cluster that is down; try again when it has recovered",
    "TRYAGAIN": "is moving these keys to another node of its cluster; try again",
    "NOREPLICAS": "has too few replicas in reach to accept writes (min-replicas-to-write); try again",
    "MISCONF": "cannot write its data to the disk and refuses writes; look at its log",
    "MAXCLIENTS": "has as many clients as it takes (maxclients); raise that, or lower NOVA_REDIS_POOL_SIZE",
    "NOAUTH": "asks for a password and REDIS_URL has none that it takes",
    "WRONGPASS": "refuses the user name or the password in REDIS_URL",
    "NOPERM": "does not let this user do what Nova needs; grant it ~nova:* +eval +evalsha and the commands of scripts "
    "(docs/how-to/redis.md)",
    "MOVED": "is one node of a cluster and another node has these keys; REDIS_URL must name a server that has all "
    "keys, or a proxy of the cluster",
    "NOSCRIPT": "does not know the script that it was just given; REDIS_URL must name one server, not several in turn",
}
"""By the first word of the server's answer. Each says that nothing was changed: the server refused the script."""

MOVED_AWAY: Final = ("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "MOVED")
"""Answers of a server that is not, or not yet, the one to ask: its name may lead to another one by now."""

_SYNONYMS: Final = {"ASK": "MOVED", "NOGOODSLAVE": "NOREPLICAS"}
_TEXTS: Final = {
    "max number of clients reached": "MAXCLIENTS",
    "Script killed by user": "KILLED",
    "without any password configured": "WRONGPASS",
    "invalid password": "WRONGPASS",
    "nova: an older layout": "OLDER",
}
_FIRST_WORD: Final = re.compile(r"-?([A-Z]{2,})(?= )")
_INSIDE_SCRIPT: Final = re.compile(r"@user_script: ?\d+: -?([A-Z]{2,}) ")
"""Redis 6.2 wraps the answer to a command of a script: ``ERR Error running script (...): @user_script:9: -OOM ...``."""


def error_code(error: RedisError) -> str:
    """Return the word by which the table knows an answer of the server; empty where there was none."""
    text = str(error)
    for part, code in _TEXTS.items():
        if part in text:
            return code
    if inside := _INSIDE_SCRIPT.search(text):
        code = inside[1]
    else:
        first = _FIRST_WORD.match(text)
        code = getattr(error, "status_code", None) or (first[1] if first else "")
    return _SYNONYMS.get(code, code)


def translated(
    error: RedisError | OSError, *, address: Address, unavailable: type[StoreUnavailableError], sent: bool
) -> NovaError:
    """Return Nova's error for one of the driver's, naming the server and what to do.

    Args:
        error: as the driver raised it.
        address: the server; neither its user name nor its password is ever shown.
        unavailable: the store's own class for "cannot be used now".
        sent: whether a script may have reached the server.
    """
    code = error_code(error) if isinstance(error, RedisError) else ""
    server = f"Redis at {str(address)!r}"
    if code == "WRONGTYPE":
        return StoreDamagedError(
            f"a key that begins with 'nova:' on {server} holds something else; nothing was changed. "
            "Give Nova a database of its own (the number at the end of REDIS_URL)"
        )
    if code == "OLDER":
        return StoreDamagedError(
            f"the budget on {server} was written by an older Nova, which laid it out otherwise; nothing was changed. "
            "Give this Nova a database of its own (the number at the end of REDIS_URL), and set the limits there, less "
            "what was spent (docs/how-to/redis.md)"
        )
    if code in _UNAVAILABLE:
        return unavailable(f"{server} {_UNAVAILABLE[code]}. Nothing was changed")
    text = _shown(error, address)
    if isinstance(error, ResponseError):
        return unavailable(f"{server} refused the script: {text}")
    if isinstance(error, InvalidResponse):
        return unavailable(f"{server} does not answer as Redis does: check host and port in REDIS_URL")
    if _is_tls(error):
        return unavailable(
            f"the TLS of {server} failed: {text}. Nothing was sent. A certificate of your own authority needs "
            "?ssl_ca_certs=FILE at the end of REDIS_URL, and a server without TLS needs redis://"
        )
    effect = (
        "whether it did what was asked is not known"
        if sent
        else "nothing was sent. Check host and port in REDIS_URL, and that the server runs"
    )
    return unavailable(f"{server} cannot be reached: {text.rstrip('.')}; {effect}")


def explained(error: BaseException, address: Address) -> BaseException | None:
    """Return an error if it can be shown as the cause of another, None where it or its cause holds a credential."""
    found: BaseException | None = error
    while found is not None:
        if _hidden(str(found), address) != str(found):
            return None
        found = found.__cause__ or found.__context__
    return error


def _shown(error: BaseException, address: Address) -> str:
    """Return the text of an error, shortened, without the credentials: servers repeat what they do not understand."""
    text = _hidden(str(error), address).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def _hidden(text: str, address: Address) -> str:
    for secret in (address.password, address.username):
        if secret:
            text = text.replace(secret, "**********")
    return text


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
