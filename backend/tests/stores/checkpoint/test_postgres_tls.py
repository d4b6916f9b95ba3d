"""A server as managed ones are: TLS only, passwords by SCRAM with channel binding, and options in the address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import trustme
from blockbuster import BlockBuster

from app.credentials import fixed
from app.errors import CheckpointStoreUnavailableError
from app.stores.checkpoint.postgres import CheckpointStore
from tests.support.servers.postgres import PostgresServer

from .contract import A

PASSWORD = "pa:ss/w@rd-7f3e"


@pytest.fixture(autouse=True)
def may_block(blockbuster: BlockBuster) -> None:
    """Let the tests ask the server from their loop."""
    blockbuster.deactivate()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the certificates of an authority, of a server, and of somebody else's authority."""
    folder = tmp_path_factory.mktemp("tls")
    ours, other = trustme.CA(), trustme.CA()
    certificate = ours.issue_cert("127.0.0.1")
    ours.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    (folder / "server.key").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def server(authority: Path) -> Iterator[PostgresServer]:
    """Return a server that speaks TLS to everybody and has a user with a password."""
    with PostgresServer(
        tls=True, ssl="on", ssl_cert_file=str(authority / "server.pem"), ssl_key_file=str(authority / "server.key")
    ) as server:
        server.execute(f"CREATE ROLE nova LOGIN PASSWORD '{PASSWORD}'")
        server.execute("CREATE DATABASE nova OWNER nova")
        server.execute("CREATE SCHEMA agents AUTHORIZATION nova", database="nova")
        rules = "hostssl all nova 127.0.0.1/32 scram-sha-256\nhostnossl all nova 127.0.0.1/32 reject\n"
        file = server.directory / "data" / "pg_hba.conf"
        file.write_text(rules + file.read_text())
        server.execute("SELECT pg_reload_conf()")
        yield server


def address(server: PostgresServer, query: str) -> str:
    """Return an address as a provider's console shows it."""
    return f"postgresql://nova:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/nova?{query}"


async def test_a_run_over_tls_with_channel_binding_and_options(server: PostgresServer, authority: Path) -> None:
    """What stands behind ``?`` reaches libpq: the certificate is checked, and the tables lie in the schema."""
    query = f"sslmode=verify-full&sslrootcert={authority / 'ca.pem'}&channel_binding=require"
    store = CheckpointStore(fixed(address(server, f"{query}&options=-c%20search_path%3Dagents")))

    await store.create("r")
    token = (await store.claim("r", holder=A)).token
    await store.append("r", "s", {"n": 1}, token=token)
    state = await store.load("r")

    assert state is not None
    assert state.step_outputs == {"s": {"n": 1}}
    assert server.execute(
        "SELECT DISTINCT s.ssl FROM pg_stat_ssl AS s JOIN pg_stat_activity AS a USING (pid) WHERE a.usename = 'nova'"
    ) == [(True,)]
    assert server.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'nova_steps'", database="nova") == [
        ("agents",)
    ]
    await store.close()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("sslmode=verify-full&sslrootcert={folder}/other.pem", "certificate"),
        ("sslmode=disable", "pg_hba.conf"),
    ],
)
async def test_a_server_that_is_not_trusted_gets_no_password(
    server: PostgresServer, authority: Path, query: str, says: str
) -> None:
    """Somebody else's certificate, or no TLS where the server wants it, is an error that says so."""
    store = CheckpointStore(fixed(address(server, query.format(folder=authority))), timeout_s=5.0)

    with pytest.raises(CheckpointStoreUnavailableError) as caught:
        await store.head("r")

    assert says in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    await store.close()
