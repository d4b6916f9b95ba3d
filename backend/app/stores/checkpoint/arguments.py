"""What the verbs take: every argument is checked here, before a backend is asked; nothing was changed by a refusal."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, get_args

from app.errors import InvalidInputError
from app.stores.checkpoint.codec import JsonValue, canonical_json, encode
from app.stores.checkpoint.contract import RunFilter, RunStatus, WaitingFor
from app.stores.clock import to_ms
from app.stores.holder import Holder
from app.stores.names import check_name

__all__ = [
    "MAX_ERROR_CHARS",
    "ListQuery",
    "Position",
    "Writer",
    "check_crash_limit",
    "check_end",
    "check_fingerprint",
    "check_holder",
    "check_index",
    "check_outputs",
    "check_run",
    "check_status",
    "check_tokens",
    "check_workflow",
    "encode_cursor",
    "error_text",
    "idle_ms",
    "lease_ms",
    "list_query",
    "meta_body",
    "page_limit",
    "writer",
]

MAX_ERROR_CHARS: Final = 4_000
MAX_PAGE: Final = 1_000
MAX_LEASE: Final = timedelta(days=365)
_MAX_INTEGER: Final = 2**63 - 1
_NO_META: Final = encode(b"{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """By what right somebody writes: a lease's token, or the version that they read, or both."""

    token: int | None
    expected_version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The last run of a page: the order of a list is by both, descending."""

    updated_ms: int
    run_no: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """A list's filter and place, in the units of the stores; None does not filter."""

    workflow: str | None
    status: RunStatus | None
    from_ms: int | None
    to_ms: int | None
    after: Position | None
    limit: int


def check_run(run_id: str, tenant_id: str) -> None:
    """Refuse a run or tenant that cannot be part of a key.

    Raises:
        InvalidInputError: one of them; this is what every function here raises.
    """
    check_name(tenant_id, what="tenant_id")
    check_name(run_id, what="run_id")


def check_workflow(workflow: str, workflow_version: str) -> None:
    """Refuse a name or version that is neither empty nor a name."""
    for value, what in ((workflow, "workflow"), (workflow_version, "workflow_version")):
        if value != "":
            check_name(value, what=what)


def check_fingerprint(fingerprint: str) -> None:
    """Refuse a fingerprint that is neither empty nor a name."""
    if fingerprint != "":
        check_name(fingerprint, what="fingerprint")


def check_holder(holder: Holder) -> None:
    """Refuse what is not a holder whose text form reads back."""
    if not isinstance(holder, Holder):
        raise InvalidInputError(f"holder must be a Holder, not {type(holder).__name__}")
    check_name(holder.encode(), what="holder")
    if Holder.decode(holder.encode()) != holder:
        raise InvalidInputError(f"holder has a '|' where it cannot be stored: {holder!r:.200}")


