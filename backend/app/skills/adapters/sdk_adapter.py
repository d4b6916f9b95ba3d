"""What the adapters of the official SDKs share: the client of the loop, the credential, and failures made errors.

The SDKs are used for what they are good at: credentials, connections, error classes, server-sent events. Requests go
through ``client.post`` and answers are read as JSON, because the typed methods warn and refuse by rules of their own,
and build models of an answer without checking it.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, date, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final

from app.credentials import instead_of
from app.errors import ConfigurationError, LLMError
from app.loops import LoopClients
from app.skills.adapters.base import Answer, Attempt, BaseAdapter, Piece
from app.skills.adapters.failures import (
    AUTH_FAILED,
    INVALID_REQUEST,
    INVALID_RESPONSE,
    NETWORK,
    STREAM_CUT,
    TIMEOUT,
    Failure,
    address_of,
    is_usable_key,
    parse_retry_after,
    shown_cause,
)
from app.skills.adapters.wire import ErrorEventError, UnreadableAnswerError, mapping_of

if TYPE_CHECKING:
    import httpx2

    from app.credentials import Credential, CredentialSource
    from app.skills.pricing import PriceBook

__all__ = ["SdkAdapter"]

CONNECT_TIMEOUT_S: Final = 10.0
"""How long a connection may take to open; everything else is bounded by the deadline of the call."""

NO_KEY: Final = "no-key"
"""What is sent as a credential to a server that asks for none."""

_GAVE_UP_WAITING: Final = frozenset({408, 499, 504})
"""Who answers so stopped waiting, for the client (499 is nginx's) or for the model: the work may have been done."""

_attempt: ContextVar[Attempt | None] = ContextVar("nova_llm_attempt", default=None)
"""The attempt that is being sent by this task, for the hook of the HTTP client."""


class SdkAdapter(BaseAdapter):
    """An adapter that makes one attempt through a provider's SDK, without the SDK's retries.

    Args:
        api_key: None sends no real credential, for servers that ask for none.
        base_url: where the API is.
        default_model, prices, today: as for the base.
        now: the present time, for a Retry-After that is a date.
    """

    sdk_name: ClassVar[str]
    """The SDK's module, which is also the name of its distribution."""
    request_id_header: ClassVar[str]

    def __init__(
        self,
        *,
        api_key: CredentialSource | None,
        base_url: str,
        default_model: str,
        prices: Callable[[], PriceBook] | None = None,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(default_model=default_model, prices=prices, today=today)
        self._api_key = api_key
        self._base_url = base_url
        self._now = now
        self._clients: LoopClients[Any] = LoopClients(self._build_client)

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._clients.aclose()

    @abc.abstractmethod
    def _open_client(self, sdk: Any, options: dict[str, Any]) -> Any:
        """Build the SDK's asynchronous client."""

    @abc.abstractmethod
    async def _post(self, client: Any, attempt: Attempt) -> httpx2.Response:
        """Send the request and return the whole answer."""

    @abc.abstractmethod
    def _read(self, payload: Mapping[str, Any], attempt: Attempt) -> Answer:
        """Read the answer; raise ``UnreadableAnswerError`` where it is not one."""

    @abc.abstractmethod
    def _pieces(self, client: Any, attempt: Attempt) -> AsyncGenerator[Piece | Answer, None]:
        """Send the request and yield the answer as it arrives, the whole of it last."""

    @abc.abstractmethod
    def _rejection(self, status: int | None, body: object, headers: Mapping[str, str]) -> Failure:
        """Return what an answer with an error means, by the adapter's table; status None: it came inside a stream."""

    async def _ask(self, attempt: Attempt) -> Answer:
        credential = self._credential()
        try:
            return await self._ask_with(credential, attempt)
        except LLMError as error:
            another = await self._instead_of(credential, error)
            if another is None:
                raise
        return await self._ask_with(another, attempt)

    async def _ask_with(self, credential: Credential | None, attempt: Attempt) -> Answer:
        client = await self._client(credential, attempt)
        with self._translated(attempt):
            response = await self._sending(attempt, self._post(client, attempt))
            attempt.request_id = response.headers.get(self.request_id_header)
            kind = response.headers.get("content-type", "")
            if "html" in kind:
                raise UnreadableAnswerError(f"the answer is a page ({kind}) where JSON was expected")
            return self._read(mapping_of(response.json(), what="the answer"), attempt)

    async def _tell(self, attempt: Attempt) -> AsyncGenerator[Piece | Answer, None]:
        credential = self._credential()
        try:
            async with aclosing(self._tell_with(credential, attempt)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        except LLMError as error:
            # A rejection comes before the first piece, so nothing is told twice.
            another = None if attempt.began else await self._instead_of(credential, error)
            if another is None:
                raise
        async with aclosing(self._tell_with(another, attempt)) as pieces:
            async for piece in pieces:
                yield piece

    async def _tell_with(self, credential: Credential | None, attempt: Attempt) -> AsyncGenerator[Piece | Answer, None]:
        client = await self._client(credential, attempt)
        with self._translated(attempt):
            async with aclosing(self._pieces(client, attempt)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _open_stream(self, attempt: Attempt, opening: Awaitable[Any]) -> Any:
        """Send a request for a stream; return what the SDK makes of the answer, checked to be a stream."""
        stream = await self._sending(attempt, opening)
        response: httpx2.Response = getattr(stream, "response", stream)
        attempt.request_id = response.headers.get(self.request_id_header)
        kind = response.headers.get("content-type", "")
        if kind and not kind.startswith("text/event-stream"):
            await response.aclose()
            raise UnreadableAnswerError(
                f"the answer is {kind.partition(';')[0]!r} where a stream of events was expected"
            )
        attempt.began = True
        return stream

    def _credential(self) -> Credential | None:
        return None if self._api_key is None else self._api_key()

    async def _instead_of(self, rejected: Credential | None, error: LLMError) -> Credential | None:
        """Return another key to try once after one was rejected, which is unbilled: it may have been rotated."""
        if error.code != "ERR_LLM_AUTH_FAILED" or self._api_key is None or rejected is None:
            return None
        return await asyncio.to_thread(instead_of, self._api_key, rejected)

    async def _client(self, credential: Credential | None, attempt: Attempt) -> Any:
        """Return the loop's client with a credential in it."""
        client = await self._clients.get()
        key = NO_KEY if credential is None else credential.reveal()
        if not is_usable_key(key):
            del key  # a crash reporter shows the locals of every frame that an error came through
            message = "the API key is empty, or has a character that no key has, such as a line break"
            raise attempt.error(Failure(verdict=AUTH_FAILED, message=message))
        attempt.secret = None if credential is None else key
        # The first call imports the SDK; that is not the provider's latency.
        attempt.started = self._clock()
        client.api_key = key
        return client

    async def _sending(self, attempt: Attempt, request: Awaitable[Any]) -> Any:
        token = _attempt.set(attempt)
        try:
            return await request
        finally:
            _attempt.reset(token)

    def _build_client(self) -> Any:
        try:
            sdk = import_module(self.sdk_name)
        except ImportError as error:
            raise ConfigurationError(
                f"the {self.adapter_id} adapter needs the package {self.sdk_name}: pip install "
                f"'nova-llm[{self.adapter_id}]'"
            ) from error
        import httpx2

        timeout = httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S)
        http_client = sdk.DefaultAsyncHttpxClient(timeout=timeout, event_hooks={"request": [_watch]})
        # One attempt is one request: retries are the guards' business, because each must have a budget hold.
        options = {"base_url": self._base_url, "max_retries": 0, "timeout": timeout, "http_client": http_client}
        return self._open_client(sdk, options)

    @contextmanager
    def _translated(self, attempt: Attempt) -> Iterator[None]:
        """Turn whatever the SDK, the HTTP client and the reading of JSON raise into ``LLMError``."""
        import httpx2

        try:
            yield
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError, ErrorEventError) as error:
            raise attempt.error(self._failure(error, attempt)) from shown_cause(error, secret=attempt.secret)
        except Exception as error:
            # The SDK's own classes; they can be named only once it is imported.
            if type(error).__module__.partition(".")[0] != self.sdk_name:
                raise
            raise attempt.error(self._failure(error, attempt)) from shown_cause(error, secret=attempt.secret)

    def _failure(self, error: Exception, attempt: Attempt) -> Failure:
        import httpx2

        sdk = import_module(self.sdk_name)
        request_id = attempt.request_id
        if isinstance(error, sdk.APIStatusError):
            return self._rejection(error.status_code, error.body, error.response.headers)
        if isinstance(error, ErrorEventError):
            return self._rejection(None, error.body, {self.request_id_header: request_id or ""})
        if isinstance(error, sdk.APITimeoutError | httpx2.TimeoutException):
            what = "no connection in time" if not attempt.sent else "no answer in time"
            return Failure(verdict=TIMEOUT, message=f"{what} ({_why(error)})", request_id=request_id)
        if isinstance(error, sdk.APIConnectionError | httpx2.HTTPError | httpx2.StreamError | OSError):
            verdict = STREAM_CUT if attempt.began else NETWORK
            message = f"the connection to {address_of(self._base_url)} failed: {_why(error)}"
            return Failure(verdict=verdict, message=message, request_id=request_id)
        if isinstance(error, sdk.APIError) and not isinstance(error, sdk.APIResponseValidationError):
            return self._rejection(None, {"error": error.body}, {self.request_id_header: request_id or ""})
        if attempt.sent:
            message = f"the answer cannot be read: {_why(error)}"
            return Failure(verdict=INVALID_RESPONSE, message=message, request_id=request_id)
        return Failure(verdict=INVALID_REQUEST, message=f"the request cannot be sent: {_why(error)}")

    def _rejected(self, failure: Failure, headers: Mapping[str, str]) -> Failure:
        """Return the failure with what the headers say, and with what its status says whatever the body says."""
        verdict = TIMEOUT if failure.status in _GAVE_UP_WAITING else failure.verdict
        should_retry = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
        return replace(
            failure,
            verdict=verdict,
            request_id=headers.get(self.request_id_header) or None,
            retry_after=parse_retry_after(headers, now=self._now()),
            should_retry=should_retry,
        )


async def _watch(request: httpx2.Request) -> None:
    """Note on the attempt when the first byte of its request is written."""
    attempt = _attempt.get()
    if attempt is None:
        return

    async def trace(event: str, info: Mapping[str, Any]) -> None:  # noqa: ARG001  # as httpx2 calls it
        if event.endswith("send_request_headers.started"):
            attempt.sent = True

    request.extensions["trace"] = trace


def _why(error: BaseException) -> str:
    """Return the innermost reason of a chain of errors, in one line."""
    while (cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = cause
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
