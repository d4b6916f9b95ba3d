"""The rules of a run: what it may spend, how long it may take, how a step is tried again; and who keeps its budget.

``InMemoryBudgetStore`` and ``RedisBudgetStore`` are names of :mod:`app.stores.budget`, loaded when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from app.errors import InvalidInputError, LLMError, NovaError
from app.money import Microcents, check_amount, format_usd
from app.stores.budget.checks import check_window
from app.stores.budget.contract import Limit, Window
from app.stores.names import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.stores.budget.contract import BudgetStore
    from app.stores.budget.memory import InMemoryBudgetStore
    from app.stores.budget.redis import RedisBudgetStore

__all__ = [
    "NO_POLICY",
    "NO_RETRY",
    "InMemoryBudgetStore",
    "RedisBudgetStore",
    "Retries",
    "RetryPolicy",
    "RunLimits",
    "SpendPolicy",
    "agent_scope",
    "retry_policy",
    "set_once",
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
class SpendPolicy:
    """What may be spent by role, in microcents; handed to the ``Runner``, and kept as limits of the budget store.

    A limit is set where its scope has none yet and has spent nothing, and never again: what somebody sets or removes
    later holds (``nova budget set``). A call is held to all of them at once, in one step of the store; the error of a
    refused one names the scope and window that was in the way.

    Attributes:
        step: the most that each step of a run may spend in all of its attempts; None where only its run limits it.
        run: the budget of a run that is started without one.
        agents: by the name of an agent, the most in each window; a call names its agent by ``agent_scope(name)``.
        tenant: the most that all calls of the tenant may spend in each window.
    """

    step: Microcents | None = None
    run: Microcents | None = None
    agents: Mapping[str, Mapping[Window, Microcents]] = field(default_factory=dict)
    tenant: Mapping[Window, Microcents] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no store would keep.

        Raises:
            InvalidInputError: an amount, window or name that cannot be a limit's.
        """
        for what, amount in (("a step", self.step), ("a run", self.run)):
            if amount is not None:
                check_amount(amount, what=f"the limit of {what}")
        for limit in self.limits:
            check_name(limit.scope, what="scope")
            check_window(limit.window)
            check_amount(limit.amount, what=f"the limit of {limit.scope!r}")

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits that do not belong to one run: those of the tenant and of agents."""
        roles = [("tenant", self.tenant), *((agent_scope(name), windows) for name, windows in self.agents.items())]
        return tuple(
            Limit(scope=scope, window=window, amount=amount)
            for scope, windows in roles
            for window, amount in windows.items()
        )

    async def apply(self, budget: BudgetStore, *, tenant_id: str) -> None:
        """Set the limits of the tenant and of agents where they are not set yet; again is a no-op.

        A limit that is not in force, because its scope had spent something without it, is told in the log, once.
        """
        for limit in self.limits:
            if not await set_once(budget, limit, tenant_id=tenant_id):
                _warn_once(tenant_id, limit)


NO_POLICY: Final = SpendPolicy()
"""Nothing is limited but by what somebody sets."""


def agent_scope(name: str) -> str:
    """Return the scope in which an agent's calls are counted, for ``scopes=`` of a call."""
    return f"agent:{name}"


async def set_once(budget: BudgetStore, limit: Limit, *, tenant_id: str) -> bool:
    """Set a limit in a window that has none, unless something was spent or held there: then somebody removed it.

    Returns:
        Whether the window has a limit now, this one or another.
    """
    if limit.window == "hour":
        # Hours are counted only while they are limited, so what was spent says nothing.
        if not any(each.window == "hour" for each in await budget.limits(scope=limit.scope, tenant_id=tenant_id)):
            await budget.set_limit(limit.scope, limit.amount, window="hour", tenant_id=tenant_id)
        return True
    total, *others = await budget.usage(limit.scope, tenant_id=tenant_id)
    found = next(each for each in (total, *others) if each.window == limit.window)
    if found.limit is None and total.spent == total.held == 0:
        await budget.set_limit(limit.scope, limit.amount, window=limit.window, tenant_id=tenant_id)
        return True
    return found.limit is not None


@lru_cache(maxsize=1024)
def _warn_once(tenant_id: str, limit: Limit) -> None:
    """Say that nothing holds a scope to its policy: its limit was removed, or the policy came after the spending."""
    import logging

    command = "nova" if tenant_id == "default" else f"nova --tenant {tenant_id}"
    logging.getLogger(__name__).warning(
        "the policy's limit of %r (%s) is not in force: its scope has spent without one. To set it: "
        "%s budget set %s '%s'%s",
        limit.scope,
        limit.window,
        command,
        limit.scope,
        format_usd(limit.amount).replace(",", ""),
        "" if limit.window == "total" else f" --window {limit.window}",
    )


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
