"""Runs that are stopped, killed, starved of disk or fought over lose nothing that was recorded, and no cent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.settings import load_settings

from .harness import Nova, Start, held_by
from .provider import Provider, provider

FLOW = """\
name: brief
version: 1
inputs:
  documents: {type: documents}
steps:
  - id: notes
    map: documents
    as: document
    concurrency: 1
    config: {max_tokens: 50}
    prompt: "Take notes: {{ document.text }}"
  - id: brief
    config: {max_tokens: 50}
    prompt: "{% for note in notes %}{{ note.text }} {% endfor %}Write one brief."
"""

NEEDS_A_FULL_DEVICE = pytest.mark.skipif(
    not Path("/dev/full").exists() and "CI" not in os.environ, reason="the system has no /dev/full"
)


@pytest.fixture
def served() -> Iterator[Provider]:
    """Serve a provider on loopback."""
    with provider() as serving:
        yield serving


@pytest.fixture
def tour(tmp_path: Path, documents: Path) -> tuple[str, ...]:
    """Give the arguments that run a flow of four calls, one after another, as run ``tour``."""
    path = tmp_path / "brief.yaml"
    path.write_text(FLOW)
    return ("run", str(path), "--input", f"documents={documents}", "--run-id", "tour")


def recorded(nova: Nova) -> dict[str, Any]:
    """Return the outputs of the recorded steps by id, without the inputs."""
    steps = nova("runs", "show", "tour", "--json").check().json["recorded_steps"]
    return {step["step_id"]: step["output"] for step in steps if not step["step_id"].startswith("inputs/")}


def money(nova: Nova) -> dict[str, int]:
    """Return what the run has spent, holds and is uncertain of, in microcents."""
    windows = nova("budget", "show", "run:tour", "--json").check().json["windows"]
    total = next(window for window in windows if window["window"] == "total")
    return {name: total[name]["microcents"] for name in ("spent", "held", "uncertain")}


def end(process: subprocess.Popen[bytes], *, within_s: float = 20) -> tuple[int, str, str]:
    """Wait for a process; return its exit code and what it wrote."""
    out, err = process.communicate(timeout=within_s)
    return process.returncode, out.decode(), err.decode()


def assert_consistent(nova: Nova) -> None:
    """Check that every counter equals its entries, and what is spent equals recorded costs and uncertain charges."""
    nova("budget", "audit").check()
    steps = nova("runs", "show", "tour", "--json").check().json["recorded_steps"]
    costs = sum(step["meta"].get("cost", 0) for step in steps)
    spent = money(nova)
    assert spent["held"] == 0
    assert spent["spent"] == costs + spent["uncertain"]


def until_stopping(process: subprocess.Popen[bytes]) -> bytes:
    """Read what a process says until it says that it is stopping; one that ends without it is a failure."""
    assert process.stderr is not None
    said = b""
    while b"stopping" not in said:
        line = process.stderr.readline()
        assert line, f"it ended and said only {said!r}"
        said += line
    return said


def test_one_signal_lets_the_call_under_way_finish_and_be_recorded(
    nova: Nova, start: Start, tour: tuple[str, ...], served: Provider
) -> None:
    """No further call is made, the one that was paid is on record, and resuming makes only those that are missing."""
    served.hold(from_call=1)
    process = start(*tour, env=served.environment)
    served.wait_for_call()

    process.send_signal(signal.SIGINT)
    said = until_stopping(process)
    served.let_go()
    left, out, err = end(process)

    assert (left, out, served.calls) == (130, "", 1)
    assert "nova resume tour" in err
    assert "Traceback" not in said.decode() + err
    assert list(recorded(nova)) == ["notes/0"]
    assert money(nova)["uncertain"] == 0
    assert_consistent(nova)
    nova("resume", "tour", env=served.environment).check()
    assert served.calls == 4
    assert_consistent(nova)


def test_a_second_signal_cuts_the_call_under_way_and_charges_it_as_uncertain(
    nova: Nova, start: Start, tour: tuple[str, ...], served: Provider
) -> None:
    """The process ends while the provider is silent; what was recorded stands and the cut call counts in full."""
    served.hold(from_call=2)
    process = start(*tour, env=served.environment)
    served.wait_for_call()
    served.wait_for_call()

    process.send_signal(signal.SIGINT)
    until_stopping(process)
    process.send_signal(signal.SIGINT)
    left, out, err = end(process, within_s=10)

    assert (left, out) == (130, "")
    assert "stopped at once" in err
    assert "nova resume tour" in err
    assert "Traceback" not in err
    before = recorded(nova)
    assert list(before) == ["notes/0"]
    assert money(nova)["uncertain"] > 0
    assert_consistent(nova)
    served.let_go()
    nova("resume", "tour", env=served.environment).check()
    after = recorded(nova)
    assert {step_id: after[step_id] for step_id in before} == before
    assert_consistent(nova)


def test_a_killed_run_goes_on_without_a_recorded_step_running_again(
    nova: Nova, start: Start, tour: tuple[str, ...], served: Provider
) -> None:
    """After a SIGKILL in the second call, five calls are made in all: one was cut, and is charged as uncertain."""
    served.hold(from_call=2)
    process = start(*tour, "--budget", "$1", env=served.environment)
    served.wait_for_call()
    served.wait_for_call()
    process.kill()
    process.wait()
    served.let_go()
    before = recorded(nova)

    nova("resume", "tour", env=served.environment).check()

    after = recorded(nova)
    assert list(before) == ["notes/0"]
    assert after["notes/0"] == before["notes/0"]
    assert list(after) == ["notes/0", "notes/1", "notes/2", "brief"]
    assert served.calls == 5


def test_of_two_processes_one_works_and_the_other_is_told_who_does(
    nova: Nova, start: Start, tour: tuple[str, ...], served: Provider
) -> None:
    """The second is refused at once, with the first one's process id, and nothing is recorded twice."""
    served.hold(from_call=1)
    first = start(*tour, env=served.environment)
    served.wait_for_call()

    refused = nova("resume", "tour", env=served.environment)
    served.let_go()

    assert (refused.code, refused.out) == (13, "")
    assert f"process {first.pid} " in refused.err
    assert "nova resume tour --steal" in refused.err
    assert end(first)[0] == 0
    assert served.calls == 4
    assert_consistent(nova)


