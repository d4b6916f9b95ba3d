"""The contract of object stores on memory, a directory and a real S3 server, and what only one of them has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from app.credentials import Credential, fixed
from app.errors import ArchiveObjectMissingError, ArchiveUnavailableError, ConfigurationError
from app.stores.archive.contract import ObjectStore
from app.stores.archive.directory import DirectoryArchive
from app.stores.archive.memory import MemoryArchive
from app.stores.archive.r2 import R2Archive
from tests.support.planted import planted
from tests.support.servers.s3 import S3Server

from .below import Below
from .contract import DATA, KEY, ObjectStoreContract, keys


@pytest.fixture
def archive(make_archive: Callable[[], ObjectStore]) -> ObjectStore:
    """Return an empty archive."""
    return make_archive()


class TestMemoryArchive(ObjectStoreContract):
    """The model."""

    @pytest.fixture
    def make_archive(self) -> Callable[[], ObjectStore]:
        """Make an archive in memory."""
        return MemoryArchive


class TestDirectoryArchive(ObjectStoreContract):
    """Files below a directory."""

    @pytest.fixture
    def make_archive(self, tmp_path: Path) -> Callable[[], ObjectStore]:
        """Make an archive in a directory that is not there yet."""
        return lambda: DirectoryArchive(tmp_path / "deep" / "archive")

    async def test_file_and_directories_are_synced_before_the_put_returns(
        self, archive: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file's bytes are on the disk before it has its name, and each directory after it got an entry."""
        synced: list[str] = []
        real_sync, real_link = os.fsync, os.link

        def sync(descriptor: int) -> None:
            synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
            real_sync(descriptor)

        def link(source: Path, target: Path) -> None:
            synced.append("named")
            real_link(source, target)

        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(os, "link", link)

        await archive.put_new("v1/a", DATA)

        made, (file, named, directory) = synced[:-3], synced[-3:]
        assert made[-2:] == ["deep", "archive"]
        assert file.startswith(".a.")
        assert (named, directory) == ("named", "v1")

    async def test_a_cut_put_leaves_no_object_and_a_delete_cleans_up(
        self, archive: ObjectStore, tmp_path: Path, blockbuster: BlockBuster
    ) -> None:
        """What a crash left before the object had its name is never listed or read; deleting the key removes it."""
        blockbuster.deactivate()
        await archive.put_new(KEY, DATA)
        path = tmp_path / "deep" / "archive" / KEY
        leftover = path.with_name(f".{path.name}.0123abcd.partial")
        path.rename(leftover)

        assert await keys(archive, "v1/") == {}
        with pytest.raises(ArchiveObjectMissingError):
            await archive.get(KEY)
        await archive.delete(KEY)

        assert list(leftover.parent.iterdir()) == []

    async def test_a_directory_that_cannot_be_used(self, tmp_path: Path, blockbuster: BlockBuster) -> None:
        """A root that is a file is an archive that cannot be used, told with its path."""
        blockbuster.deactivate()
        (tmp_path / "file").write_bytes(b"")

        with pytest.raises(ArchiveUnavailableError, match="file"):
            await DirectoryArchive(tmp_path / "file").put_new(KEY, DATA)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """Run an S3 server."""
    with S3Server().start() as server:
        yield server


def _r2(server: S3Server, *, bucket: str | None = None, secret: str | None = None) -> R2Archive:
    return R2Archive(
        bucket or server.bucket,
        endpoint=server.endpoint,
        access_key_id=fixed(server.access_key_id),
        secret_access_key=fixed(secret or server.secret_access_key),
        request_timeout=timedelta(seconds=20),
        retry_timeout=timedelta(seconds=20),
    )


class TestR2Archive(ObjectStoreContract):
    """A bucket of a real S3 server, through obstore."""

    @pytest.fixture
    def make_archive(self, server: S3Server) -> Callable[[], ObjectStore]:
        """Make an archive below a prefix of its own."""
        below = Below(_r2(server))
        return lambda: below

    async def test_wrong_credentials_are_a_configuration_error(self, server: S3Server) -> None:
        """A secret that is not accepted is told as such, with the variables and without the secret."""
        archive = _r2(server, secret=planted("archive.wrong_secret"))

        for verb in (archive.put_new(KEY, DATA), archive.get(KEY), archive.size(KEY), keys(archive, "v1/")):
            with pytest.raises(ConfigurationError, match="R2_SECRET_ACCESS_KEY") as caught:
                await verb
            assert planted("archive.wrong_secret") not in str(caught.value)

    async def test_a_bucket_that_is_not_there_is_a_configuration_error(self, server: S3Server) -> None:
        """A bucket that does not exist is told as such, and not as an object that is missing."""
        archive = _r2(server, bucket="no-such-bucket")

        for verb in (archive.get(KEY), archive.get_range(KEY, 0, 1), keys(archive, "v1/")):
            with pytest.raises(ConfigurationError, match="no-such-bucket"):
                await verb

    async def test_a_server_that_is_not_there_is_unavailable(self) -> None:
        """An endpoint that nobody serves: whether the object is there is not known, and the call may be repeated."""
        archive = R2Archive(
            "nova",
            endpoint="http://127.0.0.1:9",
            access_key_id=fixed("a"),
            secret_access_key=fixed("s"),
            retry_timeout=timedelta(milliseconds=1),
        )

        with pytest.raises(ArchiveUnavailableError, match=r"127\.0\.0\.1:9"):
            await archive.put_new(KEY, DATA)

    async def test_a_rotated_secret_is_used_without_a_restart(self, server: S3Server) -> None:
        """The credentials are asked for at each request: a new version of the secret is in force at once."""
        current = [Credential("wrong", "1")]
        archive = R2Archive(
            server.bucket,
            endpoint=server.endpoint,
            access_key_id=fixed(server.access_key_id),
            secret_access_key=lambda: current[0],
        )
        with pytest.raises(ConfigurationError):
            await archive.size("rotated")

        current[0] = Credential(server.secret_access_key, "2")

        assert await archive.size("rotated") is None
