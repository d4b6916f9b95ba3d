"""The errors of Nova, one tree.

::

    NovaError
    ├── ConfigurationError                 a variable or argument cannot be met: which one, and the remedy
    │   └── SecretsUnavailableError        Vault is sealed, down or forbidding, and nothing was read from it before
    ├── InvalidInputError (ValueError)     a value outside what a verb takes; nothing was changed
    │   └── StateNotStorableError          not JSON, too large, nested too deeply
    ├── StoreError
    │   ├── StoreUnavailableError          retryable; nothing is known about the effect
    │   │   ├── BudgetStoreUnavailableError
    │   │   ├── CheckpointStoreUnavailableError
    │   │   ├── IdempotencyStoreUnavailableError
    │   │   └── ArchiveUnavailableError
    │   ├── StoreDamagedError              corrupt, foreign or newer database
    │   ├── ArchiveObjectExistsError       the key is taken: perhaps by a first try whose answer was lost
    │   ├── ArchiveObjectMissingError      no object of this key
    │   ├── OffloadBusyError               another job works on the archive
    │   └── OffloadFencedError             this job was superseded: it must stop
    ├── BudgetError
    │   ├── BudgetExceededError            a limit would be passed: scope, window, limit, spent, held
    │   ├── BudgetStoppedError             an emergency stop is in force
    │   ├── HoldConflictError              a hold id used for something else, or already final
    │   ├── UnknownHoldError               no such hold, or folded into the base
    │   └── UnboundedCallError             no price, or no upper bound, where a limit applies
    ├── CheckpointError
    │   ├── RunNotFoundError (LookupError)
    │   ├── RunExistsError
    │   ├── RunFinishedError               completed and aborted are final
    │   ├── RunBusyError                   somebody else holds a live lease
    │   ├── CheckpointConflictError        the version moved
    │   │   ├── LeaseLostError             the token was superseded: stop, discard
    │   │   └── StepConflictError          the step is recorded with another input or output
    │   └── CheckpointCorruptError         the hash chain or a stored value does not verify
    ├── IdempotencyError
    │   ├── IdempotencyConflictError       the key was used for a different request
    │   └── IdempotencyLeaseLostError      somebody else took the key over: discard the result
    ├── LLMError                           code, category, billed, retry_after, provider, request id
    └── WorkflowError
        ├── WorkflowDefinitionError        a workflow or flow file that cannot run, and where
        ├── WorkflowChangedError           the code or input differs from what was recorded
        ├── DocumentError                  an input document that cannot be read
        ├── StepFailedError                a step failed after its retries
        ├── ToolError                      a tool tells the model that it could not do what was asked
        ├── ToolRoundsError                the model asked for tools in every round that it had
        ├── StepTimeoutError
        ├── RunDeadlineError
        ├── RunWaitingError                parked: by its budget, or for a signal
        └── RunAbortedError

Every class has ``code``, a stable string for programs, and ``retryable``: whether the same call may succeed later
without anybody changing anything. Ids are attributes. No message holds a secret.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar, Literal

Billed = Literal["yes", "no", "unknown"]
Category = Literal[
    "TRANSIENT",
    "RATE_LIMIT",
    "CLIENT_ERROR",
    "SERVER_ERROR",
    "AUTH_FAIL",
    "NETWORK",
    "VALIDATION",
    "RESOURCE",
    "TIMEOUT",
    "PERMANENT",
]


class NovaError(Exception):
    """The root: catching it catches everything that Nova raises on purpose."""

    code: str = "ERR_NOVA"
    retryable: bool = False


class ConfigurationError(NovaError):
    """A configuration that cannot be met; the text names the variable and the remedy."""

    code = "ERR_CONFIGURATION"

    def __init__(self, message: str, *, variable: str | None = None) -> None:
        super().__init__(message)
        self.variable = variable


class SecretsUnavailableError(ConfigurationError):
    """Vault is sealed, down or forbidding, and the secrets in it are not known from before; it may be back later.

    ``forbidden``: it answers, and denies this one.
    """

    code = "ERR_SECRETS_UNAVAILABLE"
    retryable = True

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        super().__init__(message, variable="VAULT_ADDR")
        self.forbidden = forbidden


class InvalidInputError(NovaError, ValueError):
    """A value that a verb does not take; nothing was changed."""

    code = "ERR_INVALID_INPUT"


class StateNotStorableError(InvalidInputError):
    """A value that is not JSON, is too large or is nested too deeply; nothing was written."""

    code = "ERR_STATE_NOT_STORABLE"


# --- stores -----------------------------------------------------------------------------------------------------


class StoreError(NovaError):
    """A store could not do its work."""

    code = "ERR_STORE"


class StoreUnavailableError(StoreError):
    """A store could not be reached, or did not answer in time; whether the verb took effect is not known."""

    code = "ERR_STORE_UNAVAILABLE"
    retryable = True


class BudgetStoreUnavailableError(StoreUnavailableError):
    """The budget store did not answer: calls are refused, it never reads as "nothing spent"."""

    code = "ERR_BUDGET_STORE_UNAVAILABLE"


class CheckpointStoreUnavailableError(StoreUnavailableError):
    """The checkpoint store did not answer; every verb may be repeated safely."""

    code = "ERR_CHECKPOINT_STORE_UNAVAILABLE"


class IdempotencyStoreUnavailableError(StoreUnavailableError):
    """The idempotency store did not answer: the call is refused, it is never made "anyway"."""

    code = "ERR_IDEMPOTENCY_STORE_UNAVAILABLE"


class StoreDamagedError(StoreError):
    """The database is corrupt, belongs to another program, or was written by a newer Nova."""

    code = "ERR_STORE_DAMAGED"


class ArchiveUnavailableError(StoreUnavailableError):
    """The archive did not answer; an object that was being written may be there or not."""

    code = "ERR_ARCHIVE_UNAVAILABLE"


class ArchiveObjectExistsError(StoreError):
    """An object of this key is there already; it may be the caller's own, whose acknowledgement was lost."""

    code = "ERR_ARCHIVE_OBJECT_EXISTS"

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class ArchiveObjectMissingError(StoreError):
    """There is no object of this key."""

    code = "ERR_ARCHIVE_OBJECT_MISSING"

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class OffloadBusyError(StoreError):
    """Another job holds the archive's lease; ``expires_in`` is by the database's clock."""

    code = "ERR_OFFLOAD_BUSY"
    retryable = True

    def __init__(self, message: str, *, holder: str, expires_in: timedelta) -> None:
        super().__init__(message)
        self.holder = holder
        self.expires_in = expires_in