def test_a_run_that_is_taken_over_is_given_up_by_the_one_that_had_it(
    nova: Nova, start: Start, tour: tuple[str, ...], served: Provider
) -> None:
    """With --steal the second completes the run, the first records nothing more and says why."""
    served.hold(from_call=1)
    first = start(*tour, env=served.environment)
    served.wait_for_call()
    second = start("resume", "tour", "--steal", "--json", env=served.environment)
    while nova("runs", "show", "tour", "--json").check().json["lease"]["token"] < 2:
        assert second.poll() is None

    served.let_go()
    took_over, out, err = end(second, within_s=50)
    given_up, nothing, why = end(first, within_s=50)

    assert (took_over, json.loads(out)["status"]) == (0, "completed"), err
    assert (given_up, nothing) == (19, "")
    assert why.count("error: ") == 1
    assert "nova runs show tour" in why
    assert "Traceback" not in why + err
    nova("runs", "verify", "tour").check()
    nova("budget", "audit").check()


def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_space(
    nova: Nova, tour: tuple[str, ...], documents: Path
) -> None:
    """One message and an exit code of its own; each recorded step is the same afterwards, and the run completes."""
    for number in range(20):
        (documents / f"more-{number:02}.txt").write_bytes(os.urandom(4000).hex().encode())
    nova("db", "migrate").check()
    limit = load_settings().database_file.stat().st_size + 150_000
    limited = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        " from app.cli import main; main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", limited, *tour],
        env={**os.environ, "LLM_ADAPTER": "stub"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    code, out, err = end(process)
    before = recorded(nova)

    assert (code, out) == (30, ""), err
    assert err.count("error: ") == 1
    assert "nova resume tour" in err
    assert "Traceback" not in err
    assert 0 < len(before) < 23
    resumed = nova("resume", "tour", "--json").check().json
    after = recorded(nova)
    assert resumed["status"] == "completed"
    assert {step_id: after[step_id] for step_id in before} == before
    nova("budget", "audit").check()


@pytest.mark.parametrize("arguments", [("runs", "list"), ("version", "--json")])
def test_a_closed_pipe_ends_a_command_quietly(start: Start, arguments: tuple[str, ...]) -> None:
    """Nobody reads: nothing is said, and the exit code is that of a closed pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    process = start(*arguments, stdout=writer)
    os.close(writer)

    _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (141, b"")


def test_a_run_whose_result_nobody_reads_is_completed_all_the_same(
    nova: Nova, start: Start, tour: tuple[str, ...]
) -> None:
    """The result that could not be given is on record."""
    reader, writer = os.pipe()
    os.close(reader)
    process = start(*tour, stdout=writer)
    os.close(writer)

    _, err = process.communicate(timeout=20)

    assert process.returncode == 141
    assert b"error" not in err
    assert nova("runs", "show", "tour", "--json").check().json["status"] == "completed"
    assert_consistent(nova)


def test_a_run_whose_progress_nobody_reads_completes(nova: Nova, start: Start, tour: tuple[str, ...]) -> None:
    """A closed standard error costs the progress, not the run."""
    reader, writer = os.pipe()
    os.close(reader)
    process = start(*tour, stderr=writer)
    os.close(writer)

    out, _ = process.communicate(timeout=20)

    assert process.returncode == 0
    assert out.decode() == recorded(nova)["brief"] + "\n"
    assert_consistent(nova)


@NEEDS_A_FULL_DEVICE
@pytest.mark.parametrize("arguments", [("version",), ("--help",), ("runs", "show", "--help")], ids=" ".join)
def test_output_that_cannot_be_written_is_told(start: Start, arguments: tuple[str, ...]) -> None:
    """A full disk under standard output has an exit code of its own, and one message."""
    with Path("/dev/full").open("wb") as full:
        process = start(*arguments, stdout=full)
        _, err = process.communicate(timeout=20)

    assert process.returncode == 50
    assert err.decode() == "error: the output could not be written: No space left on device\n"


@NEEDS_A_FULL_DEVICE
def test_an_error_that_cannot_be_told_keeps_its_exit_code(start: Start) -> None:
    """Where standard error is full, the exit code still says what was wrong."""
    with Path("/dev/full").open("wb") as full:
        process = start("runs", "history", "none", stderr=full)
        process.communicate(timeout=20)

    assert process.returncode == 10


@pytest.mark.parametrize(("redirection", "arguments", "code"), [(">&-", "version", 0), ("2>&-", "runs show none", 10)])
def test_streams_that_are_closed_from_the_start_do_no_harm(redirection: str, arguments: str, code: int) -> None:
    """The null device takes their place, and the exit code is the command's."""
    command = f'exec "{sys.executable}" -m app.cli {arguments} {redirection}'

    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=20, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@pytest.mark.parametrize("option", [(), ("--json",)], ids=["text", "json"])
def test_a_letter_that_the_terminal_does_not_have_does_no_harm(start: Start, option: tuple[str, ...]) -> None:
    """Where the encoding is ASCII the text has an escape for it, and the document is the same JSON."""
    process = start("ask", "Caf\u00e9", *option, env={"PYTHONIOENCODING": "ascii"})

    code, out, err = end(process)

    assert code == 0, err
    assert out == "Caf\\xe9\n" if not option else json.loads(out)["content"] == "Caf\u00e9"


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["INT", "TERM", "HUP"],
)
def test_an_interrupted_question_is_charged_as_uncertain(
    nova: Nova, start: Start, served: Provider, number: signal.Signals, status: int
) -> None:
    """A signal while the provider is silent ends the command at once; the call counts, and the remedy shows it."""
    served.hold(from_call=1)
    process = start("ask", "How do ants find their way?", "--max-tokens", "50", env=served.environment)
    served.wait_for_call()

    process.send_signal(number)
    code, out, err = end(process, within_s=10)

    uncertain = nova("budget", "holds", "--state", "expired", "--json").check().json["holds"]
    assert (code, out.strip()) == (status, "")
    assert "nova budget holds --state expired" in err
    assert "Traceback" not in err
    assert len(uncertain) == 1
    assert uncertain[0]["charged"] == uncertain[0]["amount"]


