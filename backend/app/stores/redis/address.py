"""Where ``REDIS_URL`` points; a mistake in it is told by the variable and never by its value."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from app.errors import ConfigurationError

__all__ = ["Address", "Tls", "parse_address", "tls_context"]

_DEFAULT_PORT: Final = 6379
_SCHEMES: Final = ("redis", "rediss")
_TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")
_NO: Final = ("0", "false", "no")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How the server's certificate is checked, and the client's own; paths, None where the system's are used."""

    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    verify: bool = True
    check_hostname: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One server; ``str`` names it without its credentials. ``tls`` is None for a plain connection."""

    host: str
    port: int
    database: int
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(url: str) -> Address:
    """Read ``redis://[[user]:password@]host[:port][/database]`` or ``rediss://...[?ssl_ca_certs=FILE&...]``.

    Raises:
        ConfigurationError: it is not such a URL. The text says what is wrong and shows no part of the value, because a
            password with an unescaped ``/``, ``?``, ``#`` or ``@`` makes any part of it look like another.
    """
    parts = _split(url)
    problem = _problem(parts)
    if parts is None or problem:
        # A crash reporter shows the locals of every frame that an error came through.
        del url, parts
        raise ConfigurationError(
            f"REDIS_URL {problem}; write redis://host[:port][/database] or rediss://..., user:password@ before the "
            "host, and the characters / ? # @ % of a password written as %2F %3F %23 %40 %25",
            variable="REDIS_URL",
        )
    return Address(
        host=parts.hostname or "localhost",
        port=parts.port or _DEFAULT_PORT,
        database=int(parts.path.strip("/") or "0"),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=_tls(parts) if parts.scheme == "rediss" else None,
    )


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Build the context of a connection with TLS; it reads files, so it does not belong on an event loop.

    Raises:
        ConfigurationError: a file of certificates cannot be read.
    """
    context = ssl.create_default_context()
    context.check_hostname = tls.verify and tls.check_hostname
    context.verify_mode = ssl.CERT_REQUIRED if tls.verify else ssl.CERT_NONE
    try:
        if tls.ca_file is not None:
            context.load_verify_locations(cafile=tls.ca_file)
        if tls.certificate_file is not None:
            context.load_cert_chain(tls.certificate_file, tls.key_file)
    except OSError as error:
        raise ConfigurationError(
            "a file of certificates that REDIS_URL names (ssl_ca_certs, ssl_certfile, ssl_keyfile) cannot be used: "
            f"{error.strerror or error}",
            variable="REDIS_URL",
        ) from error
    return context


def _split(url: str) -> SplitResult | None:
    """Return the parts, None where they cannot be told apart: the error of the standard library shows the value."""
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError:
        return None
    return parts


def _problem(parts: SplitResult | None) -> str:
    if parts is None:
        return "is not a URL, or its port is not a number"
    if parts.scheme not in _SCHEMES:
        return "has another scheme than redis:// and rediss://"
    if not parts.hostname:
        return "names no host"
    if parts.fragment:
        return "has a part behind '#'"
    database = parts.path.strip("/")
    if database and not (database.isascii() and database.isdigit()):
        return "has a database that is not a number"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if options.keys() - set(_TLS_OPTIONS):
        return f"has an option that is not one of {', '.join(_TLS_OPTIONS)}"
    if options and parts.scheme != "rediss":
        return "has options of TLS without rediss://"
    if options.get("ssl_cert_reqs", "required") not in {"required", "none"}:
        return "has an ssl_cert_reqs that is neither required nor none"
    return ""


def _tls(parts: SplitResult) -> Tls:
    options: dict[str, str] = dict(parse_qsl(parts.query, keep_blank_values=True))
    verify: Literal["required", "none"] | str = options.get("ssl_cert_reqs", "required")
    return Tls(
        ca_file=options.get("ssl_ca_certs"),
        certificate_file=options.get("ssl_certfile"),
        key_file=options.get("ssl_keyfile"),
        verify=verify == "required",
        check_hostname=options.get("ssl_check_hostname", "true").lower() not in _NO,
    )