class OffloadFencedError(StoreError):
    """The job's lease ended or was taken over: nothing that it began may be committed."""

    code = "ERR_OFFLOAD_FENCED"


# --- budgets ----------------------------------------------------------------------------------------------------


class BudgetError(NovaError):
    """A budget refuses."""

    code = "ERR_BUDGET"


class BudgetExceededError(BudgetError):
    """A hold does not fit under a limit. Amounts are microcents; ``resets_at`` is None for the window ``total``."""

    code = "ERR_BUDGET_EXCEEDED"

    def __init__(
        self,
        message: str,
        *,
        scope: str,
        window: str,
        limit: int,
        spent: int,
        held: int,
        requested: int,
        resets_at: datetime | None,
        tenant_id: str = "default",
    ) -> None:
        super().__init__(message)
        self.scope = scope
        self.window = window
        self.limit = limit
        self.spent = spent
        self.held = held
        self.requested = requested
        self.resets_at = resets_at
        self.tenant_id = tenant_id


class BudgetStoppedError(BudgetError):
    """An emergency stop refuses every call until it is lifted. ``tenant_id`` is None where it stops all tenants."""

    code = "ERR_BUDGET_STOPPED"

    def __init__(self, message: str, *, tenant_id: str | None, reason: str, since: datetime) -> None:
        super().__init__(message)
        self.tenant_id = tenant_id
        self.reason = reason
        self.since = since


class HoldConflictError(BudgetError):
    """A hold id used with another amount or other scopes, or a verb on a hold that is final."""

    code = "ERR_HOLD_CONFLICT"

    def __init__(self, message: str, *, hold_id: str) -> None:
        super().__init__(message)
        self.hold_id = hold_id


class UnknownHoldError(BudgetError):
    """No hold of this id: it never was, or it was closed more than seven days ago and folded. Nothing is charged."""

    code = "ERR_UNKNOWN_HOLD"

    def __init__(self, message: str, *, hold_id: str) -> None:
        super().__init__(message)
        self.hold_id = hold_id