def test_a_question_whose_answer_nobody_reads_is_settled(nova: Nova, start: Start) -> None:
    """A closed pipe ends the call and charges it; nothing stays held."""
    reader, writer = os.pipe()
    os.close(reader)
    process = start("ask", "How do ants find their way?", stdout=writer)
    os.close(writer)

    _, err = process.communicate(timeout=20)

    holds = nova("budget", "holds", "--json").check().json["holds"]
    assert (process.returncode, err) == (141, b"")
    assert [hold["state"] for hold in holds] == ["expired"]
    nova("budget", "audit").check()


def test_interrupting_a_wait_for_a_lease_changes_nothing(nova: Nova, start: Start, tour: tuple[str, ...]) -> None:
    """Ctrl-C during the countdown leaves the run to its holder."""
    nova(*tour, "--budget", "$0.00000001")
    held_by("mars", lease=timedelta(hours=1))
    process = start("resume", "tour")
    assert process.stderr is not None
    said = process.stderr.readline()

    process.send_signal(signal.SIGINT)
    code, _, err = end(process, within_s=10)

    assert b"process 7 on mars" in said
    assert code == 130
    assert "nothing was changed" in err
    lease = nova("runs", "show", "tour", "--json").check().json["lease"]
    assert lease["holder"] == "process 7 on mars"
