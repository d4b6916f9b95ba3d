"""Which archive the settings choose: R2, or a local directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.errors import ConfigurationError

if TYPE_CHECKING:
    from app.settings import Settings
    from app.stores.archive.contract import ObjectStore
    from app.stores.archive.ledger import ArchiveLedger

__all__ = ["archive_identity", "open_archive", "open_ledger"]

_R2: Final = ("r2_endpoint", "r2_bucket", "r2_access_key_id", "r2_secret_access_key")


def open_archive(settings: Settings) -> ObjectStore:
    """Return the archive; nothing is connected yet.

    Raises:
        ConfigurationError: none is configured, or not all of it, or two are; names the variables.
    """
    given = [name for name in _R2 if settings.plain(name)]
    missing = [name.upper() for name in _R2 if name not in given]
    if settings.nova_archive_dir is not None:
        if given:
            raise ConfigurationError(
                f"NOVA_ARCHIVE_DIR and {given[0].upper()} are both set: the archive is one of the two; unset the other",
                variable="NOVA_ARCHIVE_DIR",
            )
        from app.stores.archive.directory import DirectoryArchive

        return DirectoryArchive(settings.nova_archive_dir.expanduser())
    if not given:
        raise ConfigurationError(
            "no archive is configured: set R2_ENDPOINT, R2_BUCKET, R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY, "
            "or NOVA_ARCHIVE_DIR for a local directory",
            variable="R2_ENDPOINT",
        )
    if missing:
        raise ConfigurationError(
            f"the archive on R2 is not configured: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set",
            variable=missing[0],
        )
    return _r2(settings)


def open_ledger(settings: Settings) -> ArchiveLedger:
    """Return the ledger of the database that keeps the checkpoints.

    Raises:
        ConfigurationError: they are in no database.
    """
    from app.stores.choice import choose

    choice = choose("checkpoint", settings)
    if choice.backend == "sqlite":
        from app.stores.archive.sqlite_ledger import SqliteLedger

        return SqliteLedger(settings.database_file.absolute())
    if choice.backend == "postgres":
        from app.stores.archive.postgres_ledger import PostgresLedger

        url = settings.credential("database_url")
        assert url is not None, "choose() refuses PostgreSQL without an address"
        return PostgresLedger(url, auto_migrate=settings.nova_auto_migrate)
    raise ConfigurationError(
        f"the offload moves runs out of a database, and the checkpoints are in {choice.backend} ({choice.reason}): "
        "set DATABASE_URL to postgresql://... or sqlite:///path",
        variable="DATABASE_URL",
    )


def archive_identity(settings: Settings) -> tuple[str, ...]:
    """Return what makes two archives the same, for whoever keeps objects by their configuration; no secret is in it."""
    return (
        str(settings.nova_archive_dir or ""),
        settings.plain("r2_endpoint") or "",
        settings.plain("r2_bucket") or "",
    )


def _r2(settings: Settings) -> ObjectStore:
    from app.stores.archive.r2 import R2Archive

    endpoint, bucket = settings.plain("r2_endpoint"), settings.plain("r2_bucket")
    access_key_id = settings.credential("r2_access_key_id")
    secret_access_key = settings.credential("r2_secret_access_key")
    assert endpoint is not None
    assert bucket is not None
    assert access_key_id is not None
    assert secret_access_key is not None
    if not endpoint.startswith(("https://", "http://")) or "@" in endpoint:
        # Not shown: who writes keys into it would read them in every error, and so would others. Nor left to a crash
        # reporter, which shows the locals of every frame that an error came through.
        del endpoint
        raise ConfigurationError(
            "R2_ENDPOINT must be a URL such as https://<account>.r2.cloudflarestorage.com, without user and password: "
            "the keys are R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY",
            variable="R2_ENDPOINT",
        )
    return R2Archive(bucket, endpoint=endpoint, access_key_id=access_key_id, secret_access_key=secret_access_key)