class UnboundedCallError(BudgetError):
    """A call without a known price or upper bound where a limit applies; it was not sent."""

    code = "ERR_UNBOUNDED_CALL"


# --- checkpoints ------------------------------------------------------------------------------------------------


class CheckpointError(NovaError):
    """A checkpoint verb was refused; nothing was written."""

    code = "ERR_CHECKPOINT"

    def __init__(self, message: str, *, run_id: str, tenant_id: str = "default") -> None:
        super().__init__(message)
        self.run_id = run_id
        self.tenant_id = tenant_id


class RunNotFoundError(CheckpointError, LookupError):
    """No run of this id in this tenant."""

    code = "ERR_RUN_NOT_FOUND"


class RunExistsError(CheckpointError):
    """A run of this id exists already."""

    code = "ERR_RUN_EXISTS"


class RunFinishedError(CheckpointError):
    """The run is completed or aborted, which is final (or failed, and its resumption was not asked for)."""

    code = "ERR_RUN_FINISHED"

    def __init__(self, message: str, *, run_id: str, status: str, tenant_id: str = "default") -> None:
        super().__init__(message, run_id=run_id, tenant_id=tenant_id)
        self.status = status


class RunBusyError(CheckpointError):
    """Somebody else holds a live lease on the run; ``expires_in`` is by the store's clock."""

    code = "ERR_RUN_BUSY"
    retryable = True

    def __init__(
        self, message: str, *, run_id: str, holder: str, expires_in: timedelta, tenant_id: str = "default"
    ) -> None:
        super().__init__(message, run_id=run_id, tenant_id=tenant_id)
        self.holder = holder
        self.expires_in = expires_in


class CheckpointConflictError(CheckpointError):
    """The run moved on since it was read; nothing was written."""

    code = "ERR_CHECKPOINT_CONFLICT"


class LeaseLostError(CheckpointConflictError):
    """The lease was taken over: this writer must stop and discard what it has."""

    code = "ERR_LEASE_LOST"


class StepConflictError(CheckpointConflictError):
    """The step is recorded already, with another input or another output."""

    code = "ERR_STEP_CONFLICT"

    def __init__(self, message: str, *, run_id: str, step_id: str, tenant_id: str = "default") -> None:
        super().__init__(message, run_id=run_id, tenant_id=tenant_id)
        self.step_id = step_id


class CheckpointCorruptError(CheckpointError):
    """A stored step does not verify against the hash chain. ``step_id`` is None where the head itself is wrong."""

    code = "ERR_CHECKPOINT_CORRUPT"

    def __init__(self, message: str, *, run_id: str, step_id: str | None, tenant_id: str = "default") -> None:
        super().__init__(message, run_id=run_id, tenant_id=tenant_id)
        self.step_id = step_id


# --- idempotency ------------------------------------------------------------------------------------------------


class IdempotencyError(NovaError):
    """An idempotency verb was refused; nothing was changed."""

    code = "ERR_IDEMPOTENCY"

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class IdempotencyConflictError(IdempotencyError):
    """The key belongs to a different request."""

    code = "ERR_IDEMPOTENCY_CONFLICT"


class IdempotencyLeaseLostError(IdempotencyError):
    """The key was taken over or has ended: discard the result."""

    code = "ERR_IDEMPOTENCY_LEASE_LOST"


# --- LLM calls --------------------------------------------------------------------------------------------------


