"""The segment: many runs of one tenant in one object, which is a plain ``.jsonl.zst`` of several frames.

::

    skippable 0x184D2A50   "NOVASEG1" + JSON: format, segment, epoch, store, tenant, time
    zstd frames            the lines of a run, in one frame or in several that lie side by side; then the next run
    skippable 0x184D2A51   "NOVAIDX1" + zstd of one JSON line for each run: where its frames lie, and their SHA-256
    skippable 0x184D2A5E   the seek table of the zstd seekable format: the sizes of all frames before it

Whatever reads zstd reads the lines and skips the rest. One ranged GET of a run's frames restores the run.
``docs/archive-format.md`` describes it for whoever writes a reader.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from app.stores.archive.lines import ArchivedRun, read_lines, write_lines
from app.stores.checkpoint.codec import MAX_VALUE_BYTES
from app.stores.checkpoint.rows import StoredRun, StoredStep

__all__ = ["FORMAT", "Segment", "SegmentEntry", "SegmentHeader", "SegmentWriter", "decode_run", "parse_segment"]

FORMAT: Final = 1

FRAME_BYTES: Final = 256 * 1024
"""Lines are put together into a frame until it would have more than this; a longer line has a frame of its own."""

_HEADER_MAGIC: Final = 0x184D2A50
_INDEX_MAGIC: Final = 0x184D2A51
_SEEK_MAGIC: Final = 0x184D2A5E
_SEEKABLE: Final = 0x8F92EAB1
_SKIPPABLE_BYTES: Final = 8
_HEADER_MARK: Final = b"NOVASEG1"
_INDEX_MARK: Final = b"NOVAIDX1"
_LEVEL: Final = 3
_MAX_FRAME_BYTES: Final = 5 * MAX_VALUE_BYTES
"""No line is longer: two values of a run or a step, each of whose characters may be written as two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """What a segment says of itself.

    Attributes:
        segment_id: a UUID; also in its key.
        epoch: of the job that wrote it.
        store_id: of the archive that it belongs to.
        created_ms: when the job began it, by the database's clock.
    """

    segment_id: str
    epoch: int
    store_id: str
    tenant_id: str
    created_ms: int
    format: int = FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentEntry:
    """Where a run lies in a segment.

    Attributes:
        created_ms: with the tenant and the id it names this run, and no later one of the same id.
        version: of the run, when it was copied.
        steps: how many steps it had.
        offset, length: of its frames, in bytes of the object.
        sha256: of those bytes, hexadecimal.
        rows_sha256: of the rows in the database, as ``rows_digest`` has it, hexadecimal.
    """

    run_id: str
    created_ms: int
    version: int
    steps: int
    offset: int
    length: int
    sha256: str
    rows_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A whole segment; ``entries`` in the order of their frames."""

    header: SegmentHeader
    entries: tuple[SegmentEntry, ...]
    data: bytes
    sha256: bytes


class SegmentWriter:
    """Collects runs of one tenant in memory; not for two tasks at once."""

    def __init__(self, header: SegmentHeader) -> None:
        import zstandard

        self._header = header
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True)
        self._data = bytearray()
        self._sizes: list[tuple[int, int]] = []
        self._entries: list[SegmentEntry] = []
        self._append(_skippable(_HEADER_MAGIC, _HEADER_MARK + _json(asdict(header))), 0)

    @property
    def header(self) -> SegmentHeader:
        """What the segment says of itself."""
        return self._header

    @property
    def runs(self) -> int:
        """How many runs it has so far."""
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """How long it is so far, without its index."""
        return len(self._data)

    def add(self, run: StoredRun, steps: Sequence[StoredStep], *, rows_sha256: bytes) -> None:
        """Add a run; nothing is added where it does not verify.

        Raises:
            CheckpointCorruptError, ValueError: it does not verify.
        """
        frames = [(self._compressor.compress(raw), len(raw)) for raw in _grouped(write_lines(run, steps))]
        self.add_frames(
            frames,
            run_id=run.head.run_id,
            created_ms=run.head.created_ms,
            version=run.head.version,
            steps=len(steps),
            rows_sha256=rows_sha256.hex(),
        )

    def add_frames(
        self,
        frames: Sequence[tuple[bytes, int]],
        *,
        run_id: str,
        created_ms: int,
        version: int,
        steps: int,
        rows_sha256: str,
    ) -> None:
        """Add a run whose frames exist: each with how many bytes it unpacks to."""
        offset = len(self._data)
        for frame, unpacked in frames:
            self._append(frame, unpacked)
        self._entries.append(
            SegmentEntry(
                run_id=run_id,
                created_ms=created_ms,
                version=version,
                steps=steps,
                offset=offset,
                length=len(self._data) - offset,
                sha256=hashlib.sha256(memoryview(self._data)[offset:]).hexdigest(),
                rows_sha256=rows_sha256,
            )
        )

    def finish(self) -> Segment:
        """Return the segment; the writer is of no further use."""
        index = b"".join(_json(asdict(entry)) + b"\n" for entry in self._entries)
        self._append(_skippable(_INDEX_MAGIC, _INDEX_MARK + self._compressor.compress(index)), 0)
        table = b"".join(struct.pack("<II", *sizes) for sizes in self._sizes)
        footer = struct.pack("<IBI", len(self._sizes), 0, _SEEKABLE)
        self._data += _skippable(_SEEK_MAGIC, table + footer)
        data = bytes(self._data)
        return Segment(
            header=self._header,
            entries=tuple(self._entries),
            data=data,
            sha256=hashlib.sha256(data).digest(),
        )

    def _append(self, frame: bytes, unpacked: int) -> None:
        self._data += frame
        self._sizes.append((len(frame), unpacked))


def parse_segment(data: bytes) -> Segment:
    """Return a segment from its bytes; its runs are not decoded, see :func:`decode_run`.

    Raises:
        ValueError: it is not a segment, is cut or damaged, or a newer Nova wrote it.
    """
    header = _parse_header(data)
    index = _parse_index(data, _index_offset(data))
    end = _SKIPPABLE_BYTES + int(struct.unpack_from("<I", data, 4)[0])
    for entry in index:
        if entry.offset != end or entry.length <= 0:
            raise ValueError("its index does not cover its frames one after another")
        end += entry.length
    if end != _index_offset(data):
        raise ValueError("its index does not reach to the end of its frames")
    return Segment(header=header, entries=index, data=data, sha256=hashlib.sha256(data).digest())


def decode_run(frames: bytes, *, tenant_id: str, sha256: bytes) -> ArchivedRun:
    """Return a run from the bytes of its frames, verified by their hash and by the run's chain.

    Raises:
        ValueError: they are not the bytes that were stored, or not a run's.
        CheckpointCorruptError: the run does not verify.
    """
    if hashlib.sha256(frames).digest() != sha256:
        raise ValueError("its bytes are not those that were stored")
    lines = b"".join(raw for _, raw in unpacked_frames(frames))
    return read_lines(lines.splitlines(), tenant_id=tenant_id)


def unpacked_frames(frames: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give each zstd frame with what it unpacks to.

    Raises:
        ValueError: they are damaged.
    """
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=2**27)
    rest = frames
    while rest:
        try:
            # Asked first: a damaged size would be allocated.
            size = zstandard.frame_content_size(rest)
            if not 0 <= size <= _MAX_FRAME_BYTES:
                raise ValueError("a frame claims to be larger than any run's")
            unpacker = decompressor.decompressobj()
            raw = unpacker.decompress(rest)
        except zstandard.ZstdError as error:
            raise ValueError(f"a frame does not unpack: {error}") from error
        if not unpacker.eof or len(raw) != size:
            raise ValueError("a frame is cut")
        left = unpacker.unused_data
        yield rest[: len(rest) - len(left)], raw
        rest = left


