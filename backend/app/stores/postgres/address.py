"""The address of a database: what ``DATABASE_URL`` may say, as libpq takes it, and as an error may show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote

from app.errors import ConfigurationError
from app.stores.choice import is_postgres

__all__ = ["Address", "parse_address"]

_DEFAULT_PORT: Final = 5432
_DEFAULTS: Final = {
    "application_name": "nova",
    "connect_timeout": "10",
    "keepalives_count": "3",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "tcp_user_timeout": "30000",
}
"""What a URL that says nothing of it gets; a dead peer is noticed within a minute."""

_EXAMPLE: Final = "postgresql://host:5432/database?sslmode=require, with user:password@ before the host"
_ESCAPE: Final = "a character such as @ : / ? # % in the password must be written as %40 and so on"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is.

    Attributes:
        conninfo: for libpq; it holds the password, so it is neither in ``repr`` nor in ``str``.
        shown: the database and its host, without user and password.
    """

    conninfo: str
    shown: str

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def parse_address(url: str) -> Address:
    """Return the address that a URL gives: ``postgresql://``, ``postgres://`` or ``postgresql+driver://``.

    What stands behind ``?`` is passed on as it is: ``sslmode``, ``channel_binding``, ``options`` and the others of
    libpq.

    Raises:
        ConfigurationError: it is not such a URL, or has a parameter that libpq does not know; the URL is not shown.
    """
    read = _read(url)
    # A crash reporter shows the locals of every frame that an error came through.
    del url
    if isinstance(read, str):
        raise ConfigurationError(
            f"DATABASE_URL is not an address of PostgreSQL: {read}. It looks like {_EXAMPLE}", variable="DATABASE_URL"
        )
    return read


def _read(url: str) -> Address | str:
    """Return the address, or why there is none."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    scheme, found, rest = url.strip().partition("://")
    if not found or not is_postgres(scheme.lower()):
        return "it must begin with postgresql:// or postgres://"
    conninfo = f"postgresql://{rest}"
    place, _, query = rest.partition("?")
    user, at, where = place.partition("@")
    if ("/" in user or "@" in where) if at else "@" in query:
        # libpq would take a part of the password for the host, the database or a parameter, which errors show.
        return _ESCAPE
    unknown = [name for name, _ in parse_qsl(query, keep_blank_values=True) if name not in _known()]
    if unknown:
        return f"PostgreSQL's own client does not know its parameter {unknown[0]!r:.40}; leave it out"
    try:
        parts = conninfo_to_dict(conninfo)
    except ProgrammingError:
        # libpq's own words may quote the part that it did not understand, which may be of the password.
        return _ESCAPE
    host = str(parts.get("host") or parts.get("hostaddr") or "the local socket")
    name = unquote(str(parts.get("dbname") or parts.get("user") or "its user's"))
    defaults = {key: value for key, value in _DEFAULTS.items() if key not in parts}
    return Address(
        conninfo=make_conninfo(conninfo, client_encoding="UTF8", **defaults),
        shown=f"{name!r} at {host}:{parts.get('port') or _DEFAULT_PORT}",
    )


def _known() -> frozenset[str]:
    from psycopg import pq

    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())