class LLMError(NovaError):
    """A provider call that gave no result.

    Attributes:
        code: ``ERR_LLM_…``, see :data:`LLMError.CODES`.
        category: the group that decides about retry and fallback.
        retryable: whether the same request may succeed later.
        billed: ``no`` only where the call provably was not sent, or was rejected unbilled.
        retry_after: what the provider asked for, None where it asked for nothing.
        provider: the adapter's id.
        model: the model that was asked, None where none was chosen yet.
        request_id: the provider's id of the request, None where there is none.
        status: the HTTP status, None where there was no answer.
        partial_text: what a cut stream had delivered.
        partial_input_tokens, partial_output_tokens: usage reported before the cut, None where none was.
    """

    CODES: ClassVar[dict[str, Category]] = {
        "ERR_LLM_RATE_LIMITED": "RATE_LIMIT",
        "ERR_LLM_OVERLOADED": "TRANSIENT",
        "ERR_LLM_TIMEOUT": "TIMEOUT",
        "ERR_LLM_NETWORK": "NETWORK",
        "ERR_LLM_STREAM_CUT": "NETWORK",
        "ERR_LLM_INVALID_RESPONSE": "SERVER_ERROR",
        "ERR_LLM_SERVER_ERROR": "SERVER_ERROR",
        "ERR_LLM_CONFLICT": "TRANSIENT",
        "ERR_LLM_INVALID_PROMPT": "VALIDATION",
        "ERR_LLM_INVALID_REQUEST": "CLIENT_ERROR",
        "ERR_LLM_CONTENT_BLOCKED": "PERMANENT",
        "ERR_LLM_AUTH_FAILED": "AUTH_FAIL",
        "ERR_LLM_CONTEXT_TOO_LONG": "VALIDATION",
        "ERR_LLM_INVALID_MODEL": "CLIENT_ERROR",
        "ERR_LLM_PROVIDER_BUDGET": "RESOURCE",
        "ERR_LLM_CIRCUIT_OPEN": "TRANSIENT",
        "ERR_LLM_INVALID_OUTPUT": "VALIDATION",
    }

    def __init__(
        self,
        message: str,
        *,
        code: str,
        retryable: bool,
        billed: Billed,
        provider: str,
        model: str | None = None,
        retry_after: timedelta | None = None,
        request_id: str | None = None,
        status: int | None = None,
        partial_text: str = "",
        partial_input_tokens: int | None = None,
        partial_output_tokens: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.category: Category = self.CODES[code]
        self.retryable = retryable
        self.billed: Billed = billed
        self.provider = provider
        self.model = model
        self.retry_after = retry_after
        self.request_id = request_id
        self.status = status
        self.partial_text = partial_text
        self.partial_input_tokens = partial_input_tokens
        self.partial_output_tokens = partial_output_tokens


# --- workflows --------------------------------------------------------------------------------------------------


class WorkflowError(NovaError):
    """A workflow could not go on; what was recorded stays."""

    code = "ERR_WORKFLOW"


class WorkflowDefinitionError(WorkflowError):
    """A workflow or flow file that cannot run; the text says where and what to write instead."""

    code = "ERR_WORKFLOW_DEFINITION"


class WorkflowChangedError(WorkflowError):
    """The workflow's name, version or a step's input differs from what the run recorded."""

    code = "ERR_WORKFLOW_CHANGED"


class DocumentError(WorkflowError):
    """An input document that is unreadable, binary, empty or too large."""

    code = "ERR_DOCUMENT"

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class StepFailedError(WorkflowError):
    """A step failed after its retries; the cause is kept, and earlier steps are recorded."""

    code = "ERR_STEP_FAILED"

    def __init__(self, message: str, *, run_id: str, step_id: str, attempts: int) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.step_id = step_id
        self.attempts = attempts


class ToolError(WorkflowError):
    """A tool could not do what it was asked; raised by a tool, its text is told to the model as the result."""

    code = "ERR_TOOL"


class ToolRoundsError(WorkflowError):
    """The model still asked for tools when the rounds of a call with tools were used up; all of them are recorded."""

    code = "ERR_TOOL_ROUNDS"

    def __init__(self, message: str, *, run_id: str, step_id: str, rounds: int) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.step_id = step_id
        self.rounds = rounds


class StepTimeoutError(WorkflowError):
    """A step did not end within its timeout."""

    code = "ERR_STEP_TIMEOUT"
    retryable = True


class RunDeadlineError(WorkflowError):
    """The run passed its deadline; it can be resumed with a later one."""

    code = "ERR_RUN_DEADLINE"


class RunWaitingError(WorkflowError):
    """The run is parked and has given up its lease. ``waiting_for`` is ``budget`` or ``signal``."""

    code = "ERR_RUN_WAITING"

    def __init__(self, message: str, *, run_id: str, waiting_for: str) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.waiting_for = waiting_for


class RunAbortedError(WorkflowError):
    """The run was aborted, here or from elsewhere."""

    code = "ERR_RUN_ABORTED"

    def __init__(self, message: str, *, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id