def _parse_header(data: bytes) -> SegmentHeader:
    body = _skippable_body(data, 0, _HEADER_MAGIC)
    if not body.startswith(_HEADER_MARK):
        raise ValueError("it does not begin as a segment")
    document = _object(body[len(_HEADER_MARK) :])
    if document.get("format") != FORMAT:
        raise ValueError(f"it has format {document.get('format')!r}; this version of Nova reads {FORMAT}: upgrade Nova")
    try:
        return SegmentHeader(**document)
    except TypeError as error:
        raise ValueError(f"its header is not complete: {error}") from error


def _index_offset(data: bytes) -> int:
    """Return where the index begins: behind the last frame with content, by the seek table at the end."""
    if len(data) < 17:
        raise ValueError("it is cut")
    frames, flags, mark = struct.unpack_from("<IBI", data, len(data) - 9)
    table = len(data) - 9 - 8 * frames
    if mark != _SEEKABLE or flags != 0 or table < 8 or frames < 2:
        raise ValueError("it does not end in a seek table: it is cut")
    if _skippable_body(data, table - 8, _SEEK_MAGIC) != data[table:]:
        raise ValueError("its seek table is damaged")
    sizes = [struct.unpack_from("<II", data, table + 8 * number)[0] for number in range(frames)]
    if sum(sizes) != table - 8:
        raise ValueError("its seek table does not add up")
    return int(table - 8 - sizes[-1])


def _parse_index(data: bytes, offset: int) -> tuple[SegmentEntry, ...]:
    body = _skippable_body(data, offset, _INDEX_MAGIC)
    if not body.startswith(_INDEX_MARK):
        raise ValueError("it has no index")
    lines = b"".join(raw for _, raw in unpacked_frames(body[len(_INDEX_MARK) :])).splitlines()
    try:
        return tuple(SegmentEntry(**_object(line)) for line in lines)
    except TypeError as error:
        raise ValueError(f"its index is not complete: {error}") from error


def _grouped(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Put lines together into what one frame holds."""
    group = bytearray()
    for line in lines:
        if group and len(group) + len(line) > FRAME_BYTES:
            yield bytes(group)
            group.clear()
        group += line
    yield bytes(group)


def _skippable(magic: int, body: bytes) -> bytes:
    return struct.pack("<II", magic, len(body)) + body


def _skippable_body(data: bytes, offset: int, magic: int) -> bytes:
    if offset < 0 or len(data) < offset + 8:
        raise ValueError("it is cut")
    found, length = struct.unpack_from("<II", data, offset)
    if found != magic or len(data) < offset + 8 + length:
        raise ValueError("it is no segment, or it is cut")
    return data[offset + 8 : offset + 8 + length]


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _object(text: bytes) -> dict[str, Any]:
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - what is wrong is the data
    return document
