"""The idempotency guard: one key, one recorded response."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from app.errors import IdempotencyError, IdempotencyLeaseLostError, InvalidInputError, LLMError, StoreError
from app.metrics import guard_metrics
from app.skills.guards.holding import HoldKeeper
from app.skills.guards.recording import decode_response, encode_response, fingerprint, replayed_events
from app.skills.guards.wrapper import (
    Clock,
    Deadline,
    Guard,
    Patience,
    Sleep,
    closing_stream,
    ended_early,
    persist,
    to_the_end,
)
from app.skills.llm_invoke_v2 import (
    CallContext,
    LLMAdapter,
    LLMConfig,
    LLMResponse,
    Prompt,
    StreamEnd,
    StreamEvent,
)
from app.stores.budget.contract import BudgetStore
from app.stores.holder import Holder
from app.stores.idempotency.contract import DEFAULT_LEASE, DEFAULT_TTL, Completed, IdempotencyStore, InProgress, Started

__all__ = ["IdempotentAdapter"]

_FIRST_POLL_S: Final = 0.05
_LONGEST_POLL_S: Final = 1.0
_SHORTEST_POLL_S: Final = 0.001
_HEARTBEATS_PER_LEASE: Final = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """A key that this call owns, and the config and context to make the call with."""

    key: str
    tenant_id: str
    token: int
    config: LLMConfig
    context: CallContext
    recording: _Recording


@dataclass(slots=True)
class _Recording:
    """Whether a claim's response is on record; its owner is the task that makes the call."""

    done: bool = False


