"""What the benchmarks rest on: figures, turns, and environments of peers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.support import environments
from benchmarks.support.chat_server import ChatServer
from benchmarks.support.environments import peer_python
from benchmarks.support.figures import Figure, over, percentile
from benchmarks.support.turns import Caller, clean_environment, script

ROOT = Path(__file__).resolve().parents[3]


def participant(directory: Path, body: str) -> list[str]:
    """Return the command of a participant whose calls do what ``body`` says."""
    file = directory / "participant.py"
    file.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from contextlib import asynccontextmanager\nfrom benchmarks.support.turns import serve\n"
        "@asynccontextmanager\nasync def opened():\n"
        f"    async def call(key):\n        {body}\n"
        "    print('a library that prints', flush=True)\n    yield call\n"
        "serve(opened(), version='test 1', expected='yes')\n"
    )
    return [sys.executable, str(file)]


@pytest.mark.parametrize(("percent", "expected"), [(1, 1), (50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(percent: float, expected: float) -> None:
    """Of 1 to 100 in any order, the percentile of a number is that number."""
    assert percentile(list(range(100, 0, -1)), percent) == expected


def test_a_ratio_is_taken_within_each_round() -> None:
    """A round in which the machine was slow for both sides counts as any other."""
    assert over([2.0, 300.0, 6.0], [1.0, 100.0, 6.0]) == Figure(median=2.0, low=1.0, high=3.0)


def test_a_turn_makes_the_calls_that_were_asked_for() -> None:
    """Of a turn of 6 calls by 4 tasks the server counts 10, one of each task before the measured ones."""
    with ChatServer() as server:
        command = [sys.executable, script("support/callers.py"), "httpx2", server.base_url]
        with Caller(command, clean_environment()) as caller:
            turn = caller.take(calls=6, tasks=4)

        assert server.calls == 10
    assert len(turn.latencies_ms) == 6
    assert max(turn.latencies_ms) <= turn.wall_s * 1_000
    assert turn.cpu_s > 0


@pytest.mark.parametrize("name", ["openai", "adapter", "guarded"])
def test_each_participant_reaches_the_server_with_every_call(name: str) -> None:
    """Neither the SDK nor Nova's adapters cache, repeat or lose a call of a benchmark."""
    with ChatServer() as server:
        command = [sys.executable, script("support/callers.py"), name, server.base_url]
        with Caller(command, clean_environment()) as caller:
            caller.take(calls=8, tasks=2)
            caller.take(calls=1, tasks=1)

        assert server.calls == 12


def test_what_a_library_prints_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    """A participant whose library prints gives its figures all the same."""
    with Caller(participant(tmp_path, "return 'yes'"), clean_environment()) as caller:
        turn = caller.take(calls=2, tasks=1)

    assert caller.version == "test 1"
    assert len(turn.latencies_ms) == 2


@pytest.mark.parametrize(
    ("body", "words"), [("return 'no'", "an answer was 'no'"), ("raise ValueError('it broke')", "it broke")]
)
def test_a_participant_that_fails_ends_the_benchmark(tmp_path: Path, body: str, words: str) -> None:
    """A wrong answer or an error of a participant is raised with its last words, and is no figure."""
    with (
        Caller(participant(tmp_path, body), clean_environment()) as caller,
        pytest.raises(RuntimeError, match=words),
    ):
        caller.take(calls=1, tasks=1)


def test_the_environment_of_participants_configures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, a store or a proxy of the user's does not reach a participant; what it is given does."""
    for name in ("OPENAI_API_KEY", "REDIS_URL", "NOVA_PRICES_FILE", "https_proxy", "PYTHONPATH"):
        monkeypatch.setenv(name, "of the user")

    given = clean_environment(PYTHONPATH="backend")

    assert "of the user" not in given.values()
    assert given["PYTHONPATH"] == "backend"
    assert "PATH" in given


def test_a_peer_that_cannot_be_installed_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pip refuses, the benchmark is told why, and the half-made environment is not taken for a whole one."""
    (tmp_path / "nobody.txt").write_text(f"nobody @ {(tmp_path / 'nobody-1.whl').as_uri()}\n")
    monkeypatch.setattr(environments, "_PEERS", tmp_path)
    monkeypatch.setenv("NOVA_BENCH_CACHE", str(tmp_path / "cache"))

    answer = peer_python("nobody")

    assert isinstance(answer, str)
    assert answer.startswith("nobody cannot be installed: ")
    assert not (tmp_path / "cache" / "nobody" / ".made-from").exists()


@pytest.mark.parametrize(
    ("kind", "name", "requests"), [("stream", "guarded", 1), ("tools", "openai", 2), ("tools", "run", 2)]
)
def test_a_stream_is_one_request_and_a_round_of_tools_two(kind: str, name: str, requests: int) -> None:
    """The answer is the same text for every participant, and the server counts what each sent."""
    with ChatServer() as server:
        command = [sys.executable, script("support/shaped_callers.py"), kind, name, server.base_url]
        with Caller(command, clean_environment()) as caller:
            turn = caller.take(calls=2, tasks=1)

        assert len(turn.latencies_ms) == 2
        assert server.calls == requests * 3
