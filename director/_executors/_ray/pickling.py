"""Ray's own cloudpickle, both ways: only so does a class of the driver's main module stay the same class."""

from __future__ import annotations

import pickle
from typing import Any


def dumps(value: Any) -> bytes:
    """Pickle `value`: what the other side can't import, as it is.

    Raises:
        Exception: It can't be done; which one, is up to the class of what is in it.
    """
    from ray import cloudpickle

    packed: bytes = cloudpickle.dumps(value)
    return packed


def loads(packed: bytes) -> Any:
    """The value again.

    Raises:
        BaseException: It can't be made here.
    """
    return pickle.loads(packed)  # noqa: S301 - of our own driver or actors
