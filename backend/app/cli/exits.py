"""How every outcome of the command line is told: one exit code, one message, and what to do about it.

The codes are part of the interface (``docs/cli.md``): scripts may rely on them, a number never gets another meaning.
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, TypeAlias

from app import errors
from app.money import format_usd

__all__ = ["Ended", "ExitCode", "Explanation", "explain"]


class ExitCode(IntEnum):
    """What the exit status of ``nova`` means."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    CONFIGURATION = 3
    INVALID_INPUT = 4
    DOCUMENT = 5
    DEFINITION = 6
    RUN_NOT_FOUND = 10
    RUN_EXISTS = 11
    RUN_FINISHED = 12
    RUN_BUSY = 13
    RUN_WAITING = 14
    RUN_FAILED = 15
    RUN_DEADLINE = 16
    RUN_ABORTED = 17
    RUN_CHANGED = 18
    RUN_CONFLICT = 19
    BUDGET_REFUSED = 20
    UNPRICED = 21
    HOLD = 22
    STORE_UNAVAILABLE = 30
    STORE_DAMAGED = 31
    PROVIDER = 40
    OUTPUT = 50
    HANGUP = 129
    INTERRUPTED = 130
    CLOSED_PIPE = 141
    TERMINATED = 143

    @property
    def meaning(self) -> str:
        """One line for the reference and for ``nova help``-like listings."""
        return _MEANINGS[self]


