"""What remembers: budgets, checkpoints, idempotency, and the archive.

The three factories return the store that the environment chooses. Building one opens no connection and imports only the
driver that it uses; the same configuration gives the same object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from app.settings import Settings
    from app.stores.budget.contract import BudgetStore
    from app.stores.checkpoint.contract import CheckpointStorage
    from app.stores.choice import Choice, StoreKind
    from app.stores.idempotency.contract import IdempotencyStore

__all__ = ["close_stores", "get_budget_store", "get_checkpoint_store", "get_idempotency_store"]

_CLASSES: dict[tuple[str, str], tuple[str, str]] = {
    ("budget", "memory"): ("app.stores.budget.memory", "InMemoryBudgetStore"),
    ("budget", "redis"): ("app.stores.budget.redis", "RedisBudgetStore"),
    ("budget", "sqlite"): ("app.stores.budget.sqlite", "SqliteBudgetStore"),
    ("checkpoint", "memory"): ("app.stores.checkpoint.memory", "InMemoryCheckpointStore"),
    ("checkpoint", "postgres"): ("app.stores.checkpoint.postgres", "CheckpointStore"),
    ("checkpoint", "sqlite"): ("app.stores.checkpoint.sqlite", "SqliteCheckpointStore"),
    ("idempotency", "memory"): ("app.stores.idempotency.memory", "InMemoryIdempotencyStore"),
    ("idempotency", "redis"): ("app.stores.idempotency.redis", "RedisIdempotencyStore"),
    ("idempotency", "sqlite"): ("app.stores.idempotency.sqlite", "SqliteIdempotencyStore"),
}

_open: dict[tuple[object, ...], Any] = {}
"""The stores that were handed out, by what configured them. Only the functions of this module change it."""


def get_budget_store(settings: Settings | None = None, *, force_new: bool = False) -> BudgetStore:
    """Return the budget store: ``RedisBudgetStore``, ``SqliteBudgetStore`` or ``InMemoryBudgetStore``.

    Args:
        settings: None reads the environment now.
        force_new: build a new object, which ``close_stores`` does not know.

    Raises:
        ConfigurationError: what the variables ask for cannot be met; names the variable and the remedy.
    """
    return cast("BudgetStore", _get("budget", settings, force_new=force_new))


def get_checkpoint_store(settings: Settings | None = None, *, force_new: bool = False) -> CheckpointStorage:
    """Return the checkpoint store: ``CheckpointStore`` (PostgreSQL), ``SqliteCheckpointStore`` or
    ``InMemoryCheckpointStore``; arguments and errors as for :func:`get_budget_store`.
    """
    return cast("CheckpointStorage", _get("checkpoint", settings, force_new=force_new))


def get_idempotency_store(settings: Settings | None = None, *, force_new: bool = False) -> IdempotencyStore:
    """Return the idempotency store: ``RedisIdempotencyStore``, ``SqliteIdempotencyStore`` or
    ``InMemoryIdempotencyStore``; arguments and errors as for :func:`get_budget_store`.
    """
    return cast("IdempotencyStore", _get("idempotency", settings, force_new=force_new))


async def close_stores() -> None:
    """Close every store that the factories handed out; the next call of a factory builds a new one.

    Raises:
        ExceptionGroup: some could not be closed, after all of them were tried.
    """
    stores = list(_open.values())
    _open.clear()
    failures: list[Exception] = []
    for store in stores:
        try:
            await store.close()
        except Exception as error:  # noqa: BLE001 - raised below, when the others are closed
            failures.append(error)
    if failures:
        raise ExceptionGroup("stores that could not be closed", failures)


def _get(kind: StoreKind, settings: Settings | None, *, force_new: bool) -> object:
    from app.stores.choice import choose

    if settings is None:
        from app.settings import load_settings

        settings = load_settings()
    choice = choose(kind, settings)
    key, build = _recipe(choice, settings)
    if force_new:
        return build()
    # setdefault is atomic: of two threads that build at the same moment both get the same object.
    return _open.get(key) or _open.setdefault(key, build())


def _recipe(choice: Choice, settings: Settings) -> tuple[tuple[object, ...], Callable[[], object]]:
    """Return what makes two stores the same, and how one is built."""
    module, name = _CLASSES[choice.kind, choice.backend]
    if choice.backend == "sqlite":
        path = settings.database_file.absolute()
        if choice.kind == "checkpoint":
            archive = _archive_identity(settings)
            return (
                (choice.kind, choice.backend, str(path), *archive),
                lambda: _load(module, name)(path, archive=_archive_reader(settings)),
            )
        return (choice.kind, choice.backend, str(path)), lambda: _load(module, name)(path)
    if choice.backend == "redis":
        return _redis_recipe(choice, settings, lambda: _load(module, name))
    if choice.backend == "postgres":
        return _postgres_recipe(choice, settings, lambda: _load(module, name))
    return (choice.kind, choice.backend), _load(module, name)


def _redis_recipe(
    choice: Choice, settings: Settings, load: Callable[[], Callable[..., object]]
) -> tuple[tuple[object, ...], Callable[[], object]]:
    url = settings.credential("redis_url")
    assert url is not None, "choose() refuses Redis without an address"
    pool_size, timeout_s = settings.nova_redis_pool_size, settings.nova_redis_timeout_s
    key = (choice.kind, choice.backend, settings.identity_of("redis_url"), pool_size, timeout_s)
    return key, lambda: load()(url, pool_size=pool_size, timeout_s=timeout_s)


def _archive_identity(settings: Settings) -> tuple[str, ...]:
    from app.stores.archive.choice import archive_identity

    return archive_identity(settings)


def _archive_reader(settings: Settings) -> object:
    """Return what reads archived runs; it asks for the archive at the first of them, so a store works without one."""
    from app.stores.archive.choice import open_archive
    from app.stores.archive.reader import ArchiveReader

    return ArchiveReader(lambda: open_archive(settings))


def _postgres_recipe(
    choice: Choice, settings: Settings, load: Callable[[], Callable[..., object]]
) -> tuple[tuple[object, ...], Callable[[], object]]:
    url = settings.credential("database_url")
    assert url is not None, "choose() refuses PostgreSQL without an address"
    limits = {
        "pool_size": settings.nova_postgres_pool_size,
        "timeout_s": settings.nova_postgres_timeout_s,
        "auto_migrate": settings.nova_auto_migrate,
    }
    archive = _archive_identity(settings)
    key = (choice.kind, choice.backend, settings.identity_of("database_url"), *limits.values(), *archive)
    return key, lambda: load()(url, **limits, archive=_archive_reader(settings))


def _load(module: str, name: str) -> Callable[..., object]:
    from importlib import import_module

    built: Callable[..., object] = getattr(import_module(module), name)
    return built