def check_index(value: int, *, what: str, at_least: int = 0) -> int:
    """Return a whole number in the range that a database keeps."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInputError(f"{what} must be an int, not {type(value).__name__}")
    if not at_least <= value <= _MAX_INTEGER:
        raise InvalidInputError(f"{what} is {value}; it must be at least {at_least} and below 2**63")
    return value


def writer(token: int | None, expected_version: int | None, *, required: bool = True) -> Writer:
    """Return who writes; ``required``: one of the two must be given."""
    if token is not None:
        check_index(token, what="token", at_least=1)
    if expected_version is not None:
        check_index(expected_version, what="expected_version")
    if required and token is None and expected_version is None:
        raise InvalidInputError(
            "a write needs the token of a lease (claim), or expected_version (head or load return it)"
        )
    return Writer(token=token, expected_version=expected_version)


def lease_ms(lease: timedelta) -> int:
    """Return a lease's length, at least 1 ms."""
    if not isinstance(lease, timedelta):
        raise InvalidInputError(f"lease must be a timedelta, not {type(lease).__name__}")
    if not timedelta(0) < lease <= MAX_LEASE:
        raise InvalidInputError(f"lease is {lease}; it must be above zero and at most {MAX_LEASE.days} days")
    return max(1, lease // timedelta(milliseconds=1))


def idle_ms(idle: timedelta) -> int:
    """Return how long a run must have lain, zero or more."""
    if not isinstance(idle, timedelta):
        raise InvalidInputError(f"idle must be a timedelta, not {type(idle).__name__}")
    if not timedelta(0) <= idle <= MAX_LEASE:
        raise InvalidInputError(f"idle is {idle}; it must not be negative, and at most {MAX_LEASE.days} days")
    return idle // timedelta(milliseconds=1)


def check_crash_limit(crash_limit: int | None) -> None:
    """Refuse a limit that is neither None nor at least 1."""
    if crash_limit is not None:
        check_index(crash_limit, what="crash_limit", at_least=1)


def check_tokens(tokens: Mapping[str, int], tenant_id: str) -> None:
    """Refuse what is not a mapping of runs to tokens."""
    check_name(tenant_id, what="tenant_id")
    if not isinstance(tokens, Mapping):
        raise InvalidInputError(f"tokens must be a mapping, not {type(tokens).__name__}")
    for run_id, token in tokens.items():
        check_name(run_id, what="run_id")
        check_index(token, what="token", at_least=1)


def error_text(text: str | None, *, what: str) -> str | None:
    """Return an error's message as it is stored: NUL and what has no UTF-8 escaped; what is too long is cut."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidInputError(f"{what} must be a str, not {type(text).__name__}")
    if len(text) > MAX_ERROR_CHARS:
        text = text[: MAX_ERROR_CHARS - 1] + "…"
    # PostgreSQL's text has no NUL.
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")


def check_end(status: RunStatus, *, result: object, error: str | None, waiting_for: WaitingFor | None) -> RunStatus:
    """Return the status that ends or parks a run; what comes with it must belong to it."""
    status = check_status(status)
    if status is RunStatus.RUNNING:
        raise InvalidInputError("finish takes any status but running; a run goes on by claim")
    if waiting_for is not None and waiting_for not in get_args(WaitingFor):
        raise InvalidInputError(f"waiting_for is {waiting_for!r}; use one of {', '.join(get_args(WaitingFor))}")
    belonging = (
        ("result", result, {RunStatus.COMPLETED}),
        ("error", error, {RunStatus.FAILED, RunStatus.ABORTED}),
        ("waiting_for", waiting_for, {RunStatus.WAITING}),
    )
    for name, value, statuses in belonging:
        if value is not None and status not in statuses:
            raise InvalidInputError(f"{name} belongs to {' and '.join(sorted(statuses))}, not to {status.value}")
    return status


def check_outputs(step_outputs: Mapping[str, JsonValue], next_step_index: int) -> None:
    """Refuse a state whose step ids are not names, or whose count is not ``next_step_index``."""
    if not isinstance(step_outputs, Mapping):
        raise InvalidInputError(f"step_outputs must be a mapping, not {type(step_outputs).__name__}")
    for step_id in step_outputs:
        check_name(step_id, what="step_id")
    check_index(next_step_index, what="next_step_index")
    if next_step_index != len(step_outputs):
        raise InvalidInputError(
            f"next_step_index is {next_step_index}, and step_outputs has {len(step_outputs)} steps; it is their count"
        )


def meta_body(meta: Mapping[str, JsonValue] | None) -> bytes:
    """Return what is noted beside a step as it is stored."""
    if meta is None:
        return _NO_META
    if not isinstance(meta, Mapping):
        raise InvalidInputError(f"meta must be a mapping, not {type(meta).__name__}")
    return encode(canonical_json(dict(meta), what="meta"))


def check_status(status: RunStatus) -> RunStatus:
    """Return a status, also where its value was given."""
    try:
        return RunStatus(status)
    except ValueError:
        raise InvalidInputError(f"status is {status!r}; use one of {', '.join(RunStatus)}") from None


def page_limit(limit: int) -> int:
    """Return the size of a page: 1 to 1,000."""
    check_index(limit, what="limit", at_least=1)
    if limit > MAX_PAGE:
        raise InvalidInputError(f"limit is {limit}; a page has at most {MAX_PAGE}")
    return limit


def list_query(where: RunFilter | None, *, cursor: str | None, limit: int) -> ListQuery:
    """Return a list's arguments, checked."""
    where = where or RunFilter()
    if where.workflow is not None:
        check_workflow(where.workflow, "")
    return ListQuery(
        workflow=where.workflow,
        status=None if where.status is None else check_status(where.status),
        from_ms=_moment(where.updated_from, what="updated_from"),
        to_ms=_moment(where.updated_to, what="updated_to"),
        after=None if cursor is None else _decode_cursor(cursor),
        limit=page_limit(limit),
    )


def encode_cursor(position: Position) -> str:
    """Return the text that continues a list behind a run."""
    return base64.urlsafe_b64encode(f"1.{position.updated_ms}.{position.run_no}".encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> Position:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        _, updated, number = base64.urlsafe_b64decode(padded).decode("ascii").split(".")
        position = Position(updated_ms=int(updated), run_no=int(number))
        # Writing it again refuses every other spelling, and a form that this version does not know.
        if encode_cursor(position) != cursor or max(position.updated_ms, position.run_no) > _MAX_INTEGER:
            raise ValueError(cursor)
    except (TypeError, ValueError):
        raise InvalidInputError(f"not a cursor of list_runs: {cursor!r:.80}; take it from a page") from None
    return position


def _moment(moment: datetime | None, *, what: str) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidInputError(f"{what} must be a datetime with a time zone: {moment!r:.80}")
    return to_ms(moment)
