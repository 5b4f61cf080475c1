"""Users' tenants and batch keys as keys of our own, so that the scheduler runs no code of users' objects.

A plain value (a `str`, an `int`, a tuple of such) is its own key. Any other object is hashed and compared once, by
`Interner.key_of`, on the caller's thread and without a lock; objects that are equal get the same
`Token`, which is compared by identity.
"""

from __future__ import annotations

import operator
import threading
from types import NoneType
from typing import TYPE_CHECKING, Any
from weakref import ref

from director._untrusted.objects import is_a, plain

if TYPE_CHECKING:
    from collections.abc import Hashable

_PLAIN = frozenset(map(id, (str, int, float, bool, bytes, NoneType)))  # by id: a metaclass may define `__hash__`
_SWEEP_AT = 64


class Token:
    """Represents a user's object and all objects equal to it.

    Has no reference to them, so that its deletion runs no user code.
    """

    __slots__ = ("__weakref__",)


class Interner:
    """Gives equal objects the same key, for as long as a job or an option holds the key.

    For any thread. User code that is called in here (`__hash__`, `__eq__`, finalizers) may call it again: in the worst
    case two equal objects then get different keys. Only finalizers are called under the lock.

    Only objects of the same class are compared with each other, and a subclass of `str` or `int` counts as the plain
    value in it: what one class returns has no effect on callers with another.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # guards the changes of what follows
        self._known: dict[tuple[int, int], tuple[tuple[ref[Token], Any], ...]] = {}  # by class and hash
        self._count = 0
        self._sweep_at = _SWEEP_AT

    def key_of(self, value: Any) -> Hashable:
        """The key of a tenant, or of the value that a `batch_key` has returned.

        A comparison that raises counts as unequal.

        Raises:
            BaseException: What hashing it raises.
        """
        kind = type(value)
        if id(kind) in _PLAIN:
            return value  # type: ignore[no-any-return]
        if kind is tuple:
            return tuple(map(self.key_of, value))
        if is_a(value, str):
            return plain(value)
        if is_a(value, int):
            return int.__index__(value)
        number = hash(value)
        index = _index_of(value)  # for example of NumPy's integers
        return self._token(value, (id(kind), number)) if index is None or hash(index) != number else index

    def _token(self, value: Any, place: tuple[int, int]) -> Token:
        while True:
            entries = self._known.get(place, ())
            for known, other in entries:
                if (token := known()) is not None and _are_equal(value, other):
                    return token
            with self._lock:
                if self._known.get(place, ()) is not entries:
                    continue  # another thread has added one meanwhile, perhaps an equal one
                token = Token()
                self._known[place] = (*entries, (ref(token), value))
                self._count += 1
            if self._count > self._sweep_at:
                self._sweep()
            return token

    def _sweep(self) -> None:
        """Release the objects whose tokens have been deleted, without the lock."""
        with self._lock:
            before, self._known = self._known, {}
            for place, entries in before.items():
                if live := tuple(entry for entry in entries if entry[0]() is not None):
                    self._known[place] = live
            self._count = sum(map(len, self._known.values()))
            self._sweep_at = max(_SWEEP_AT, 2 * self._count)


def _index_of(value: Any) -> int | None:
    try:
        index = int.__index__(operator.index(value))
        return index if value == index else None
    except Exception:  # noqa: BLE001 - most objects are no integers
        return None


def _are_equal(value: Any, other: Any) -> bool:
    if value is other:
        return True
    if type(value) is not type(other):  # `__class__` has been assigned since it was stored
        return False
    try:
        return bool(value == other)
    except Exception:  # noqa: BLE001 - it may have been the other caller's object
        return False
