"""The rules of a run: what it may spend, how long it may take, how a step is tried again; and who keeps its budget.

``InMemoryBudgetStore`` and ``RedisBudgetStore`` are names of :mod:`app.stores.budget`, loaded when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from app.errors import InvalidInputError, LLMError, NovaError
from app.money import Microcents, check_amount

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.stores.budget.memory import InMemoryBudgetStore
    from app.stores.budget.redis import RedisBudgetStore

__all__ = [
    "NO_RETRY",
    "InMemoryBudgetStore",
    "RedisBudgetStore",
    "Retries",
    "RetryPolicy",
    "RunLimits",
    "retry_policy",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What a run was given at its start; recorded with it.

    Attributes:
        budget: the most that it may spend over its whole life, in microcents; None where only other scopes limit it.
        deadline_at: when it must have ended (UTC); None where it may take as long as it takes.
    """

    budget: Microcents | None = None
    deadline_at: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be kept exactly.

        Raises:
            InvalidInputError: the budget is not an amount, or the deadline has no time zone.
        """
        if self.budget is not None:
            check_amount(self.budget, what="the budget of a run")
        if self.deadline_at is not None and self.deadline_at.tzinfo is None:
            raise InvalidInputError("a deadline needs a time zone")

    def time_left(self, now: datetime) -> timedelta | None:
        """Return how long the run may still take, negative where it is late; None where there is no deadline."""
        return None if self.deadline_at is None else self.deadline_at - now


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a step is tried, and how long it waits in between.

    Before attempt ``n + 1`` it waits ``first_delay_s * factor ** (n - 1)``, at most ``max_delay_s``, of which the share
    ``jitter`` is random; never less than what a provider asked for by Retry-After.

    Attributes:
        attempts: at least 1, the first one included.
        first_delay_s, max_delay_s: seconds, at least 0.
        factor: at least 1.
        jitter: 0 (none) to 1 (the whole delay is random).
    """

    attempts: int = 3
    first_delay_s: float = 0.5
    factor: float = 2.0
    max_delay_s: float = 30.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a policy that has no meaning.

        Raises:
            InvalidInputError: which field, its value, and what it may be.
        """
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise InvalidInputError(f"attempts must be an int of at least 1 ({self.attempts!r} given)")
        if not (self.first_delay_s >= 0 and self.max_delay_s >= 0 and self.factor >= 1 and 0 <= self.jitter <= 1):
            raise InvalidInputError(
                "delays must be at least 0 s, factor at least 1 and jitter from 0 to 1 "
                f"({self.first_delay_s!r}, {self.max_delay_s!r}, {self.factor!r} and {self.jitter!r} given)"
            )

    def retries(self, error: Exception, *, attempt: int) -> bool:
        """Whether another attempt follows ``attempt`` (the first is 1), which failed with ``error``.

        Nova's own errors say themselves whether they may pass; any other exception is taken to.
        """
        if attempt >= self.attempts:
            return False
        return error.retryable if isinstance(error, NovaError) else True

    def delay_s(self, error: Exception, *, attempt: int, random: Callable[[], float]) -> float:
        """Return how long to wait after ``attempt`` failed; ``random`` gives a number from 0 to 1."""
        try:
            full = min(self.max_delay_s, self.first_delay_s * self.factor ** (attempt - 1))
        except OverflowError:
            full = self.max_delay_s
        delay = full * (1 - self.jitter * random())
        if isinstance(error, LLMError) and error.retry_after is not None:
            return max(delay, error.retry_after.total_seconds())
        return delay


Retries: TypeAlias = RetryPolicy | int | None
"""How a step is retried: a policy, a number of *further* attempts with the usual delays, or None for the default."""

NO_RETRY: Final = RetryPolicy(attempts=1)
"""The default of a step: LLM calls have retries of their own, other effects are repeated only where one asks for it."""


def retry_policy(retries: Retries) -> RetryPolicy:
    """Return the policy that ``retries`` stands for.

    Raises:
        InvalidInputError: a negative number of retries.
    """
    if retries is None:
        return NO_RETRY
    if isinstance(retries, RetryPolicy):
        return retries
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise InvalidInputError(f"retries must be a RetryPolicy or an int of at least 0 ({retries!r} given)")
    return RetryPolicy(attempts=retries + 1)


def __getattr__(name: str) -> object:
    if name == "InMemoryBudgetStore":
        from app.stores.budget.memory import InMemoryBudgetStore

        return InMemoryBudgetStore
    if name == "RedisBudgetStore":
        from app.stores.budget.redis import RedisBudgetStore

        return RedisBudgetStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
