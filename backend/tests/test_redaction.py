"""Redaction: what this process was given, and what has the shape of a secret, in whatever form it is quoted."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from app.credentials import Credential
from app.redaction import HIDDEN, know, redact, redact_all


@pytest.mark.parametrize(
    "quoted",
    [
        "{}",
        "cannot connect to {}: timeout",
        "{!r}",
        "url=%s",
        "['{}', 2]",
    ],
)
def test_a_known_secret_is_found_in_whatever_quotes_it(quoted: str) -> None:
    """As it is, in a repr, percent-encoded, and the password of a URL alone."""
    password = "p@ss/wörd'\\n%1"
    know(f"postgresql://nova:{quote(password, safe='')}@db.example/nova")

    for form in (password, quote(password, safe=""), repr(password)[1:-1], ascii(password)[1:-1]):
        text = quoted.replace("%s", form) if "%s" in quoted else quoted.format(form)
        assert form not in redact(text), quoted


def test_a_credential_makes_itself_known() -> None:
    """Also the one that a rotation replaced, because errors may come late."""
    Credential("first-value-of-it", "1")
    Credential("second-value-of-it", "2")

    assert redact("first-value-of-it then second-value-of-it") == f"{HIDDEN} then {HIDDEN}"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("redis://default:hunter22@host:6379", "hunter22"),
        ("401 for key sk-ant-api03-abcdefgh_1234", "sk-ant-api03-abcdefgh_1234"),
        ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ('{"api_key": "zzzz-yyyy-xxxx"}', "zzzz-yyyy-xxxx"),
        ("password=correct-horse&x=1", "correct-horse"),
        ("token hvs.CAESIJlU02LQZq-abcdefgh", "hvs.CAESIJlU02LQZq-abcdefgh"),
        ("AKIAIOSFODNN7EXAMPLE signed it", "AKIAIOSFODNN7EXAMPLE"),
        ("R2_SECRET_ACCESS_KEY=abcd1234efgh", "abcd1234efgh"),
        ("-----BEGIN PRIVATE KEY-----\nMIIabc\n-----END PRIVATE KEY-----", "MIIabc"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "eyJzdWIiOiIxIn0"),
    ],
)
def test_what_has_the_shape_of_a_secret_is_hidden(text: str, secret: str) -> None:
    """Nobody had to make it known."""
    assert secret not in redact(text)
    assert HIDDEN in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "the run 'brief-20261125' is completed",
        "set ANTHROPIC_API_KEY, or LLM_ADAPTER=openai with OPENAI_API_KEY",
        "max_tokens=50, input_tokens: 12",
        "https://api.openai.com/v1",
        "risk-free task-list",
        "VAULT_SECRET_ID_FILE: '/run/secrets/id' cannot be read",
    ],
)
def test_words_that_are_no_secret_stay(text: str) -> None:
    """A remedy that is hidden helps nobody."""
    assert redact(text) == text


def test_values_of_telling_names_are_hidden_whole() -> None:
    """In whatever depth; ids, files and numbers beside them stay."""
    found = redact_all({"a": [{"api_key": "qwerty"}], "secret_id_file": "/x", "cost": 3, "ok": True, "n": None})

    assert found == {"a": [{"api_key": HIDDEN}], "secret_id_file": "/x", "cost": 3, "ok": True, "n": None}
