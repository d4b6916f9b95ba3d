"""The list of mutants: ``*.toml`` files beside this one, a table for each guard that is taken out.

::

    [lease-ends-on-its-millisecond]
    file = "backend/app/stores/idempotency/record.py"
    before = "record.lease_until_ms <= now_ms"
    after = "record.lease_until_ms < now_ms"
    tests = ["stores/idempotency/test_memory.py::TestInMemoryIdempotencyStore::test_the_lease_ends_on_its_millisecond"]

``before`` must occur exactly once in ``file``. Each of ``tests``, which are pytest ids below ``backend/tests``, must
pass as the code is, and fail with ``after``. A mutant is called by the name of its file and its own:
``idempotency/lease-ends-on-its-millisecond``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HERE", "ROOT", "Mutant", "load"]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One guard, how it is taken out, and who must notice.

    Attributes:
        file: relative to the root of the tree.
        tests: pytest ids relative to ``backend/tests``.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def mutated(self, text: str) -> str:
        """Return the file's text without the guard.

        Raises:
            ValueError: the text to replace is not there exactly once.
        """
        found = text.count(self.before)
        if found != 1:
            raise ValueError(f"{self.name}: its 'before' occurs {found} times in {self.file}; it must occur once")
        return text.replace(self.before, self.after)


def load(folder: Path = HERE) -> tuple[Mutant, ...]:
    """Return every mutant of the ``*.toml`` files in a folder, in the order in which they are written.

    Raises:
        ValueError: an entry lacks a field or has one too many.
    """
    mutants: list[Mutant] = []
    for path in sorted(folder.glob("*.toml")):
        for name, entry in tomllib.loads(path.read_text()).items():
            if set(entry) != {"file", "before", "after", "tests"} or not entry["tests"]:
                raise ValueError(f"{path.name}: [{name}] needs file, before, after and tests, and nothing else")
            fields = {**entry, "tests": tuple(entry["tests"])}
            mutants.append(Mutant(name=f"{path.stem}/{name}", **fields))
    return tuple(mutants)
