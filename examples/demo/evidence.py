"""What the stores and the model's server know about the run, and what the demo claims about it.

The claims are checked against the stores, never against what a command printed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from app.money import format_usd
from app.stores.budget.contract import HoldState
from examples.demo.nova import DemoError

if TYPE_CHECKING:
    from app.settings import Settings
    from app.stores.budget.contract import Hold, WindowUsage
    from app.stores.checkpoint.contract import StepRecord

__all__ = ["Claim", "Evidence", "claims", "gather", "wait_for_middle"]

_POLL_S: Final = 0.05
_LONGEST_WAIT_S: Final = 300.0
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One look at everything.

    Attributes:
        steps: what is on record, in the order of recording; steps that hold inputs are left out.
        holds: of every call of the run, in whatever state.
        total: the run's budget.
        calls: how many calls the model's server has begun; None where there is no server that counts.
    """

    steps: tuple[StepRecord, ...]
    holds: tuple[Hold, ...]
    total: WindowUsage
    calls: int | None

    def of(self, state: HoldState) -> tuple[Hold, ...]:
        """Return the holds in one state."""
        return tuple(hold for hold in self.holds if hold.state is state)

    def step_cost(self, step_id: str) -> int:
        """Return what one step cost, in microcents, or the steps below it: ``notes`` for ``notes/0``, ``notes/1``."""
        return sum(_cost(step) for step in self.steps if step.step_id.split("/")[0] == step_id)

    def tokens(self, key: str) -> int:
        """Return the sum of ``input_tokens`` or ``output_tokens`` over all recorded steps, as far as they are known."""
        counts = [step.meta.get(key) for step in self.steps]
        return sum(count for count in counts if isinstance(count, int))

    @property
    def recorded_cost(self) -> int:
        """What all recorded steps cost together, in microcents."""
        return sum(_cost(step) for step in self.steps)


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that the demo says, whether it is so, and the figures."""

    text: str
    holds: bool
    figures: str


async def gather(settings: Settings, run_id: str, *, calls: Callable[[], int] | None) -> Evidence:
    """Read the stores and the server's count."""
    from app.stores import get_budget_store, get_checkpoint_store

    budget = get_budget_store(settings)
    scope = f"run:{run_id}"
    windows = await budget.usage(scope)
    return Evidence(
        steps=_work(await get_checkpoint_store(settings).history(run_id, limit=_PAGE)),
        holds=await budget.holds(scope=scope, limit=_PAGE),
        total=next(window for window in windows if window.window == "total"),
        calls=None if calls is None else calls(),
    )


async def wait_for_middle(
    settings: Settings, run_id: str, *, notes: int, age: timedelta, ended: Callable[[], bool]
) -> None:
    """Return when ``notes`` notes are on record and the calls under way have been so for at least ``age``.

    The stores are watched while another process writes to them.

    Raises:
        DemoError: the run ended before, or it took longer than five minutes.
    """
    from app.errors import RunNotFoundError
    from app.stores import get_budget_store, get_checkpoint_store

    while not await asyncio.to_thread(settings.database_file.exists):
        if ended():
            raise DemoError("the run ended before it had recorded anything")
        await asyncio.sleep(_POLL_S)
    checkpoints, budget = get_checkpoint_store(settings), get_budget_store(settings)
    deadline = asyncio.get_running_loop().time() + _LONGEST_WAIT_S
    while asyncio.get_running_loop().time() < deadline:
        try:
            recorded = _work(await checkpoints.history(run_id, limit=_PAGE))
        except RunNotFoundError:
            recorded = ()
        held = await budget.holds(scope=f"run:{run_id}", state=HoldState.HELD)
        latest = max((hold.created_at for hold in held), default=None)
        if len(recorded) >= notes and latest is not None and datetime.now(UTC) - latest >= age:
            return
        if ended():
            raise DemoError(f"the run ended with {len(recorded)} steps on record, before it could be killed")
        await asyncio.sleep(_POLL_S)
    raise DemoError(f"no {notes} notes were on record after {_LONGEST_WAIT_S:g} s")


def claims(before: Evidence, after: Evidence) -> tuple[Claim, ...]:
    """Return what must be true of a run that was killed (``before`` was read then) and then resumed to its end."""
    known = {step.step_id: step.hash for step in before.steps}
    kept = [step for step in after.steps if known.get(step.step_id) == step.hash]
    missing = [step.step_id for step in after.steps if step.step_id not in known]
    early = {hold.hold_id for hold in before.holds}
    made = [hold.hold_id for hold in after.holds if hold.hold_id not in early]
    run_id, uncertain = after.total.scope.removeprefix("run:"), after.total.uncertain
    found = [
        Claim(
            "what was on record before the kill is on record still, and was not written again",
            len(kept) == len(before.steps),
            f"{len(kept)} of {len(before.steps)} steps have the hash that they had",
        ),
        Claim(
            "no step that was on record ran again",
            all(any(hold_id.startswith(f"{run_id}/{step_id}/") for step_id in missing) for hold_id in made),
            f"{len(made)} calls were reserved after the kill, for the {len(missing)} steps that were missing"
            + (", of which some had their answer on record" if len(made) < len(missing) else ""),
        ),
        Claim(
            "what was under way at the kill is charged in full, as uncertain",
            uncertain == sum(hold.charged for hold in after.of(HoldState.EXPIRED)) > 0,
            f"{_count(len(after.of(HoldState.EXPIRED)), 'call')}, {format_usd(uncertain)}",
        ),
        Claim(
            "spent = recorded costs + uncertain charges",
            after.total.spent == after.recorded_cost + uncertain,
            f"{format_usd(after.total.spent)} = {format_usd(after.recorded_cost)} + {format_usd(uncertain)}",
        ),
        Claim(
            "the ceiling held, and nothing is held any more",
            after.total.limit is not None and after.total.spent <= after.total.limit and after.total.held == 0,
            f"{format_usd(after.total.spent)} of {format_usd(after.total.limit)}",
        ),
    ]
    if before.calls is not None and after.calls is not None:
        later, charged = after.calls - before.calls, len(after.of(HoldState.SETTLED)) + len(after.of(HoldState.EXPIRED))
        found.insert(
            2,
            Claim(
                "the model's server counted the same, and no call without a charge",
                later <= len(made) and after.calls <= charged,
                f"{before.calls} calls began before the kill, {later} after it; {charged} are charged",
            ),
        )
    return tuple(found)


def _work(steps: Sequence[StepRecord]) -> tuple[StepRecord, ...]:
    from app.workflow.inputs import INPUTS_PREFIX

    return tuple(step for step in steps if not step.step_id.startswith(INPUTS_PREFIX))


def _cost(step: StepRecord) -> int:
    from app.workflow.calls import recorded_cost

    cost = recorded_cost(step.meta)
    if cost is None:
        raise DemoError(f"step {step.step_id!r} has an unknown cost, though its model has a price")
    return cost


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