class IdempotentAdapter(Guard):
    """Makes a call once per ``context.idempotency_key`` and gives its recorded response to every repeat.

    The promise:

    - One recorded response per tenant and key. A repeat gets it with ``replayed=True`` and ``metered=True``; nothing is
      sent and nothing is charged. A replayed stream is one piece for each block, and its end.
    - Repeats that come while the call is being made wait for it, up to their own deadline.
    - The same key with another request is ``IdempotencyConflictError``; what is asked for counts, not how long to wait.
    - A budget guard inside has the response recorded before it settles. What a crash in between left open, a repeat
      settles by the recorded cost.
    - A call that failed or was cancelled records nothing: the key is free, and the next repeat makes the call.
    - If the store does not answer, the call is not made.
    - The key stays owned while the call runs. Whoever lost it (a process that stood still for longer than the lease)
      gets ``IdempotencyLeaseLostError`` instead of a second response; repeat the call for the recorded one.

    Where the response cannot be recorded because the store stopped answering, it is returned with a warning, since it
    is paid. A call without a key is handed on as it is.

    Args:
        inner: makes the call; its holds carry the key's fencing token.
        store: remembers results.
        budget: settles, at a repeat, a hold that the recorded call left open; None where no budget is kept.
        lease: how long a key stays owned without a sign of life.
        ttl: how long a response is kept.
        patience: how long the recording is tried.
        clock, sleep, random_share: the present time, the pause, and numbers from 0 to 1, for tests.
    """

    def __init__(
        self,
        inner: LLMAdapter,
        *,
        store: IdempotencyStore,
        budget: BudgetStore | None = None,
        lease: timedelta = DEFAULT_LEASE,
        ttl: timedelta = DEFAULT_TTL,
        patience: Patience | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        random_share: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(inner)
        self._store = store
        self._lease = lease
        self._ttl = ttl
        self._patience = patience or Patience()
        self._holds = None if budget is None else HoldKeeper(budget, self._patience)
        self._clock = clock
        self._sleep = sleep
        self._random_share = random_share
        self._holder: Holder | None = None

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Make the call, or return the recorded response of the key.

        Raises:
            IdempotencyConflictError: the key belongs to another request.
            IdempotencyLeaseLostError: the key was taken over meanwhile; the response is discarded.
            IdempotencyStoreUnavailableError: nothing was sent.
            LLMError: as the inner adapter; ``ERR_LLM_TIMEOUT`` also where a call in progress did not end in time.
        """
        if context is None or context.idempotency_key is None:
            return await self.inner.invoke(prompt, config, context=context)
        claim = await self._claim(context.idempotency_key, prompt, config, context)
        if isinstance(claim, LLMResponse):
            return claim
        alive = asyncio.ensure_future(self._stay_alive(claim))
        try:
            response = await self.inner.invoke(prompt, claim.config, context=claim.context)
            return response if claim.recording.done else await self._record(claim, response)
        except BaseException:
            if not claim.recording.done:
                await to_the_end(self._abandon(claim))
            raise
        finally:
            alive.cancel()

    async def stream(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Stream the call, recorded before :class:`StreamEnd` is handed on, or replay it; errors as for ``invoke``."""
        if context is None or context.idempotency_key is None:
            async with closing_stream(self.inner.stream(prompt, config, context=context)) as events:
                async for event in events:
                    yield event
            return
        claim = await self._claim(context.idempotency_key, prompt, config, context)
        if isinstance(claim, LLMResponse):
            for event in replayed_events(claim):
                yield event
            return
        alive = asyncio.ensure_future(self._stay_alive(claim))
        response: LLMResponse | None = None
        try:
            async with closing_stream(self.inner.stream(prompt, claim.config, context=claim.context)) as events:
                async for event in events:
                    if isinstance(event, StreamEnd):
                        response = event.response
                        if not claim.recording.done:
                            response = await self._record(claim, response)
                        break
                    yield event
                else:
                    raise ended_early(self.adapter_id, model=claim.config.model)
        except BaseException:
            if not claim.recording.done:
                await to_the_end(self._abandon(claim))
            raise
        finally:
            alive.cancel()
        yield StreamEnd(response)

    async def _claim(
        self, key: str, prompt: Prompt, config: LLMConfig | None, context: CallContext
    ) -> _Claim | LLMResponse:
        """Own the key, or return the recorded response, waiting for one that is on its way."""
        wanted = fingerprint(prompt, config)
        families = await guard_metrics()
        config = config or LLMConfig()
        deadline = Deadline(config, context, clock=self._clock)
        poll_s = _FIRST_POLL_S
        while True:
            begun = await self._begin(key, wanted, context.tenant_id)
            if isinstance(begun, Completed):
                recorded = decode_response(begun.result, schema=config.schema)
                response = replace(recorded, replayed=True, metered=True)
                if self._holds is not None and response.hold_id is not None and response.cost is not None:
                    await self._holds.make_good(response.hold_id, response.cost, tenant_id=context.tenant_id)
                families.replays.inc()
                return response
            if isinstance(begun, Started):
                if begun.attempt > 1:
                    families.takeovers.inc()
                break
            if deadline.remaining_s() <= 0:
                raise self._still_in_progress(key, begun, config)
            pause_s = min(poll_s * (1 - self._random_share() / 2), begun.retry_after.total_seconds())
            await self._sleep(min(max(pause_s, _SHORTEST_POLL_S), max(deadline.remaining_s(), _SHORTEST_POLL_S)))
            poll_s = min(2 * poll_s, _LONGEST_POLL_S)

        async def keep(response: LLMResponse) -> LLMResponse:
            return await self._record(claim, response)

        try:
            config, context = deadline.narrow(config, context, adapter_id=self.adapter_id, fence=begun.token, keep=keep)
        except LLMError:
            await to_the_end(self._give_up(key, begun.token, context.tenant_id))
            raise
        claim = _Claim(
            key=key,
            tenant_id=context.tenant_id,
            token=begun.token,
            config=config,
            context=context,
            recording=_Recording(),
        )
        return claim

    async def _begin(self, key: str, wanted: str, tenant_id: str) -> Started | InProgress | Completed:
        beginning = asyncio.ensure_future(
            self._store.begin(key, wanted, holder=self._me(), lease=self._lease, tenant_id=tenant_id)
        )
        try:
            return await to_the_end(beginning)
        except asyncio.CancelledError:
            if not beginning.cancelled() and beginning.exception() is None:
                begun = beginning.result()
                if isinstance(begun, Started):
                    await to_the_end(self._give_up(key, begun.token, tenant_id))
            raise

    async def _record(self, claim: _Claim, response: LLMResponse) -> LLMResponse:
        """Record the response for the key; where that cannot be done, return it with a warning, since it is paid.

        If cancelled, it goes on to its end; where the response is not on record then, nobody gets it, and the
        cancellation has the reason as its cause.
        """
        try:
            await to_the_end(self._write(claim, response))
        except (StoreError, InvalidInputError) as error:
            _log.error("the response for the idempotency key %r could not be recorded: %s", claim.key, error)
            try:
                await to_the_end(self._abandon(claim))
            except asyncio.CancelledError as cancelled:
                raise cancelled from error
            claim.recording.done = True  # as far as it can be: the key is free, and the response is handed on
            warning = f"not recorded under its idempotency key, so a repeat makes the call again: {error}"
            return replace(response, warnings=(*response.warnings, warning))
        return response

    async def _write(self, claim: _Claim, response: LLMResponse) -> None:
        result = encode_response(response)
        await persist(
            lambda: self._store.complete(claim.key, claim.token, result, ttl=self._ttl, tenant_id=claim.tenant_id),
            self._patience,
        )
        claim.recording.done = True

    async def _abandon(self, claim: _Claim) -> None:
        await self._give_up(claim.key, claim.token, claim.tenant_id)

    async def _give_up(self, key: str, token: int, tenant_id: str) -> None:
        """Free the key for the next repeat; where that cannot be done, the end of the lease frees it."""
        try:
            await persist(lambda: self._store.abandon(key, token, tenant_id=tenant_id), self._patience)
        except IdempotencyLeaseLostError:
            # Whoever lost a key comes here, once: what it could not record, it gives up.
            (await guard_metrics()).lease_losses.labels("key").inc()
        except (IdempotencyError, StoreError) as error:
            _log.warning("the idempotency key %r could not be freed: %s; its lease ends by itself", key, error)

    async def _stay_alive(self, claim: _Claim) -> None:
        """Prolong the lease while the call runs. A lost lease is not the end of the call: recording it will say so."""
        while True:
            await self._sleep(self._lease.total_seconds() / _HEARTBEATS_PER_LEASE)
            try:
                await self._store.heartbeat(claim.key, claim.token, lease=self._lease, tenant_id=claim.tenant_id)
            except IdempotencyLeaseLostError as error:
                _log.warning("the idempotency key %r was taken over while its call was running: %s", claim.key, error)
                return
            except StoreError as error:
                _log.warning("no sign of life for the idempotency key %r: %s; trying again", claim.key, error)

    def _me(self) -> Holder:
        """Return this process; asked for anew after a fork."""
        if self._holder is None or self._holder.pid != os.getpid():
            self._holder = Holder.current()
        return self._holder

    def _still_in_progress(self, key: str, begun: InProgress, config: LLMConfig) -> LLMError:
        return LLMError(
            f"the call with the idempotency key {key!r} is still being made by {begun.holder}; repeat it later",
            code="ERR_LLM_TIMEOUT",
            retryable=True,
            billed="no",
            provider=self.adapter_id,
            model=config.model,
        )
