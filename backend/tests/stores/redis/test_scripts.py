"""Scripts are found beside their store, and key names keep a tenant in one slot and to itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.stores.redis.scripts import Script, key_name, load_script

TENANTS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=20)


def tag(key: str) -> str:
    """Return what Redis hashes of a key: what stands between the first ``{`` and the first ``}`` behind it."""
    _, opened, rest = key.partition("{")
    inside, closed, _ = rest.partition("}")
    return inside if opened and closed and inside else key


def test_a_script_is_known_by_the_sha1_of_its_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The name says where it lies; the sum is the one that Redis computes (RFC 3174's first example)."""
    (tmp_path / "budget" / "redis_scripts").mkdir(parents=True)
    (tmp_path / "budget" / "redis_scripts" / "reserve.lua").write_text("abc")
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)

    assert load_script("budget", "reserve") == Script(
        "budget/reserve", "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"
    )


@given(TENANTS, TENANTS)
@example("}a", "}b")
@example("{}", "a")
@example("a}:r:{", "a")
@example("%7D", "}")
def test_every_key_of_a_tenant_has_its_slot_and_no_other_tenant_its_name(one: str, other: str) -> None:
    """Braces in a tenant's id neither empty the tag nor end it early, and two tenants never share a key."""
    key = key_name(one, "part", "last:part")

    assert tag(key) == tag(key_name(one, "another part"))
    assert tag(key) != key
    assert (tag(key) == tag(key_name(other, "x"))) == (one == other)


def test_a_key_can_be_read_by_an_operator() -> None:
    """An ordinary tenant's name stands in the key as it is."""
    assert key_name("acme", "idempotency", "k:1") == "nova:{acme}:idempotency:k:1"
