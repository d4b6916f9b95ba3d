"""Addresses of PostgreSQL: what DATABASE_URL may say, what reaches libpq, what an error may show."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from app.errors import ConfigurationError
from app.stores.postgres.address import parse_address
from tests.support.planted import planted

SECRET = planted("postgres.parsed_password")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg", "POSTGRES"])
def test_every_spelling_of_the_scheme_is_the_same_address(scheme: str) -> None:
    """A driver that another library wants is no part of it."""
    address = parse_address(f"{scheme}://user:{SECRET}@host:6543/nova")

    parts = conninfo_to_dict(address.conninfo)
    assert (parts["host"], str(parts["port"]), parts["dbname"], parts["user"]) == ("host", "6543", "nova", "user")
    assert parts["password"] == SECRET
    assert address.shown == "'nova' at host:6543"
    assert SECRET not in repr(address) + str(address)


def test_what_neon_gives_passes_through() -> None:
    """The pooled address of Neon: TLS, channel binding, and its endpoint in ``options``, for clients without SNI."""
    address = parse_address(
        "postgresql://me:pw@ep-cool-name-123-pooler.eu-central-1.aws.neon.tech/neondb"
        "?sslmode=require&channel_binding=require&options=endpoint%3Dep-cool-name-123"
    )

    parts = conninfo_to_dict(address.conninfo)
    assert (parts["sslmode"], parts["channel_binding"]) == ("require", "require")
    assert parts["options"] == "endpoint=ep-cool-name-123"
    assert address.shown == "'neondb' at ep-cool-name-123-pooler.eu-central-1.aws.neon.tech:5432"


def test_what_the_url_says_wins_over_the_defaults() -> None:
    """A dead peer is noticed by default, and as the URL wants where it says so."""
    plain = conninfo_to_dict(parse_address("postgresql://h/d").conninfo)
    own = conninfo_to_dict(
        parse_address("postgresql://h/d?connect_timeout=2&keepalives_idle=5&application_name=mine").conninfo
    )

    assert (plain["application_name"], plain["connect_timeout"], plain["keepalives_idle"]) == ("nova", "10", "30")
    assert (own["application_name"], own["connect_timeout"], own["keepalives_idle"]) == ("mine", "2", "5")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///d?host=%2Ftmp",
        "postgresql://h/d",
        "postgresql://u@h/d?options=-c%20nova.note%3Da@b",
        "postgresql://a%40b:p%2Fw@h/d",
        "postgresql://u:p:w#@[::1]:5/d",
        "postgresql://u:p@h:1,i:2/d",
    ],
)
def test_what_libpq_reads_in_one_way_is_taken(url: str) -> None:
    """Addresses without a host, of sockets, of IPv6 and of several hosts, and what is escaped."""
    assert conninfo_to_dict(parse_address(url).conninfo)["dbname"] == "d"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/d?pgbouncer=true",
        "postgresql://h/d?schema=public",
        f"postgresql://u:{SECRET}@h:port/d?sslmode",
        f"postgresql://[{SECRET}/d",
        f"postgresql:/u:{SECRET}@h/d",
        f"mysql://u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}/more@h/d",
        f"postgresql://u:1234/{SECRET}@h/d",
        f"postgresql://u:more@{SECRET}@h/d",
        f"postgresql://u:more?{SECRET}@h/d",
        f"postgresql://u:more?{SECRET}=@h/d?sslmode=require",
        "",
    ],
)
def test_what_is_no_address_is_refused_without_being_shown(url: str) -> None:
    """The error says what an address looks like, names a parameter that is not known, and quotes nothing else."""
    with pytest.raises(ConfigurationError, match="It looks like postgresql://") as caught:
        parse_address(url)

    assert caught.value.variable == "DATABASE_URL"
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
