"""``nova budget`` on a real server: every command, chosen by REDIS_URL alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.support.servers.valkey import ValkeyServer

from .harness import Nova


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    """Give an empty server."""
    with ValkeyServer() as server:
        yield server


def test_every_command_works_on_redis(nova: Nova, server: ValkeyServer) -> None:
    """A limit, a question within it, one that is refused, a stop, and a counter that is wrong and repaired."""
    env = {"REDIS_URL": server.url}

    doctor = nova("doctor", "--json", env=env).json
    nova("budget", "set", "tenant", "$0.01", "--window", "day", env=env).check()
    nova("ask", "hello", "--max-tokens", "20", env=env).check()
    shown = nova("budget", "show", "tenant", "--json", env=env).check().json["windows"]
    holds = nova("budget", "holds", "--json", env=env).check().json["holds"]
    refused = nova("ask", "hello", "--max-tokens", "4000000", env=env)
    nova("budget", "stop", "--reason", "drill", env=env).check()
    stopped = nova("ask", "hello", env=env)
    nova("budget", "go", env=env).check()
    with redis.Redis.from_url(server.url) as client:
        book, field = "nova:{default}:budget:book", "tenant"
        spent, held, month, held_outside, *rest = str(client.hget(book, field).decode()).split(" ")
        # In all one microcent more, and that one outside of the month and the day.
        numbers = [int(spent) + 1, held, int(month) + 1, held_outside, int(rest[0]) + 1, *rest[1:]]
        client.hset(book, field, " ".join(map(str, numbers)))
    wrong = nova("budget", "audit", "--json", env=env)
    nova("budget", "repair", env=env).check()
    right = nova("budget", "audit", "--json", env=env).check()

    budget = next(part for part in doctor["parts"] if part["part"] == "budget store")
    day = next(window for window in shown if window["window"] == "day")
    assert (budget["in_force"], budget["library"]) == ("redis", "redis")
    assert day["limit"]["usd"] == "0.01"
    assert float(day["spent"]["usd"]) > 0
    assert [hold["state"] for hold in holds] == ["settled"]
    assert (refused.code, stopped.code) == (20, 20)
    assert "drill" in stopped.err
    assert wrong.code == 31
    assert len(wrong.json["findings"]) == 1
    assert right.json["clean"]
