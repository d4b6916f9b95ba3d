"""A rotating credential: the newest value, and the one before it while the newest is rejected."""

from __future__ import annotations

from datetime import timedelta

from app.credentials import Credential, fixed, instead_of
from app.secrets.rotating import RETRY_AFTER_S, RotatingCredential
from tests.support.clock import FakeClock

OLD, NEW = Credential("the-old-one", "1"), Credential("the-new-one", "2")


class Place:
    """Where newer values come from; ``looks`` counts how often it was looked at."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.newer: Credential | None = None
        self.looks = 0
        self.rotating = RotatingCredential(OLD, look=self.look, clock=lambda: self.clock() / 1000)

    def look(self) -> None:
        """Take over what is there."""
        self.looks += 1
        if self.newer is not None:
            self.rotating.replace(self.newer)


def test_a_newer_value_is_given_from_then_on() -> None:
    """A source is asked at each use, so that is all a rotation takes."""
    place = Place()

    assert place.rotating() is OLD
    assert place.rotating.replace(NEW)
    assert place.rotating() is NEW


def test_the_same_value_under_another_version_is_no_rotation() -> None:
    """Nothing that holds connections needs to act on it."""
    place = Place()

    assert not place.rotating.replace(Credential("the-old-one", "7"))
    assert place.rotating().version == "7"


def test_a_rejection_finds_a_value_that_is_newer_already() -> None:
    """The server was first: looking now spares the wait for the next look."""
    place = Place()
    place.newer = NEW

    assert place.rotating.instead_of(OLD) is NEW
    assert place.rotating() is NEW


def test_while_the_newest_is_rejected_the_one_before_is_given() -> None:
    """Vault was first: everybody gets the old one for a while, and then the new one is tried again."""
    place = Place()
    place.rotating.replace(NEW)

    assert place.rotating.instead_of(NEW) is OLD
    assert place.rotating() is OLD
    place.clock.advance(timedelta(seconds=RETRY_AFTER_S))
    assert place.rotating() is NEW


def test_a_former_value_that_is_rejected_gives_way_to_the_newest_at_once() -> None:
    """The rotation is complete, so the pause that the old one was given for ends."""
    place = Place()
    place.rotating.replace(NEW)
    place.rotating.instead_of(NEW)

    assert place.rotating.instead_of(OLD) is NEW
    assert place.rotating() is NEW


def test_where_there_is_no_other_value_the_rejection_stands() -> None:
    """Neither a newer one nor one before: it was looked for, once."""
    place = Place()

    assert place.rotating.instead_of(OLD) is None
    assert place.looks == 1


def test_a_fixed_source_has_no_other() -> None:
    """So has any plain callable."""
    source = fixed("only-this-one")

    assert instead_of(source, source()) is None
    assert instead_of(lambda: OLD, OLD) is None
