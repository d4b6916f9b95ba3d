"""The program: its exit codes, its output, and a run that is archived, purged, restored and erased from the shell."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

from app.errors import ConfigurationError, InvalidInputError
from app.stores.archive.sqlite_ledger import SqliteLedger
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.stores.checkpoint_offload import offload_old_checkpoints
from app.stores.offload.command import OffloadExit, run
from tests.support.planted import planted

from .world import holder

SECRET = planted("archive.url_password")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blockbuster: BlockBuster) -> None:
    """Configure a file and a directory."""
    blockbuster.deactivate()
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'nova.db'}")
    monkeypatch.setenv("NOVA_ARCHIVE_DIR", str(tmp_path / "archive"))


def record(tmp_path: Path, *names: str, tenant_id: str = "default") -> None:
    """Record completed runs of two steps."""

    async def work() -> None:
        store = SqliteCheckpointStore(tmp_path / "nova.db")
        for name in names:
            await store.save(
                name, 2, step_outputs={"a": 1, "b": "two"}, status=RunStatus.COMPLETED, tenant_id=tenant_id
            )
        await store.close()

    asyncio.run(work())


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the program in this process."""
    code = run(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the program and read its one document."""
    code, out, _ = call(capsys, *arguments, "--json")
    return code, json.loads(out)


def test_the_daily_job_as_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs are copied and purged, the summary says so, and a second job has nothing to do."""
    record(tmp_path, "a", "b")

    code, out, _ = call(capsys, "--older-than", "0", "--retention", "0")
    again, said = document(capsys, "offload", "--older-than", "0", "--retention", "0")

    assert code == again == OffloadExit.DONE
    assert "copied 2 runs with 4 checkpoints into 1 segment (" in out
    assert "purged 2 runs with 4 checkpoints" in out
    assert (said["outcome"], said["runs"], said["purged_runs"], said["exit_code"]) == ("done", 0, 0, 0)


def test_a_module_run_by_python_is_the_program(tmp_path: Path) -> None:
    """``python3 -m app.stores.checkpoint_offload`` prints one document and ends with the exit code."""
    record(tmp_path, "a")

    ran = subprocess.run(
        [sys.executable, "-m", "app.stores.checkpoint_offload", "--older-than", "0", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["runs"] == 1


def test_a_run_goes_to_the_archive_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every verb in the order in which an operator may need it."""
    record(tmp_path, "a", "b")
    record(tmp_path, "c", tenant_id="t2")
    assert call(capsys, "--older-than", "0", "--retention", "0")[0] == 0

    code, listed = document(capsys, "ls")
    assert (code, sorted(each["live_runs"] for each in listed["segments"])) == (0, [1, 2])
    assert listed["jobs"][0]["outcome"] == "done"
    assert "2 of" in call(capsys, "ls", "--tenant", "default")[1]
    assert document(capsys, "verify")[1]["right"] == 2
    assert len(call(capsys, "export", "--tenant", "t2")[1].splitlines()) == 3
    assert call(capsys, "export", "--output", str(tmp_path / "all.jsonl"))[0] == 0
    assert len((tmp_path / "all.jsonl").read_bytes().splitlines()) == 9
    assert call(capsys, "export", "--output", str(tmp_path / "all.jsonl"))[0] == OffloadExit.USAGE
    assert document(capsys, "restore", "--run", "a")[1]["restored"] is True
    assert document(capsys, "restore", "--run", "a")[1]["restored"] is False
    assert document(capsys, "gc")[1]["adopted"] == 0
    code, receipt = document(capsys, "erase", "--tenant", "t2", "--yes")
    assert (code, receipt["runs"], len(receipt["objects"]), receipt["remaining"]) == (0, 1, 1, [])
    (tmp_path / "nova.db").unlink()
    code, rebuilt = document(capsys, "rebuild-index")
    assert (code, rebuilt["new_runs"], rebuilt["quarantined"]) == (0, 2, [])


def test_a_dry_run_says_what_would_be_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And does nothing."""
    record(tmp_path, "a")

    code, out, _ = call(capsys, "--older-than", "0", "--dry-run")

    assert (code, out) == (0, "would copy 1 run; would purge 0 that are archived now\n")
    assert not (tmp_path / "archive").exists()


def test_another_job_ends_it_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that finds the lease taken ends at once, and says who has it."""

    async def take() -> None:
        ledger = SqliteLedger(tmp_path / "nova.db")
        await ledger.begin("offload", holder=holder("other"))
        await ledger.close()

    asyncio.run(take())

    code, out, err = call(capsys, "--older-than", "0")

    assert (code, out) == (OffloadExit.BUSY, "")
    assert "process 7 on elsewhere" in err


def test_too_little_time_ends_it_with_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that ran out of time is partial."""
    record(tmp_path, "a")

    assert call(capsys, "--older-than", "0", "--max-seconds", "0")[0] == OffloadExit.PARTIAL


def test_damage_ends_it_with_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A segment that is damaged is named with the runs that are lost with it."""
    record(tmp_path, "a")
    call(capsys, "--older-than", "0", "--retention", "0")
    (segment,) = (tmp_path / "archive" / "v1" / "seg").rglob("*.zst")
    segment.write_bytes(segment.read_bytes()[:200])

    code, _, err = call(capsys, "verify")
    restoring, _, why = call(capsys, "restore", "--run", "a")

    assert code == restoring == OffloadExit.UNVERIFIED
    assert "only copy of run 'a'" in err
    assert segment.name in why


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"NOVA_ARCHIVE_DIR": None}, "NOVA_ARCHIVE_DIR"),
        ({"NOVA_ARCHIVE_DIR": None, "R2_BUCKET": "b", "R2_ENDPOINT": "https://r2"}, "R2_ACCESS_KEY_ID"),
        ({"R2_BUCKET": "b"}, "R2_BUCKET"),
        ({"DATABASE_URL": None}, "DATABASE_URL"),
        (
            {
                "NOVA_ARCHIVE_DIR": None,
                "R2_BUCKET": "b",
                "R2_ENDPOINT": "r2.example",
                "R2_ACCESS_KEY_ID": "i",
                "R2_SECRET_ACCESS_KEY": SECRET,
            },
            "R2_ENDPOINT",
        ),
        (
            {
                "NOVA_ARCHIVE_DIR": None,
                "R2_BUCKET": "b",
                "R2_ENDPOINT": f"http://key:{SECRET}@127.0.0.1:1",
                "R2_ACCESS_KEY_ID": "i",
                "R2_SECRET_ACCESS_KEY": "another",
            },
            "R2_ENDPOINT",
        ),
    ],
)
def test_what_is_missing_is_named_with_6(
    changes: dict[str, str | None], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No archive, half of one, two of them, no database, and an endpoint that is no URL: which variable, no secret."""
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)

    code, _, err = call(capsys, "--older-than", "0")

    assert code == OffloadExit.CONFIGURATION
    assert named in err
    assert SECRET not in err
    with pytest.raises(ConfigurationError):
        asyncio.run(offload_old_checkpoints(older_than_days=3))


def test_an_archive_that_does_not_answer_ends_it_with_7(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory that cannot be used is told with its path."""
    record(tmp_path, "a")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NOVA_ARCHIVE_DIR", str(tmp_path / "file"))

    code, out, err = call(capsys, "--older-than", "0", "--json")

    assert code == OffloadExit.UNAVAILABLE
    assert json.loads(out)["error"]["code"] == "ERR_ARCHIVE_UNAVAILABLE"
    assert "file" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--older-than", "-1"),
        ("--older-than", "8", "--retention", "3"),
        ("--older-than", "nan"),
        ("--retention", "1e9"),
        ("erase",),
        ("erase", "--tenant", "t"),
        ("restore",),
        ("restore", "--run", "nobody"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with 2 and a sentence, and nothing was changed."""
    code, out, err = call(capsys, *arguments)

    assert (code, out) == (OffloadExit.USAGE, "")
    assert err.startswith("error: ")


def test_an_unknown_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """As are options that there are not."""
    for arguments in (("explode",), ("--older-then", "3")):
        with pytest.raises(SystemExit) as end:
            run(arguments)
        assert end.value.code == 2
    capsys.readouterr()


def test_an_unset_retention_is_never_below_the_age_of_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The larger of what the environment says and the age of copies; below it only on request, which is refused."""
    record(tmp_path, "a")
    monkeypatch.setenv("CHECKPOINT_RETENTION_DAYS", "0")
    monkeypatch.setenv("CHECKPOINT_OFFLOAD_OLDER_THAN_DAYS", "0")
    assert asyncio.run(offload_old_checkpoints(1)).purged_runs == 0
    assert asyncio.run(offload_old_checkpoints()).purged_runs == 1

    with pytest.raises(InvalidInputError, match="retention_days"):
        asyncio.run(offload_old_checkpoints(older_than_days=3, retention_days=2.5))


def test_sigterm_ends_it_in_order(tmp_path: Path) -> None:
    """The job that is asked to end gives its lease up: exit code 143, and the next job begins at once."""
    record(tmp_path, "a")
    program = (
        "import os, signal, sys\n"
        "from app.stores.archive.directory import DirectoryArchive\n"
        "async def put_new(self, key, data):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    import asyncio; await asyncio.Event().wait()\n"
        "DirectoryArchive.put_new = put_new\n"
        "from app.stores.offload.command import run\n"
        "sys.exit(run(['--older-than', '0']))\n"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ)

    assert ran.returncode == OffloadExit.TERMINATED, ran.stderr
    report = asyncio.run(offload_old_checkpoints(older_than_days=0, retention_days=0))
    assert (report.outcome, report.runs) == ("done", 1)
    assert timedelta(seconds=report.seconds) < timedelta(minutes=1)
