"""Users' tenants and batch keys as keys that compare and hash without asking the user's object.

What is plain stays itself. Anything else gets a `Key`, the same one for all that are equal, found on the thread of the
caller before any lock is taken: that is the only time at which `__hash__` and `__eq__` of a user are called. A `Key`
lives as long as a job, or an option of the Director, refers to it.
"""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any
from weakref import ref

from director._user_objects import is_a, plain, repr_of

if TYPE_CHECKING:
    from collections.abc import Hashable

_PLAIN = frozenset((str, int, float, bool, bytes, NoneType))
_FEWEST = 64  # entries from which on those of keys that are gone are dropped


class Key:
    """Stands for a user's object; equal to itself alone.

    Args:
        value: The object.
    """

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: Hashable) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr_of(self.value)


def key_of(value: Any) -> Hashable:
    """What stands for a tenant or a batch key.

    Raises:
        BaseException: What hashing or comparing it raises.
    """
    kind = type(value)
    if kind in _PLAIN or (kind is tuple and _PLAIN.issuperset(map(type, value))):
        return value  # type: ignore[no-any-return]
    if is_a(value, str):
        return plain(value)
    if is_a(value, int):
        return int.__index__(value)
    return _keys.of(value)


def value_of(key: Any) -> Any:
    """The user's own object again."""
    return key.value if type(key) is Key else key


class _Keys:
    """The keys in use, by the hash of what they stand for: to drop one asks no user's object."""

    def __init__(self) -> None:
        self._known: dict[int, list[ref[Key]]] = {}
        self._prune_at = _FEWEST

    def of(self, value: Any) -> Key:
        number = hash(value)
        for known in self._known.get(number, ()):
            key = known()
            if key is not None and (key.value is value or value == key.value):
                return key
        key = Key(value)
        if len(self._known) >= self._prune_at:
            self._prune()
        self._known.setdefault(number, []).append(ref(key))
        return key

    def _prune(self) -> None:
        """Drop those that no job and no option refers to any more."""
        alive = {number: [known for known in keys if known() is not None] for number, keys in self._known.items()}
        self._known = {number: keys for number, keys in alive.items() if keys}
        self._prune_at = max(_FEWEST, 2 * len(self._known))


_keys = _Keys()
