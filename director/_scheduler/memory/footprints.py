"""What one model takes of devices, as it declares and as its loads were measured. Guarded by `scheduler`'s lock.

Kept by the names of devices, for equal GPUs take equally much. More than was declared is believed at once; less is not,
for the next input may need it.
"""

from __future__ import annotations


class Footprints:
    """The footprints of one model.

    Args:
        declared: Bytes of a replica as its `Model` says; `None` if it says nothing.
    """

    __slots__ = ("_tried", "declared", "resident")

    def __init__(self, declared: int | None) -> None:
        self.declared = declared
        self.resident: dict[str, int] = {}  # by the name of the device: what the last load took that was measured
        self._tried: set[str] = set()  # names of devices on which nothing could measure a load

    def measured(self, name: str) -> int | None:
        """What a replica was measured to take on devices of this name."""
        return self.resident.get(name)

    def size(self, name: str) -> int:
        """Bytes that a load is charged with there; 0 if nothing is known."""
        known = self.resident.get(name)
        if known is None and self.declared is None:
            known = max(self.resident.values(), default=0)  # another GPU is the better guess than nothing
        return max(self.declared or 0, known or 0)

    def is_unknown(self, name: str) -> bool:
        """Whether the next load there goes alone, for what it takes is to be found out."""
        return self.declared is None and name not in self.resident and name not in self._tried

    def learn(self, name: str, resident: int) -> None:
        """A load has taken so many bytes."""
        self.resident[name] = resident

    def give_up(self, name: str) -> None:
        """Nothing on such devices can measure a load."""
        self._tried.add(name)
