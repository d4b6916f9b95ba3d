"""An archive in Cloudflare R2, or whatever speaks the S3 API, through obstore, which is imported at the first use.

An object is one PUT, never a multipart upload: R2 wants parts of equal size, keeps aborted ones for seven days, and has
no conditional completion for them. Its SHA-256 is sent with it, so that a body that changed on the way is refused. No
content encoding is set: R2 would decompress what it hands out, and ranges would no longer mean bytes of the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from app.errors import (
    ArchiveObjectExistsError,
    ArchiveObjectMissingError,
    ArchiveUnavailableError,
    ConfigurationError,
    NovaError,
)
from app.stores.archive.contract import ObjectInfo, check_key

if TYPE_CHECKING:
    from obstore.store import S3Store

    from app.credentials import Credential, CredentialSource

__all__ = ["R2Archive"]

T = TypeVar("T")

_REQUEST_TIMEOUT: Final = timedelta(seconds=60)
_CONNECT_TIMEOUT: Final = timedelta(seconds=5)
_RETRY_TIMEOUT: Final = timedelta(seconds=60)
_MAX_RETRIES: Final = 4
_LIST_PAGE: Final = 1_000


class R2Archive:
    """Objects in a bucket.

    Args:
        bucket: its name.
        endpoint: ``https://<account>.r2.cloudflarestorage.com``; ``http://`` is taken too, for a server of one's own.
        access_key_id, secret_access_key: asked for at each request, so that rotated ones need no restart.
        request_timeout, retry_timeout: of one request, and of all tries of one verb.
    """

    def __init__(
        self,
        bucket: str,
        *,
        endpoint: str,
        access_key_id: CredentialSource,
        secret_access_key: CredentialSource,
        request_timeout: timedelta = _REQUEST_TIMEOUT,
        retry_timeout: timedelta = _RETRY_TIMEOUT,
    ) -> None:
        self._bucket = bucket
        self._endpoint = endpoint.rstrip("/")
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._request_timeout = request_timeout
        self._retry_timeout = retry_timeout
        self._opened: tuple[tuple[str, str], S3Store] | None = None

    @property
    def location(self) -> str:
        """The endpoint and the bucket."""
        return f"{self._endpoint}/{self._bucket}"

    async def put_new(self, key: str, data: bytes) -> None:
        """Store an object; see :meth:`ObjectStore.put_new`."""
        await self._ask(
            lambda store: store.put_async(
                check_key(key),
                data,
                mode="create",
                use_multipart=False,
                attributes={"Content-Type": "application/zstd" if key.endswith(".zst") else "application/json"},
            ),
            key=key,
        )

    async def get(self, key: str) -> bytes:
        """Return an object; see :meth:`ObjectStore.get`."""

        async def ask(store: S3Store) -> bytes:
            return bytes(await (await store.get_async(check_key(key))).bytes_async())

        return await self._ask(ask, key=key)

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a part of an object; see :meth:`ObjectStore.get_range`."""

        async def ask(store: S3Store) -> bytes:
            return bytes(await store.get_range_async(check_key(key), start=offset, length=length))

        return await self._ask(ask, key=key)

    async def size(self, key: str) -> int | None:
        """Return an object's size; see :meth:`ObjectStore.size`."""
        try:
            return int((await self._ask(lambda store: store.head_async(check_key(key)), key=key))["size"])
        except ArchiveObjectMissingError:
            return None

    async def delete(self, key: str) -> None:
        """Remove an object; see :meth:`ObjectStore.delete`."""
        await self._ask(lambda store: store.delete_async(check_key(key)), key=key)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Give the objects below a prefix; see :meth:`ObjectStore.list`."""
        pages = (await self._store()).list(check_key(prefix.rstrip("/")), chunk_size=_LIST_PAGE).__aiter__()

        async def following(_store: S3Store) -> Any:
            return await anext(pages, None)

        while (page := await self._ask(following, key=prefix)) is not None:
            for info in page:
                yield ObjectInfo(key=info["path"], size_bytes=info["size"])

    async def close(self) -> None:
        """Let go of the connections."""
        self._opened = None

    async def _ask(self, ask: Callable[[S3Store], Awaitable[T]], *, key: str) -> T:
        store = await self._store()
        try:
            return await ask(store)
        except NovaError:
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._refused("there is no such bucket", "R2_BUCKET") from error
            raise ArchiveObjectMissingError(f"there is no object {key!r} in {self.location}", key=key) from error
        except Exception as error:
            raise self._translated(error, key) from error

    def _translated(self, error: Exception, key: str) -> NovaError:
        """Return obstore's error as Nova's; anything unknown is "whether it took effect is not known"."""
        from obstore import exceptions

        if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError):
            return ArchiveObjectExistsError(f"there is an object {key!r} already in {self.location}", key=key)
        # A refused list comes without a class of its own.
        refused = any(status in str(error) for status in ("403 Forbidden", "401 Unauthorized"))
        if refused or isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
            return self._refused("the credentials are not accepted for this bucket", "R2_ACCESS_KEY_ID")
        if "NoSuchBucket" in str(error):
            return self._refused("there is no such bucket", "R2_BUCKET")
        return ArchiveUnavailableError(f"the archive {self.location} did not answer for {key!r}: {_reason(error)}")

    def _refused(self, what: str, variable: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.location}: {what}; check R2_ENDPOINT, R2_BUCKET, R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY",
            variable=variable,
        )

    async def _store(self) -> S3Store:
        access, secret = self._access_key_id(), self._secret_access_key()
        versions = (access.version, secret.version)
        if self._opened is None or self._opened[0] != versions:
            # In a thread: the import reads a file of 16 MB. Two that build at once differ in nothing.
            self._opened = (versions, await asyncio.to_thread(self._build, access, secret))
        return self._opened[1]

    def _build(self, access: Credential, secret: Credential) -> S3Store:
        try:
            from obstore.store import S3Store
        except ImportError as error:
            raise ConfigurationError(
                "the archive on R2 needs the package obstore: pip install 'nova-llm[archive]'", variable="R2_ENDPOINT"
            ) from error
        return S3Store(
            self._bucket,
            endpoint=self._endpoint,
            region="auto",
            access_key_id=access.reveal(),
            secret_access_key=secret.reveal(),
            checksum_algorithm="SHA256",
            client_options={
                "allow_http": self._endpoint.startswith("http://"),
                "timeout": self._request_timeout,
                "connect_timeout": _CONNECT_TIMEOUT,
            },
            retry_config={"max_retries": _MAX_RETRIES, "retry_timeout": self._retry_timeout},
        )


def _reason(error: Exception) -> str:
    """Return the first line of an error of obstore, whose text goes on with how it looks inside."""
    return str(error).partition("\n")[0][:300] or type(error).__name__
