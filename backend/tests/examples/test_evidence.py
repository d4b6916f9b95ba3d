"""The demo's claims: true of a run that was killed and resumed, and each of them false where it is not so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.settings import Settings
from app.stores.budget.contract import Hold, HoldState, WindowUsage
from app.stores.checkpoint.contract import StepRecord
from examples.demo.evidence import Evidence, claims, wait_for_middle
from examples.demo.nova import DemoError

_T0 = datetime(2026, 11, 24, tzinfo=UTC)
_COST = 7


def _step(index: int) -> StepRecord:
    return StepRecord(
        step_id=f"notes/{index}",
        index=index,
        fingerprint="",
        output_digest=b"",
        hash=bytes([index]),
        size_bytes=1,
        recorded_at=_T0,
        meta={"calls": 1, "cost": _COST, "input_tokens": 1, "output_tokens": 1},
    )


def _hold(name: str, state: HoldState) -> Hold:
    charged = {HoldState.SETTLED: _COST, HoldState.EXPIRED: 10}.get(state, 0)
    return Hold(
        hold_id=f"demo/notes/{name}",
        tenant_id="default",
        amount=10,
        scopes=("run:demo",),
        state=state,
        charged=charged,
        windows=(),
        created_at=_T0,
        expires_at=_T0 + timedelta(minutes=2),
    )


def _evidence(steps: Sequence[StepRecord], holds: Sequence[Hold], *, calls: int | None) -> Evidence:
    charged = {state: sum(hold.charged for hold in holds if hold.state is state) for state in HoldState}
    return Evidence(
        steps=tuple(steps),
        holds=tuple(holds),
        total=WindowUsage(
            scope="run:demo",
            window="total",
            window_id="total",
            spent=sum(charged.values()),
            held=sum(hold.amount for hold in holds if hold.state is HoldState.HELD),
            uncertain=charged[HoldState.EXPIRED],
            overage=0,
            limit=100,
            resets_at=None,
        ),
        calls=calls,
    )


BEFORE = _evidence(
    [_step(0), _step(1)],
    [_hold("0/first", HoldState.SETTLED), _hold("1/first", HoldState.SETTLED), _hold("2/first", HoldState.HELD)],
    calls=3,
)
AFTER = _evidence(
    [_step(0), _step(1), _step(2)],
    [*BEFORE.holds[:2], _hold("2/first", HoldState.EXPIRED), _hold("2/again", HoldState.SETTLED)],
    calls=4,
)


def _false(before: Evidence, after: Evidence) -> list[int]:
    return [index for index, claim in enumerate(claims(before, after)) if not claim.holds]


def test_a_run_that_went_as_promised_meets_every_claim() -> None:
    """A kill with one call under way, and a resume that makes only that call again, fulfil all claims."""
    assert len(claims(BEFORE, AFTER)) == 6
    assert _false(BEFORE, AFTER) == []


def test_without_a_server_nobody_counts() -> None:
    """With the stub the claim about the server's count is left out, and the others stand."""
    found = claims(replace(BEFORE, calls=None), replace(AFTER, calls=None))

    assert len(found) == 5
    assert all(claim.holds for claim in found)


@pytest.mark.parametrize(
    ("after", "false"),
    [
        pytest.param(
            replace(AFTER, steps=(_step(0), replace(_step(1), hash=b"other"), _step(2))), [0], id="a-step-rewritten"
        ),
        pytest.param(replace(AFTER, steps=(_step(0), _step(2))), [0, 4], id="a-step-lost"),
        pytest.param(
            _evidence(AFTER.steps, [*AFTER.holds, _hold("0/again", HoldState.SETTLED)], calls=5),
            [1, 4],
            id="a-step-called-again",
        ),
        pytest.param(
            replace(AFTER, holds=(*AFTER.holds, _hold("9/who", HoldState.RELEASED))), [1], id="a-call-of-nobody"
        ),
        pytest.param(replace(AFTER, calls=5), [2], id="a-call-that-nobody-pays-for"),
        pytest.param(
            _evidence(AFTER.steps, [hold for hold in AFTER.holds if hold.state is not HoldState.EXPIRED], calls=4),
            [2, 3],
            id="the-cut-call-forgotten",
        ),
        pytest.param(
            replace(AFTER, total=replace(AFTER.total, spent=AFTER.total.spent - 1)), [4], id="spent-is-not-the-sum"
        ),
        pytest.param(replace(AFTER, total=replace(AFTER.total, limit=30)), [5], id="above-the-limit"),
        pytest.param(replace(AFTER, total=replace(AFTER.total, held=10)), [5], id="still-held"),
    ],
)
def test_a_run_that_went_otherwise_is_found_out(after: Evidence, false: list[int]) -> None:
    """Whatever goes against a claim makes just the claims false that it contradicts."""
    assert _false(BEFORE, after) == false


def test_an_unknown_cost_is_not_added_up() -> None:
    """A step whose cost is unknown ends the demo with a message; it is never counted as zero."""
    step = replace(_step(2), meta={"calls": 1, "cost": None})

    with pytest.raises(DemoError, match="unknown cost"):
        claims(BEFORE, replace(AFTER, steps=(*BEFORE.steps, step)))


async def test_a_run_that_ends_early_is_not_waited_for(tmp_path: Path) -> None:
    """Where the command ended before anything was recorded, the wait ends with what happened."""
    settings = Settings(nova_data_dir=tmp_path, checkpoint_store="sqlite", budget_store="sqlite")

    with pytest.raises(DemoError, match="ended before"):
        await wait_for_middle(settings, "demo", notes=1, age=timedelta(0), ended=lambda: True)
