"""Bad input: a typed error that says what was wrong, and nothing changed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import pytest

from app.errors import InvalidInputError
from app.money import MAX_MICROCENTS
from app.stores.budget.contract import MAX_DETAIL_BYTES, MAX_LEASE, MAX_PAGE, MAX_SCOPES, BudgetStore

from .support import LEASE, MS, BackDoor, Verb, granted, spent_and_held


class BadInput:
    """What the verbs do not take."""

    BAD_NAMES: Final[list[Any]] = ["", "x" * 1_048_576, "a\x00b", "a\nb", "\ud800", "é" * 257, None, 7]
    BAD_AMOUNTS: Final[list[Any]] = [-1, MAX_MICROCENTS + 1, 2**70, 1.0, "1", True, None]

    @pytest.mark.parametrize("name", BAD_NAMES)
    async def test_a_bad_name_is_refused_everywhere(self, store: BudgetStore, back_door: BackDoor, name: Any) -> None:
        """As tenant, hold, scope, run or adjustment id: a typed, short error, and nothing changed."""
        await granted(store)
        before = back_door.dump()

        verbs: list[Verb] = [
            lambda: store.reserve(name, 1, ["s"], lease=LEASE),
            lambda: store.reserve("g", 1, ["s", name], lease=LEASE),
            lambda: store.reserve("g", 1, ["s"], lease=LEASE, tenant_id=name),
            lambda: store.settle(name, 1),
            lambda: store.settle("h", 1, tenant_id=name),
            lambda: store.release(name),
            lambda: store.release("h", tenant_id=name),
            lambda: store.expire(name),
            lambda: store.expire("h", tenant_id=name),
            lambda: store.set_limit(name, 1),
            lambda: store.set_limit("s", 1, tenant_id=name),
            lambda: store.limits(tenant_id=name),
            lambda: store.usage(name),
            lambda: store.usage("s", tenant_id=name),
            lambda: store.scopes(tenant_id=name),
            lambda: store.hold(name),
            lambda: store.hold("h", tenant_id=name),
            lambda: store.holds(tenant_id=name),
            lambda: store.adjust(name, "s", 1),
            lambda: store.adjust("a", name, 1),
            lambda: store.adjust("a", "s", 1, tenant_id=name),
            lambda: store.audit(tenant_id=name),
            lambda: store.get_workflow_cost(name),
            lambda: store.add_workflow_cost(name, 1),
            lambda: store.add_workflow_cost("r", 1, tenant_id=name),
            lambda: store.add_workflow_cost_if_below(name, 1, 2),
            lambda: store.add_workflow_cost_if_below("r", 1, 2, tenant_id=name),
            lambda: store.reset_workflow_cost(name),
            lambda: store.reset_workflow_cost("r", tenant_id=name),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError) as caught:
                await verb()
            assert len(str(caught.value)) < 300

        assert back_door.dump() == before

    @pytest.mark.parametrize("name", BAD_NAMES[:-2])
    async def test_a_bad_filter_is_refused(self, store: BudgetStore, name: str) -> None:
        """A list that is asked for with a name that cannot exist is an error, not an empty list."""
        verbs: list[Verb] = [
            lambda: store.limits(scope=name),
            lambda: store.holds(scope=name),
            lambda: store.holds(after=name),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError):
                await verb()

    @pytest.mark.parametrize("amount", BAD_AMOUNTS)
    async def test_a_bad_amount_is_refused(self, store: BudgetStore, back_door: BackDoor, amount: Any) -> None:
        """Negative, too large, or no int: a typed error, and nothing changed."""
        await granted(store)
        before = back_door.dump()

        verbs: list[Verb] = [
            lambda: store.reserve("g", amount, ["s"], lease=LEASE),
            lambda: store.settle("h", amount),
            lambda: store.adjust("a", "s", amount if amount != -1 else -MAX_MICROCENTS - 1),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError):
                await verb()
        if amount is not None:
            with pytest.raises(InvalidInputError):
                await store.set_limit("s", amount)

        assert back_door.dump() == before

    @pytest.mark.parametrize("cents", [-1, float("nan"), float("inf"), 1e30, "one"])
    async def test_a_bad_cost_is_refused(self, store: BudgetStore, back_door: BackDoor, cents: Any) -> None:
        """As cost or as ceiling: a typed error, and nothing changed."""
        before = back_door.dump()

        verbs: list[Verb] = [
            lambda: store.add_workflow_cost("r", cents),
            lambda: store.add_workflow_cost_if_below("r", cents, 1),
            lambda: store.add_workflow_cost_if_below("r", 1, cents),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError):
                await verb()

        assert back_door.dump() == before

    async def test_no_counter_passes_the_largest_exact_amount(self, store: BudgetStore, back_door: BackDoor) -> None:
        """Reserve, settle, adjust and cost refuse what would, and change nothing; up to it all is exact."""
        await granted(store, "h", MAX_MICROCENTS, "run:r")
        before = back_door.dump()

        verbs: list[Verb] = [
            lambda: store.reserve("g", 1, ["run:r"], lease=LEASE),
            lambda: store.adjust("a", "run:r", 1),
            lambda: store.add_workflow_cost("r", 0.000001),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError, match="exact"):
                await verb()
        unchanged = back_door.dump() == before
        await store.settle("h", MAX_MICROCENTS - 1)
        await granted(store, "g", 1, "run:r")
        with pytest.raises(InvalidInputError, match="exact"):
            await store.settle("g", 2)

        assert unchanged
        assert await spent_and_held(store, "run:r") == (MAX_MICROCENTS - 1, 1)

    @pytest.mark.parametrize(
        "scopes", [[], ["s"] * 2, [f"s{n}" for n in range(MAX_SCOPES + 1)], "scope", b"scope", {"s"}, None, [["s"]]]
    )
    async def test_bad_scopes_are_refused(self, store: BudgetStore, back_door: BackDoor, scopes: Any) -> None:
        """None, too many, one twice, or no list of names: a typed error, and nothing changed."""
        before = back_door.dump()

        with pytest.raises(InvalidInputError):
            await store.reserve("h", 1, scopes, lease=LEASE)

        assert back_door.dump() == before

    async def test_as_many_scopes_as_allowed_are_taken(self, store: BudgetStore) -> None:
        """The most scopes, with names of the greatest length, are one hold."""
        scopes = [f"{number:02d}".ljust(512, "é" if number == 99 else "x") for number in range(MAX_SCOPES)]

        hold = await granted(store, "h" * 512, 1, *scopes)

        assert hold.scopes == tuple(scopes)
        assert (await store.holds(scope=scopes[3]))[0] == hold

    @pytest.mark.parametrize("lease", [timedelta(0), -MS, MAX_LEASE + MS, 30, None])
    async def test_a_bad_lease_is_refused(self, store: BudgetStore, back_door: BackDoor, lease: Any) -> None:
        """A lease is positive and at most a day."""
        before = back_door.dump()

        with pytest.raises(InvalidInputError):
            await store.reserve("h", 1, ["s"], lease=lease)

        assert back_door.dump() == before

    @pytest.mark.parametrize("of_window", ["week", "", None, ["total"], 1])
    async def test_an_unknown_window_is_refused(self, store: BudgetStore, back_door: BackDoor, of_window: Any) -> None:
        """A limit has one of the four windows."""
        before = back_door.dump()

        with pytest.raises(InvalidInputError, match="total, month, day, hour"):
            await store.set_limit("s", 1, window=of_window)

        assert back_door.dump() == before

    @pytest.mark.parametrize("text", ["x" * (MAX_DETAIL_BYTES + 1), "\ud800", 7])
    async def test_a_bad_note_is_refused(self, store: BudgetStore, back_door: BackDoor, text: Any) -> None:
        """A note that is too long or cannot be stored is an error, and nothing changed."""
        await granted(store)
        before = back_door.dump()

        verbs: list[Verb] = [
            lambda: store.settle("h", 1, detail=text),
            lambda: store.release("h", detail=text),
            lambda: store.expire("h", detail=text),
            lambda: store.adjust("a", "s", 1, reason=text),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError):
                await verb()

        assert back_door.dump() == before

    @pytest.mark.parametrize("limit", [0, -1, MAX_PAGE + 1, 1.0, True, None])
    async def test_a_bad_page_is_refused(self, store: BudgetStore, limit: Any) -> None:
        """A page has 1 to 1,000 holds."""
        with pytest.raises(InvalidInputError):
            await store.holds(limit=limit)

    async def test_a_bad_state_is_refused(self, store: BudgetStore) -> None:
        """A state that does not exist is an error, not an empty list."""
        with pytest.raises(InvalidInputError, match="held"):
            await store.holds(state="open")  # type: ignore[arg-type]  # what a caller without types may pass