_MEANINGS: Final[dict[ExitCode, str]] = {
    ExitCode.OK: "done",
    ExitCode.UNEXPECTED: "a fault in Nova or in code that it ran; NOVA_DEBUG=1 shows where",
    ExitCode.USAGE: "the command line itself is wrong",
    ExitCode.CONFIGURATION: "a variable or a combination of variables cannot be met",
    ExitCode.INVALID_INPUT: "a value is outside what the command takes; nothing was changed",
    ExitCode.DOCUMENT: "an input document is unreadable, binary, empty or too large, or a folder has none",
    ExitCode.DEFINITION: "a flow file cannot run: invalid YAML, an unknown skill or variable, a forbidden template",
    ExitCode.RUN_NOT_FOUND: "there is no such run",
    ExitCode.RUN_EXISTS: "there is a run of this id already",
    ExitCode.RUN_FINISHED: "the run is completed, aborted, or failed and not reopened",
    ExitCode.RUN_BUSY: "another process works on the run",
    ExitCode.RUN_WAITING: "the run is parked, waiting for its budget or a signal",
    ExitCode.RUN_FAILED: "a step failed after its retries; earlier steps are recorded",
    ExitCode.RUN_DEADLINE: "the run passed its deadline",
    ExitCode.RUN_ABORTED: "the run was aborted",
    ExitCode.RUN_CHANGED: "the workflow or its input differs from what the run recorded",
    ExitCode.RUN_CONFLICT: "another writer was quicker; nothing of this one was recorded",
    ExitCode.BUDGET_REFUSED: "a limit would be passed, or an emergency stop is in force; the call was not made",
    ExitCode.UNPRICED: "a model without a known price or upper bound, where a limit applies",
    ExitCode.HOLD: "no such hold, it is final, or its call may still be under way",
    ExitCode.STORE_UNAVAILABLE: "a store did not answer, is locked, may not be opened, or its disk is full",
    ExitCode.STORE_DAMAGED: "a store is corrupt, foreign or newer, or its audit found a difference",
    ExitCode.PROVIDER: "the provider of the language model gave no answer",
    ExitCode.OUTPUT: "the output could not be written",
    ExitCode.HANGUP: "the terminal went away (SIGHUP)",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitCode.CLOSED_PIPE: "whoever read the output went away; said quietly",
    ExitCode.TERMINATED: "asked to end (SIGTERM)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a user is told.

    Attributes:
        exit_code: the exit status.
        code: the stable string for programs, such as ``ERR_RUN_BUSY``.
        message: one sentence or two; never a secret.
        remedy: a command or an act that helps; None where the message says it.
        document: what ``--json`` shows beside the error.
    """

    exit_code: ExitCode
    code: str
    message: str
    remedy: str | None = None
    document: Mapping[str, Any] = field(default_factory=dict)


class Ended(Exception):  # noqa: N818 - how a command ended, which need not be an error
    """A command that knows itself how its end is told."""

    def __init__(self, explanation: Explanation) -> None:
        super().__init__(explanation.message)
        self.explanation = explanation

    @classmethod
    def interrupted(cls, message: str, *, remedy: str | None = None) -> Ended:
        """Return the end of a command that somebody stopped with Ctrl-C."""
        return cls(Explanation(exit_code=ExitCode.INTERRUPTED, code="ERR_INTERRUPTED", message=message, remedy=remedy))

    @classmethod
    def unwritten(cls, message: str) -> Ended:
        """Return the end of a command whose result could not be put where it was asked for."""
        return cls(Explanation(exit_code=ExitCode.OUTPUT, code="ERR_OUTPUT", message=message))


_Remedy: TypeAlias = Callable[[str, object], str | None]
"""Gets ``nova`` with the global options that were in force, and the error."""


def _nothing(_nova: str, _error: object) -> None:
    return None


def _busy(nova: str, error: object) -> str | None:
    assert isinstance(error, errors.RunBusyError)
    return f"wait for it, or take the run over: {nova} resume {shlex.quote(error.run_id)} --steal"


def _waiting(nova: str, error: object) -> str | None:
    assert isinstance(error, errors.RunWaitingError)
    if error.waiting_for != "budget":
        return f"when it has come: {nova} resume {shlex.quote(error.run_id)}"
    refused = error.__cause__
    change = f"{nova} budget set {shlex.quote(f'run:{error.run_id}')} AMOUNT"
    if isinstance(refused, errors.BudgetExceededError):
        change = _raise_limit(nova, refused)
    elif isinstance(refused, errors.BudgetStoppedError):
        change = _lift_stop(nova, refused)
    return f"{change}, then: {nova} resume {shlex.quote(error.run_id)}"


def _finished(nova: str, error: object) -> str | None:
    assert isinstance(error, errors.RunFinishedError)
    if error.status == "failed":
        return f"to try its failed step again: {nova} resume {shlex.quote(error.run_id)} --reopen"
    return f"to continue from a copy of it: {nova} runs fork {shlex.quote(error.run_id)} NEW_RUN"


def _exceeded(nova: str, error: object) -> str | None:
    assert isinstance(error, errors.BudgetExceededError)
    return f"{_raise_limit(nova, error)}; what was spent: {nova} budget show {error.scope}"


def _raise_limit(nova: str, error: errors.BudgetExceededError) -> str:
    """Return the command that lets this call through; its amount is no forecast of those that follow."""
    amount = format_usd(error.spent + error.held + error.requested).replace(",", "")
    window = "" if error.window == "total" else f" --window {error.window}"
    return f"at least, for this call alone: {nova} budget set {shlex.quote(error.scope)} '{amount}'{window}"


def _lift_stop(nova: str, error: object) -> str:
    assert isinstance(error, errors.BudgetStoppedError)
    return f"when it is safe again: {nova} budget go{' --all' if error.tenant_id is None else ''}"


def _taken_over(nova: str, error: object) -> str | None:
    assert isinstance(error, errors.LeaseLostError)
    return f"how it goes on there: {nova} runs show {shlex.quote(error.run_id)}"


def _failed(nova: str, error: object) -> str | None:
    assert isinstance(error, errors.StepFailedError)
    return f"the steps before it are recorded; to go on from there: {nova} resume {shlex.quote(error.run_id)} --reopen"


_TABLE: Final[dict[type[errors.NovaError], tuple[ExitCode, _Remedy]]] = {
    errors.NovaError: (ExitCode.UNEXPECTED, _nothing),
    errors.ConfigurationError: (ExitCode.CONFIGURATION, _nothing),
    errors.InvalidInputError: (ExitCode.INVALID_INPUT, _nothing),
    errors.StoreError: (ExitCode.STORE_UNAVAILABLE, _nothing),
    errors.StoreDamagedError: (ExitCode.STORE_DAMAGED, _nothing),
    errors.BudgetError: (ExitCode.BUDGET_REFUSED, _nothing),
    errors.BudgetExceededError: (ExitCode.BUDGET_REFUSED, _exceeded),
    errors.BudgetStoppedError: (ExitCode.BUDGET_REFUSED, _lift_stop),
    errors.HoldConflictError: (ExitCode.HOLD, lambda nova, _: f"{nova} budget holds"),
    errors.UnknownHoldError: (ExitCode.HOLD, lambda nova, _: f"{nova} budget holds"),
    errors.UnboundedCallError: (ExitCode.UNPRICED, _nothing),
    errors.CheckpointError: (ExitCode.RUN_CONFLICT, _nothing),
    errors.RunNotFoundError: (ExitCode.RUN_NOT_FOUND, lambda nova, _: f"{nova} runs list"),
    errors.RunExistsError: (
        ExitCode.RUN_EXISTS,
        lambda nova, error: (
            f"{nova} resume {shlex.quote(error.run_id)}, or name another --run-id"
            if isinstance(error, errors.RunExistsError)
            else None
        ),
    ),
    errors.RunFinishedError: (ExitCode.RUN_FINISHED, _finished),
    errors.RunBusyError: (ExitCode.RUN_BUSY, _busy),
    errors.LeaseLostError: (ExitCode.RUN_CONFLICT, _taken_over),
    errors.CheckpointCorruptError: (ExitCode.STORE_DAMAGED, _nothing),
    errors.IdempotencyError: (ExitCode.RUN_CONFLICT, _nothing),
    errors.LLMError: (ExitCode.PROVIDER, _nothing),
    errors.WorkflowError: (ExitCode.RUN_FAILED, _nothing),
    errors.WorkflowDefinitionError: (ExitCode.DEFINITION, _nothing),
    errors.WorkflowChangedError: (ExitCode.RUN_CHANGED, _nothing),
    errors.DocumentError: (ExitCode.DOCUMENT, _nothing),
    errors.StepFailedError: (ExitCode.RUN_FAILED, _failed),
    errors.RunDeadlineError: (ExitCode.RUN_DEADLINE, _nothing),
    errors.RunWaitingError: (ExitCode.RUN_WAITING, _waiting),
    errors.RunAbortedError: (ExitCode.RUN_ABORTED, _nothing),
}


_OUTPUT_ERRNOS: Final = {errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT}
"""What writing to standard output can meet; stores and documents name their files and have errors of their own."""


def explain(error: BaseException, *, nova: str = "nova") -> Explanation:
    """Return what to tell a user about an error; a class without an entry is told as its nearest ancestor.

    Args:
        error: any exception.
        nova: how the program was called, for remedies that can be pasted.
    """
    if isinstance(error, errors.StepFailedError) and isinstance(error.__cause__, errors.UnboundedCallError):
        # The step did not fail at its work: it was never permitted to begin.
        return Explanation(
            exit_code=ExitCode.UNPRICED, code=error.__cause__.code, message=str(error), remedy=_failed(nova, error)
        )
    if isinstance(error, errors.NovaError):
        exit_code, remedy = next(_TABLE[cls] for cls in type(error).__mro__ if cls in _TABLE)
        return Explanation(exit_code=exit_code, code=error.code, message=str(error), remedy=remedy(nova, error))
    if isinstance(error, Ended):
        return error.explanation
    if isinstance(error, KeyboardInterrupt):
        return Explanation(exit_code=ExitCode.INTERRUPTED, code="ERR_INTERRUPTED", message="interrupted")
    if isinstance(error, BrokenPipeError):
        return Explanation(exit_code=ExitCode.CLOSED_PIPE, code="ERR_CLOSED_PIPE", message="the output was closed")
    if isinstance(error, OSError) and error.errno in _OUTPUT_ERRNOS and error.filename is None:
        return Explanation(
            exit_code=ExitCode.OUTPUT, code="ERR_OUTPUT", message=f"the output could not be written: {error.strerror}"
        )
    return Explanation(
        exit_code=ExitCode.UNEXPECTED,
        code="ERR_UNEXPECTED",
        message=f"unexpected {type(error).__name__}: {error}" if str(error) else f"unexpected {type(error).__name__}",
        remedy="what was recorded stays; NOVA_DEBUG=1 shows where it happened",
    )
