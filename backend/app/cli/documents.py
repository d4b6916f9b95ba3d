"""What programs see: the JSON of ``--json``. Amounts are dollars and microcents, times ISO 8601, unknown is null."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from app.cli.output import moment
from app.money import MICROCENTS_PER_USD

if TYPE_CHECKING:
    from app.money import Microcents
    from app.stores.budget.contract import AuditReport, Hold, Stopped, WindowUsage
    from app.stores.checkpoint.contract import RunHead, Step, StepRecord

__all__ = [
    "audit_document",
    "hold_document",
    "money",
    "run_document",
    "step_document",
    "stop_document",
    "window_document",
]


def money(amount: Microcents | None) -> dict[str, Any] | None:
    """Return an amount: ``{"usd": "0.5", "microcents": 50000000}``; the dollars are an exact decimal."""
    if amount is None:
        return None
    usd = Decimal(amount) / MICROCENTS_PER_USD
    return {"usd": f"{usd.normalize():f}", "microcents": amount}


def run_document(head: RunHead, *, whole: bool = False) -> dict[str, Any]:
    """Return a run's head; ``whole`` adds what it was started with and what came of it."""
    document: dict[str, Any] = {
        "run_id": head.run_id,
        "tenant": head.tenant_id,
        "workflow": head.workflow,
        "workflow_version": head.workflow_version,
        "status": head.status.value,
        "waiting_for": head.waiting_for,
        "steps": head.next_step_index,
        "version": head.version,
        "root_run_id": head.root_run_id,
        "tier": head.tier,
        "created_at": moment(head.created_at, precise=True),
        "updated_at": moment(head.updated_at, precise=True),
        "error": head.error,
        "lease": head.lease
        and {
            "holder": str(head.lease.holder),
            "token": head.lease.token,
            "expires_at": moment(head.lease.expires_at, precise=True),
        },
    }
    if whole:
        document |= {"head_hash": head.head_hash.hex(), "inputs": head.inputs, "result": head.result}
    return document


def step_document(step: StepRecord | Step) -> dict[str, Any]:
    """Return a recorded step, with its output where it was read."""
    document: dict[str, Any] = {
        "index": step.index,
        "step_id": step.step_id,
        "recorded_at": moment(step.recorded_at, precise=True),
        "size_bytes": step.size_bytes,
        "fingerprint": step.fingerprint,
        "output_digest": step.output_digest.hex(),
        "hash": step.hash.hex(),
        "meta": dict(step.meta),
    }
    output = getattr(step, "output", _NO_OUTPUT)
    return document if output is _NO_OUTPUT else document | {"output": output}


_NO_OUTPUT = object()


def window_document(usage: WindowUsage) -> dict[str, Any]:
    """Return one window of a scope."""
    return {
        "scope": usage.scope,
        "window": usage.window,
        "window_id": usage.window_id,
        "spent": money(usage.spent),
        "held": money(usage.held),
        "uncertain": money(usage.uncertain),
        "overage": money(usage.overage),
        "limit": money(usage.limit),
        "remaining": money(usage.remaining),
        "resets_at": moment(usage.resets_at),
    }


def hold_document(hold: Hold) -> dict[str, Any]:
    """Return one hold."""
    return {
        "hold_id": hold.hold_id,
        "tenant": hold.tenant_id,
        "state": hold.state.value,
        "amount": money(hold.amount),
        "charged": money(hold.charged),
        "scopes": list(hold.scopes),
        "created_at": moment(hold.created_at, precise=True),
        "expires_at": moment(hold.expires_at, precise=True),
        "closed_at": moment(hold.closed_at, precise=True),
        "detail": hold.detail,
    }


def audit_document(report: AuditReport) -> dict[str, Any]:
    """Return what an audit found."""
    return {
        "clean": report.clean,
        "counters_checked": report.counters_checked,
        "holds_checked": report.holds_checked,
        "findings": [
            {
                "scope": finding.scope,
                "window": finding.window,
                "window_id": finding.window_id,
                "counter": finding.counter,
                "recorded": money(finding.recorded),
                "recomputed": money(finding.recomputed),
            }
            for finding in report.findings
        ],
    }


def stop_document(stop: Stopped | None, *, tenant_id: str | None) -> dict[str, Any]:
    """Return whether a tenant, or all (None), are stopped."""
    return {
        "tenant": tenant_id,
        "stopped": stop is not None,
        "since": None if stop is None else stop.since.isoformat(),
        "reason": None if stop is None else stop.reason,
    }
