"""``nova metrics``, and how the metrics of a process reach Prometheus."""

from __future__ import annotations

import os
import signal
import socket
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from urllib.request import urlopen

import pytest

from app.cli.reconciling import Reconciliation, increase
from app.skills.model_names import MODEL_NAMES
from app.skills.models import current_models
from app.skills.pricing import get_price_book

from .harness import Nova, Start


def scrape(url: str) -> str:
    """Return what a server of metrics shows."""
    with urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_the_ledger_is_served_as_it_is_at_each_scrape(nova: Nova, start: Start) -> None:
    """On loopback, on a port that it names; what is spent meanwhile is seen by the next scrape, and SIGTERM ends it."""
    nova("budget", "set", "tenant", "$5").check()
    process = start("metrics", "serve", "--port", "0")
    assert process.stderr is not None
    url = next(word for word in process.stderr.readline().decode().split() if word.startswith("http"))

    before = scrape(url)
    spent = nova("ask", "Say hello", "--json").check().json
    after = scrape(url)
    process.send_signal(signal.SIGTERM)

    assert url.startswith("http://127.0.0.1:")
    assert 'nova_budget_limit_cents{scope="tenant",window="total"} 500.0' in before
    assert 'nova_ledger_spend_cents{scope="tenant",window="total"} 0.0\n' in before
    cents = spent["cost"]["microcents"] / 1_000_000
    assert f'nova_ledger_spend_cents{{scope="tenant",window="total"}} {cents!r}' in after
    assert process.wait(10) == 0


def test_the_ledger_is_written_in_one_step(nova: Nova, tmp_path: Path) -> None:
    """For the textfile collector: no half of a file, and nothing beside it."""
    nova("metrics", "write", str(tmp_path / "nova.prom"), "--scope", "agent:writer").check()

    written = (tmp_path / "nova.prom").read_text()
    assert "nova_ledger_up 1.0" in written
    assert 'scope="agent:writer"' in written
    assert [path.name for path in tmp_path.glob("nova*.prom*")] == ["nova.prom"]


def test_a_command_writes_what_it_counted(nova: Nova, tmp_path: Path, start: Start) -> None:
    """NOVA_METRICS_TEXTFILE, at its end; a command that counts nothing writes nothing over it."""
    path = tmp_path / "calls.prom"
    variables = {"NOVA_METRICS_TEXTFILE": str(path)}
    assert start("ask", "Say hello", env=variables).wait(60) == 0
    written = path.read_text()

    assert start("budget", "show", env=variables).wait(60) == 0

    assert 'nova_llm_invocations_total{model="stub-1",provider="stub",status="success"} 1.0' in written
    assert path.read_text() == written


def test_a_process_shows_its_own_metrics_with_its_models_at_zero(start: Start) -> None:
    """NOVA_METRICS_PORT: before the first call every series of each current model with a price is there at zero."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = (
        "import urllib.request; from app.skills.adapters import get_llm_adapter; get_llm_adapter();"
        f"print(urllib.request.urlopen('http://127.0.0.1:{port}/metrics').read().decode())"
    )
    shown = _run(program, NOVA_METRICS_PORT=str(port), LLM_ADAPTER="openai", OPENAI_API_KEY="sk-none-at-all")

    prices = get_price_book()
    current = current_models("openai", today=datetime.now(UTC).date())
    priced = [model for model in current if prices.is_priced(provider="openai", model=model)]
    ended = set(MODEL_NAMES["openai"]) - set(current)
    assert len(priced) > 20
    for model in (*priced, "other"):
        assert f'nova_llm_cost_cents_total{{model="{model}",provider="openai"}} 0.0' in shown
        assert f'nova_llm_tokens_total{{model="{model}",provider="openai",token_type="input"}} 0.0' in shown
        assert f'nova_llm_invocations_total{{model="{model}",provider="openai",status="rate_limited"}} 0.0' in shown
    assert not any(f'model="{model}"' in shown for model in ended)
    # So many and no more, whatever the table grows to: a dozen each.
    of_models = [line for line in shown.splitlines() if "model=" in line and "_created" not in line]
    assert len(of_models) <= 12 * (len(priced) + 1)
    assert len(of_models) < 2_000
    assert 'nova_budget_uncertain_total{reason="unknown"} 0.0' in shown
    assert 'nova_lease_losses_total{kind="run"} 0.0' in shown


def test_a_port_that_is_taken_fails_no_call() -> None:
    """Two processes of one configuration: the second says so and goes on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        program = "from app.skills.adapters import get_llm_adapter; print(get_llm_adapter().adapter_id)"
        shown = _run(program, NOVA_METRICS_PORT=str(taken.getsockname()[1]), LLM_ADAPTER="stub")

    assert shown.splitlines()[-1] == "stub"
    assert "NOVA_METRICS_PORT" in shown


def _run(program: str, **variables: str) -> str:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("samples", "grown"),
    [((), 0), ((5,), 5), ((0, 5, 5, 7), 7), ((0, 5, 2, 3), 8), ((4, 0, 1), 5)],
    ids=["none", "born above zero", "growing", "restarted", "restarted at zero"],
)
def test_a_counter_grows_by_what_it_counted(samples: tuple[int, ...], grown: int) -> None:
    """Its birth and its restarts included, which PromQL's increase() guesses."""
    assert increase([Decimal(value) for value in samples]) == grown


def test_a_prometheus_that_does_not_answer_is_told(nova: Nova) -> None:
    """With the exit code of a store that cannot be reached."""
    found = nova("metrics", "reconcile", "--prometheus", "http://127.0.0.1:9")

    assert found.code == 30
    assert "Prometheus at http://127.0.0.1:9" in found.err


def test_a_prometheus_that_is_no_url_is_refused(nova: Nova) -> None:
    """As a value that the command does not take."""
    assert nova("metrics", "reconcile", "--prometheus", "localhost").code == 4


def test_a_file_that_cannot_be_written_is_told(nova: Nova, tmp_path: Path) -> None:
    """With the exit code of an output, and the file's name."""
    found = nova("metrics", "write", str(tmp_path / "none" / "nova.prom"))

    assert found.code == 50
    assert "nova.prom' could not be written: No such file or directory" in found.err


def test_a_port_that_is_taken_is_told(nova: Nova) -> None:
    """With what to name instead."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = nova("metrics", "serve", "--port", str(taken.getsockname()[1]))

    assert found.code == 3
    assert "name another --host or --port" in found.err


def test_amounts_of_a_comparison_are_told_as_everywhere() -> None:
    """In dollars and microcents."""
    found = Reconciliation(spent=50_000_000, uncertain=10_000_000, counted=0).document

    assert found["drift"] == {"usd": "0.4", "microcents": 40_000_000}
