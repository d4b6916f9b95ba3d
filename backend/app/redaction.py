"""Secrets taken out of text: those that this process was given, and whatever has the shape of one.

Every :class:`~app.credentials.Credential` makes itself known here, so a log line, an error of a driver or a traceback
that quotes it can be cleaned before anybody reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from threading import Lock
from typing import Any, Final
from urllib.parse import quote, unquote

__all__ = ["HIDDEN", "know", "redact", "redact_all"]

HIDDEN: Final = "[redacted]"

SHORTEST: Final = 6
"""Shorter values are not looked for: they would be found in words that have nothing to do with them."""

MOST_KNOWN: Final = 1_024
"""How many values are remembered; each rotation brings one, and the oldest are forgotten first."""

_known: dict[str, None] = {}
_pattern: re.Pattern[str] | None = None
_lock = Lock()

_SHAPES: Final = (
    # user:password@host of any URL; the user stays, because it helps and is no secret.
    (re.compile(r"(?P<keep>\b[a-zA-Z][\w+.-]*://[^\s/@:'\"]*:)[^\s/@'\"]+(?=@)"), rf"\g<keep>{HIDDEN}"),
    # Keys of OpenAI and Anthropic; of Vault and OpenBao (hvs., hvb., s., b. with a long tail); of AWS.
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), HIDDEN),
    (re.compile(r"\b(?:hv[sbr]|[sbr])\.[A-Za-z0-9_-]{20,}"), HIDDEN),
    (re.compile(r"\bAKIA[A-Z0-9]{16}\b"), HIDDEN),
    (re.compile(r"\b(?:ghp|gho|github_pat|xox[abp])[_-][A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"(?i)(?P<keep>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\g<keep>{HIDDEN}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
    # name=value and "name": "value", where the name says that it is one.
    (
        re.compile(
            r"(?i)(?P<keep>\b(?![\w-]*_file\b)[\w-]*(?:password|passwd|secret|api[_-]?key|access[_-]?key|auth[_-]?token|vault[_-]?token)"
            r"[\w-]*['\"]?\s*[=:]\s*['\"]?)(?!\[redacted\]|\*{3,}|None\b|SecretStr)[^\s'\",;&)}\]]{4,}"
        ),
        rf"\g<keep>{HIDDEN}",
    ),
)
_TELLING: Final = re.compile(r"(?i)password|passwd|secret|api[_-]?key|access[_-]?key|auth[_-]?token|authorization|dsn$")
_HARMLESS: Final = re.compile(r"(?i)_file$|_version$|_id$")


def know(secret: str) -> None:
    """Remember a secret, so that :func:`redact` finds it: as it is, percent-encoded and decoded, and, of a URL, its
    password alone.
    """
    global _pattern  # noqa: PLW0603 - the one cache of this module, rebuilt when a secret comes
    forms = _forms(secret)
    with _lock:
        if all(form in _known for form in forms):
            return
        for form in forms:
            _known.pop(form, None)
            _known[form] = None
        while len(_known) > MOST_KNOWN:
            del _known[next(iter(_known))]
        # The longest first: a URL is taken out whole before the password in it.
        longest = sorted(_known, key=len, reverse=True)
        _pattern = re.compile("|".join(map(re.escape, longest)))


def redact(text: str) -> str:
    """Return a text without known secrets, and without what has the shape of one."""
    pattern = _pattern
    if pattern is not None:
        text = pattern.sub(HIDDEN, text)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def redact_all(value: Any) -> Any:
    """Return a value of JSON's kinds with every text in it redacted; the values of telling names are hidden whole.

    What is of another kind is replaced by its redacted ``repr``.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(name)): _of_name(str(name), each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_all(each) for each in value]
    return redact(repr(value))


def _of_name(name: str, value: Any) -> Any:
    if isinstance(value, str) and value and _TELLING.search(name) and not _HARMLESS.search(name):
        return HIDDEN
    return redact_all(value)


def _forms(secret: str) -> set[str]:
    found = {secret, secret.strip()}
    _, scheme, rest = secret.partition("://")
    if scheme and "@" in rest:
        login = rest.rpartition("@")[0]
        found.add(login.partition(":")[2])
    found |= {unquote(form) for form in found} | {quote(form, safe="") for form in found}
    # A repr escapes backslashes, line breaks and what is not ASCII.
    found |= {repr(form)[1:-1] for form in found} | {ascii(form)[1:-1] for form in found}
    return {form for form in found if len(form) >= SHORTEST}
