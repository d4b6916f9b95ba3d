"""The search for planted secrets finds what gets out, by every way out, and fails the test that let it out."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.planted import MARK, NAMES, core, planted
from tests.support.searched.search import Search, Stream

INNER_MARK = "Inn3rQ"
LEAKS = '''
import asyncio, base64, logging, os, subprocess, sys, warnings
from pathlib import Path
import pytest
from app.credentials import Credential
from app.errors import ConfigurationError, NovaError
from tests.support.planted import planted
from tests.support.searched.search import SEARCH

SECRET = planted("redis.password")
ECHO = [sys.executable, "-c", "import os; print('it is', os.environ['LEAK'])"]
VARIABLES = {**os.environ, "LEAK": SECRET}

def test_print():
    print("the address is", SECRET)

def test_stderr():
    os.write(2, SECRET.encode())

def test_base64():
    print("Authorization: Basic", base64.b64encode(f"default:{SECRET}".encode()).decode())

def test_log(caplog):
    logging.getLogger("app.x").error("cannot reach %s", SECRET)

def test_log_field():
    logging.getLogger("app.x").error("cannot reach it", extra={"dsn": SECRET})

def test_error_of_nova():
    try:
        raise ConfigurationError(f"no such host {SECRET}")
    except NovaError:
        pass

def test_cause(monkeypatch):
    from app.stores.redis import address
    def refuse(url):
        raise ValueError("invalid literal in " + url)
    monkeypatch.setattr(address, "_split", refuse)
    with pytest.raises(ValueError):
        address.parse_address(SECRET)

def test_locals(monkeypatch):
    from app.stores.redis import address
    def refuse(parts):
        raise ValueError
    monkeypatch.setattr(address, "_problem", refuse)
    with pytest.raises(ValueError):
        address.parse_address(f"redis://:{SECRET}@h")

def test_process():
    subprocess.run(ECHO, env=VARIABLES, capture_output=True, check=True)

def test_process_that_is_read_by_the_line():
    with subprocess.Popen(ECHO, env=VARIABLES, stdout=subprocess.PIPE, text=True) as process:
        assert "it is" in process.stdout.readline()

def test_process_that_inherits():
    subprocess.run(ECHO, env=VARIABLES, check=True)

def test_process_of_a_loop(monkeypatch):
    monkeypatch.setenv("LEAK", SECRET)
    async def main():
        process = await asyncio.create_subprocess_exec(*ECHO, stdout=asyncio.subprocess.PIPE)
        assert b"it is" in await process.stdout.readline()
        await process.wait()
    asyncio.run(main())

def test_captured(capsys):
    print(SECRET)
    assert capsys.readouterr().out

def test_label():
    from prometheus_client import CollectorRegistry, Counter
    Counter("calls", "", ["host"], registry=CollectorRegistry()).labels(host=SECRET).inc()

def test_file(tmp_path):
    (tmp_path / "crash.dump").write_bytes(b"\\0\\1 memory: " + SECRET.encode())

def test_data_directory():
    Path(os.environ["NOVA_DATA_DIR"], "nova.db").write_bytes(b"\\0\\1 row: " + SECRET.encode())

def test_warning():
    warnings.warn(f"{SECRET} is old")

def test_failed_assertion():
    shown = f"redis://:{SECRET}@h"
    assert shown == ""

@pytest.fixture
def late():
    yield
    print(SECRET)

def test_end_of_a_fixture(late):
    pass

def test_quiet(tmp_path, monkeypatch):
    """It uses the secret, and lets nothing out."""
    (tmp_path / "password").write_text(SECRET + "\\n")
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@h")
    print(Credential(SECRET))
'''
WAYS = set(re.findall(r"^def (test_\w+)", LEAKS, re.MULTILINE)) - {"test_quiet", "test_warning"}
"""The tests that fail; a warning is known when its test is over, so it fails the run."""


def inner(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the leaking tests, with secrets of their own: what they let out must not be found in this run as well."""
    (folder / "conftest.py").write_text("from tests.conftest import *  # noqa: F403\n")
    (folder / "test_leaks.py").write_text(LEAKS)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib", *arguments, "."],
        cwd=folder,
        env={**os.environ, "PLANTED_MARK": INNER_MARK},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
def test_every_way_out_fails_its_test_and_no_other(workers: tuple[str, ...], tmp_path: Path) -> None:
    """The end of each names the secret; with processes of pytest-xdist as without."""
    code, shown = inner(tmp_path, *workers)

    assert code == pytest.ExitCode.TESTS_FAILED, shown
    assert set(re.findall(r"^(?:FAILED|ERROR) test_leaks\.py::(\w+)", shown, re.MULTILINE)) == WAYS
    assert "the planted secret redis.password is in a warning (test_leaks.py::test_warning)" in shown
    found = re.search(r"^planted secrets: 4 of 40 .* ([0-9]+) found$", shown, re.MULTILINE)
    assert found is not None, shown
    assert int(found[1]) == len(WAYS) + 1


def test_what_is_said_of_a_secret_does_not_show_it(tmp_path: Path) -> None:
    """The lines of the search hold its name; without the test's own output nothing else is left."""
    _, shown = inner(tmp_path, "-k", "test_process", "--show-capture=no")

    assert (
        len(re.findall(r"^the planted secret redis.password is in .* \(test_leaks.py::\w+\)$", shown, re.MULTILINE))
        == 4
    )
    assert INNER_MARK not in shown


def test_there_are_forty_and_no_two_are_alike() -> None:
    """And each is found by the first letters of its core."""
    assert len(NAMES) == 40
    assert len({core(name)[: len(MARK) + 2] for name in NAMES}) == 40
    assert all(core(name) in planted(name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_found_in_every_form(name: str) -> None:
    """As it is, cut, in base64 wherever it begins, in hex, in bytes, and over the border of two chunks."""
    search = Search()
    secret = planted(name)
    whole = f"before {secret} after"
    forms: list[str | bytes] = [
        whole,
        whole.encode(),
        core(name)[:-8],
        secret.encode().hex(),
        *(base64.b64encode((" " * before + secret).encode()) for before in range(3)),
    ]
    for place, form in enumerate(forms):
        search.look(form, where=str(place))
    stream = Stream(search, where="a stream")
    for place in range(0, len(whole), 5):
        stream.look(whole[place : place + 5])

    assert {(where, who) for _, where, who in search.found} == {
        *((str(place), name) for place in range(len(forms))),
        ("a stream", name),
    }


def test_a_text_without_one_is_not_taken_for_one() -> None:
    """Neither the beginning of a mark nor what looks like a key."""
    search = Search()

    search.look(f"{MARK[:-1]} sk-ant-api03-0123456789 redis://:password@h", where="a text")

    assert not search.found
    assert search.texts.total() == 1
