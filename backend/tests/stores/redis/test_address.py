"""``REDIS_URL`` is read as Redis clients read it, and a mistake in it never shows a password."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from app.errors import ConfigurationError
from app.stores.redis.address import Address, Tls, parse_address, tls_context
from tests.support.planted import planted

SECRET = planted("redis.parsed_password")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://db.example", Address(host="db.example", port=6379, database=0)),
        ("redis://db.example:7000/", Address(host="db.example", port=7000, database=0)),
        ("redis://:p%40ss%2F@h/3", Address(host="h", port=6379, database=3, password="p@ss/")),
        ("redis://me:p@h", Address(host="h", port=6379, database=0, username="me", password="p")),
        ("redis://[::1]:7000/0", Address(host="::1", port=7000, database=0)),
        ("REDIS://h", Address(host="h", port=6379, database=0)),
        ("rediss://h", Address(host="h", port=6379, database=0, tls=Tls())),
        (
            "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=False",
            Address(host="h", port=6379, database=0, tls=Tls(verify=False, check_hostname=False)),
        ),
        (
            "rediss://h/0?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
            Address(
                host="h",
                port=6379,
                database=0,
                tls=Tls(ca_file="/ca.pem", certificate_file="/c.pem", key_file="/k.pem"),
            ),
        ),
    ],
)
def test_a_url_is_read(url: str, address: Address) -> None:
    """Scheme, credentials, host, port, database and the files of TLS."""
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{SECRET}@h",
        f"redis://:{SECRET}@",
        f"redis://:{SECRET}@h:port",
        f"redis://:{SECRET}@h/{SECRET}",
        f"redis://:{SECRET}@h/0#{SECRET}",
        f"redis://:{SECRET}@h?{SECRET}=1",
        f"redis://me:12/{SECRET}@h",
        f"redis://me:12#{SECRET}@h",
        f"redis://me:12?{SECRET}@h",
        f"redis://:{SECRET}@h?ssl_cert_reqs=none",
        f"rediss://:{SECRET}@h?ssl_cert_reqs={SECRET}",
        f"rediss://[{SECRET}",
    ],
)
def test_what_is_no_address_is_refused_without_showing_it(url: str) -> None:
    """The error names the variable; neither its text nor what it came from holds any part of the value."""
    with pytest.raises(ConfigurationError) as caught:
        parse_address(url)

    error = caught.value
    assert error.variable == "REDIS_URL"
    assert SECRET not in str(error)
    assert (error.__cause__, error.__context__) == (None, None)


def test_an_address_shows_no_credentials() -> None:
    """Neither form that ends in a log has the user's name or the password."""
    address = parse_address(f"redis://{SECRET}:{SECRET}@h")

    assert SECRET not in repr(address)
    assert str(address) == "h:6379"


def test_certificates_are_checked_unless_told_otherwise() -> None:
    """By default the chain and the name; with ``none`` neither."""
    strict, lax = tls_context(Tls()), tls_context(Tls(verify=False))

    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)


def test_a_certificate_file_that_is_not_there(tmp_path: Path) -> None:
    """The error says which variable names it."""
    with pytest.raises(ConfigurationError, match="ssl_ca_certs"):
        tls_context(Tls(ca_file=str(tmp_path / "none.pem")))
