"""The segment format: what was written is read, by Nova, by zstd, by DuckDB and by pyarrow, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import cast

import duckdb
import pyarrow
import pyarrow.json
import pytest
import zstandard
from blockbuster import BlockBuster

from app.errors import CheckpointCorruptError
from app.stores.archive.lines import ArchivedRun
from app.stores.archive.segment import (
    FRAME_BYTES,
    Segment,
    SegmentHeader,
    SegmentWriter,
    decode_run,
    parse_segment,
    unpacked_frames,
)
from app.stores.checkpoint.codec import MAX_VALUE_BYTES, decode
from app.stores.checkpoint.rows import StoredRun, StoredStep, rows_digest, state_of

from .runs import NOW_MS, stored_run, value

HEADER = SegmentHeader(
    segment_id="0197b3c4-0000-7000-8000-000000000000", epoch=3, store_id="store", tenant_id="default", created_ms=NOW_MS
)

Whole = tuple[StoredRun, tuple[StoredStep, ...]]


def segment_of(runs: list[Whole]) -> Segment:
    """Return a segment with these runs."""
    writer = SegmentWriter(HEADER)
    for run, steps in runs:
        writer.add(run, steps, rows_sha256=rows_digest(steps))
    return writer.finish()


def some_runs(seed: int, count: int = 20) -> list[Whole]:
    """Return runs of any length, also empty ones."""
    generator = random.Random(seed)
    return [
        stored_run(f"run/{number} ü", [value(generator) for _ in range(generator.randrange(12))])
        for number in range(count)
    ]


def read(segment: Segment, number: int) -> ArchivedRun:
    """Read one run by the range that the index names."""
    entry = segment.entries[number]
    return decode_run(
        segment.data[entry.offset : entry.offset + entry.length],
        tenant_id="default",
        sha256=bytes.fromhex(entry.sha256),
    )


def lines_of(segment: Segment) -> list[bytes]:
    """Return the lines as any zstd reader finds them, which knows nothing of runs."""
    with zstandard.ZstdDecompressor().stream_reader(segment.data, read_across_frames=True) as reader:
        return reader.read().splitlines()


@pytest.mark.parametrize("seed", range(5))
def test_what_was_written_is_read(seed: int) -> None:
    """Every run comes back from its range alone, with its head, values, steps, metas and times."""
    runs = some_runs(seed)

    segment = parse_segment(segment_of(runs).data)

    assert segment.header == HEADER
    assert [entry.run_id for entry in segment.entries] == [run.head.run_id for run, _ in runs]
    for number, (run, steps) in enumerate(runs):
        found = read(segment, number)
        assert found.head == run.head
        assert state_of(found.run, found.steps) == state_of(run, steps)
        assert [step.version for step in found.steps] == [step.version for step in steps]
        assert segment.entries[number].rows_sha256 == rows_digest(steps).hex()


def test_a_long_run_lies_in_frames_side_by_side() -> None:
    """A run is split between lines into frames of 256 KiB; a longer line has its own; one range has all."""
    generator = random.Random(1)
    outputs = [generator.randbytes(20_000).hex() for _ in range(20)] + [generator.randbytes(400_000).hex(), "end"]
    run, steps = stored_run("long", outputs)

    segment = segment_of([stored_run("before", [1]), (run, steps), stored_run("after", [2])])

    entry = segment.entries[1]
    sizes = [len(raw) for _, raw in unpacked_frames(segment.data[entry.offset : entry.offset + entry.length])]
    assert len(sizes) >= 5
    assert sum(size > FRAME_BYTES for size in sizes) == 1
    assert read(segment, 1).head == run.head


def test_the_largest_values_are_read() -> None:
    """A step of the largest size, all of whose characters need an escape, comes back."""
    run, steps = stored_run("large", ['"' * (MAX_VALUE_BYTES // 2 - 1)])
    assert steps[0].size_bytes == MAX_VALUE_BYTES

    assert decode(read(segment_of([(run, steps)]), 0).steps[0].body) == decode(steps[0].body)


def test_the_lines_say_what_the_documentation_says() -> None:
    """One line for the head and one for each step; hashes can be recomputed from the strings of the line alone."""
    run, steps = stored_run("r", [{"b": 1, "a": "ü"}])
    segment = segment_of([(run, steps)])

    lines = lines_of(segment)

    head, step = (json.loads(line) for line in lines)
    assert (head["kind"], head["run_id"], head["steps"], head["status"]) == ("run", "r", 1, "completed")
    assert (head["inputs"], head["result"]) == ('{"of":"r"}', '["result","r"]')
    assert (step["kind"], step["run_id"], step["step_index"], step["step_id"]) == ("step", "r", 0, "s/0")
    assert (step["output"], step["meta"]) == ('{"a":"ü","b":1}', '{"attempts":0}')

    def chained(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(struct.pack(">Q", len(part)) + part for part in parts)).digest()

    root = chained(b"nova-run-1", b"default", b"r")
    output_digest = hashlib.sha256(step["output"].encode()).digest()
    assert chained(b"nova-step-1", root, b"s/0", b"f0", output_digest).hex() == step["hash"] == head["hash"]


# --- other readers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, blockbuster: BlockBuster) -> Path:
    """Return a segment as a file."""
    blockbuster.deactivate()
    path = tmp_path / "segment.jsonl.zst"
    path.write_bytes(segment_of(some_runs(7, count=300)).data)
    return path


def _counts() -> tuple[int, int]:
    runs = some_runs(7, count=300)
    return len(runs), sum(len(steps) for _, steps in runs)


@pytest.mark.skipif(
    shutil.which("zstd") is None and "CI" not in os.environ,
    reason="the zstd program is not installed; .ci/run installs it",
)
def test_the_zstd_program_finds_it_whole(file: Path) -> None:
    """``zstd -t`` reads every frame and its checksum, and ``zstd -dc`` gives the lines."""
    subprocess.run(["zstd", "-q", "-t", file], check=True)

    lines = subprocess.run(["zstd", "-dc", file], check=True, capture_output=True).stdout.splitlines()
    assert len(lines) == sum(_counts())


def test_duckdb_queries_it(file: Path) -> None:
    """DuckDB reads a segment as newline-delimited JSON, and the outputs in it as JSON."""
    table = f"read_json('{file}', format='newline_delimited', compression='zstd')"

    counted = duckdb.execute(f"SELECT kind, count(*) FROM {table} GROUP BY kind ORDER BY kind").fetchall()
    numbers = duckdb.execute(
        f"SELECT sum(CAST(output::JSON->>'$.n' AS DOUBLE)) FROM {table}"
        " WHERE kind = 'step' AND json_type(output::JSON) = 'OBJECT'"
    ).fetchone()

    assert dict(counted) == dict(zip(("run", "step"), _counts(), strict=True))
    outputs = [
        output for run, steps in some_runs(7, count=300) for output in state_of(run, steps).step_outputs.values()
    ]
    assert numbers is not None
    assert numbers[0] == pytest.approx(
        sum(cast("float", output["n"]) for output in outputs if isinstance(output, dict))
    )


def test_pyarrow_reads_it(file: Path) -> None:
    """Pyarrow reads a segment into one table, whatever kinds of values the outputs are."""
    raw = b"".join(line + b"\n" for line in lines_of(segment_of(some_runs(7, count=300))))
    assert pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), "zstd").read() == raw

    table = pyarrow.json.read_json(pyarrow.BufferReader(raw))

    kinds = table.column("kind").to_pylist()
    assert (kinds.count("run"), kinds.count("step")) == _counts()
    assert table.schema.field("output").type == pyarrow.string()


# --- what is not whole ------------------------------------------------------------------------------------------------


def test_every_cut_is_noticed() -> None:
    """A segment that lacks bytes at its end is refused, wherever it was cut."""
    data = segment_of(some_runs(3, count=3)).data

    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"cut|segment|index|frame|table|JSON|Expecting"):
            parse_segment(data[:length])


def test_every_flipped_bit_of_a_run_is_noticed() -> None:
    """A range of which one bit differs is never decoded to a run."""
    segment = segment_of(some_runs(4, count=2))
    entry = segment.entries[0]
    frames = segment.data[entry.offset : entry.offset + entry.length]

    for position in range(0, len(frames), 3):
        damaged = bytearray(frames)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(ValueError, match="not those that were stored"):
            decode_run(bytes(damaged), tenant_id="default", sha256=bytes.fromhex(entry.sha256))


def test_a_consistent_forgery_is_noticed() -> None:
    """Frames whose hash is right but whose steps do not chain are refused, with run and step."""
    run, steps = stored_run("r", [1, 2, 3])
    lines = lines_of(segment_of([(run, steps)]))
    lines[2] = lines[2].replace(b'"output":"2"', b'"output":"4"')
    forged = zstandard.ZstdCompressor().compress(b"\n".join(lines) + b"\n")

    with pytest.raises(CheckpointCorruptError) as caught:
        decode_run(forged, tenant_id="default", sha256=hashlib.sha256(forged).digest())

    assert (caught.value.run_id, caught.value.step_id) == ("r", "s/1")


def test_a_run_of_another_tenant_is_refused() -> None:
    """Frames are read for the tenant whose they are."""
    segment = segment_of([stored_run("r", [1])])
    entry = segment.entries[0]

    with pytest.raises(ValueError, match="tenant"):
        decode_run(
            segment.data[entry.offset : entry.offset + entry.length],
            tenant_id="other",
            sha256=bytes.fromhex(entry.sha256),
        )


def test_a_run_that_does_not_verify_is_not_written() -> None:
    """A run whose stored bytes were changed is refused, and the segment goes on as if it had not been offered."""
    run, steps = stored_run("bad", [1, 2])
    tampered = (steps[0], steps[1]._replace(body=steps[0].body))
    writer = SegmentWriter(HEADER)

    with pytest.raises(CheckpointCorruptError):
        writer.add(run, tampered, rows_sha256=rows_digest(tampered))
    good, its_steps = stored_run("good", [1])
    writer.add(good, its_steps, rows_sha256=rows_digest(its_steps))

    assert [entry.run_id for entry in parse_segment(writer.finish().data).entries] == ["good"]


def test_a_newer_format_is_refused_by_its_number() -> None:
    """A segment of a later format says that Nova is to be upgraded, before anything else of it is read."""
    data = segment_of([stored_run("r", [1])]).data.replace(b'"format":1', b'"format":2')

    with pytest.raises(ValueError, match="upgrade"):
        parse_segment(data)


def test_a_frame_that_claims_to_be_huge_is_not_unpacked() -> None:
    """A frame header that declares gigabytes is refused before memory is taken."""
    frame = zstandard.ZstdCompressor().compress(b"x")
    huge = frame[:4] + bytes([0xE0]) + struct.pack("<Q", 1 << 40) + frame[6:]

    with pytest.raises(ValueError, match="larger"):
        decode_run(huge, tenant_id="default", sha256=hashlib.sha256(huge).digest())
