"""How many jobs of each application wait, run and were refused, in shared memory that all of them and the server map.

Each application writes its own row only, and the server zeroes the row of one that has gone. A row has one word for all
jobs, one for those that were refused, and a table of tenants. A word is stored at once, so that no reader sees half of
a change.
"""

from __future__ import annotations

import mmap
import os
from hashlib import blake2b
from typing import Any

APPLICATIONS = 511
"""Rows."""
_HALF = 32  # bits of a row's first word for the jobs that wait; the others are for those that run
_SETS, _WAYS = 256, 16  # a tenant is in one of the words of one set
_ROW = _SETS * _WAYS
_COUNT = 20  # bits of a tenant's word for its jobs that wait; the others identify it
_COUNT_MASK, _WAITING_MASK = (1 << _COUNT) - 1, (1 << _HALF) - 1
_REFUSED = 1 + APPLICATIONS  # where the second words begin
_TABLES = 2 * (1 + APPLICATIONS)
SIZE = 8 * (_TABLES + APPLICATIONS * _ROW)
"""Bytes; the system provides memory for those only that are used."""


class QueueCounts:
    """The counts of all applications.

    Word 0 is the number of rows that have ever been in use. The first words of all rows follow, then the second words,
    of which the first counts for the applications that have gone, then the tables.

    Args:
        descriptor: Of the shared memory, which stays open.
    """

    def __init__(self, descriptor: int) -> None:
        self._words = memoryview(mmap.mmap(descriptor, SIZE)).cast("Q")

    @classmethod
    def create(cls) -> tuple[QueueCounts, int]:
        """New counts, and the descriptor of their memory."""
        descriptor = os.memfd_create("director", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, SIZE)
        return cls(descriptor), descriptor

    def note(self, row: int, waiting: int, running: int) -> None:
        """Set how many jobs of an application wait and run."""
        self._words[row] = running << _HALF | waiting

    def totals(self) -> tuple[int, int]:
        """How many jobs wait, and how many run, of all applications."""
        total = sum(self._words[1 : 1 + self._words[0]])
        return total & _WAITING_MASK, total >> _HALF

    def note_tenant(self, row: int, tenant: int, waiting: int) -> None:
        """Set how many jobs of a tenant wait, of an application. Has no effect if sixteen others are in its set."""
        free = None
        for at, word in self._set(row, tenant):
            if word >> _COUNT == tenant:
                self._words[at] = tenant << _COUNT | min(waiting, _COUNT_MASK) if waiting else 0
                return
            if not word and free is None:
                free = at
        if waiting and free is not None:
            self._words[free] = tenant << _COUNT | min(waiting, _COUNT_MASK)

    def of_tenant(self, tenant: int) -> int:
        """How many jobs of a tenant wait, of all applications."""
        rows = [row for row, word in enumerate(self._words[1 : 1 + self._words[0]], 1) if word & _WAITING_MASK]
        return sum(word & _COUNT_MASK for row in rows for _, word in self._set(row, tenant) if word >> _COUNT == tenant)

    def note_refused(self, row: int, count: int) -> None:
        """Set how many jobs of an application were refused by itself."""
        self._words[_REFUSED + row] = count

    def refused(self) -> int:
        """How many jobs all applications have refused, those that have gone included."""
        return sum(self._words[_REFUSED : _REFUSED + 1 + self._words[0]])

    # ---- for the server

    def open(self, row: int) -> None:
        """An application gets a row, from 1 on."""
        self._words[0] = max(self._words[0], row)

    def clear(self, row: int) -> None:
        """An application has gone."""
        self._words[row] = 0
        self._words[_REFUSED] += self._words[_REFUSED + row]
        self._words[_REFUSED + row] = 0
        start = _TABLES + (row - 1) * _ROW
        self._words[start : start + _ROW] = memoryview(bytes(8 * _ROW)).cast("Q")

    def _set(self, row: int, tenant: int) -> list[tuple[int, int]]:
        start = _TABLES + (row - 1) * _ROW + tenant % _SETS * _WAYS
        return [*enumerate(self._words[start : start + _WAYS].tolist(), start)]


def tenant_number(tenant: Any) -> int:
    """What identifies a tenant in all processes, equal for equal tenants: plain values or tuples of them."""
    digest = blake2b(repr(_comparable(tenant)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> _COUNT or 1


def _comparable(value: Any) -> Any:
    """Equal numbers of different types are one tenant."""
    if type(value) is tuple:
        return tuple(map(_comparable, value))
    if type(value) is float and value.is_integer():
        return int(value)
    return int(value) if type(value) is bool else value if type(value) in (int, float) else (value,)
