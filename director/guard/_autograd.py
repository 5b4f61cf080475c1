"""Finds values that torch's autograd records though the program has switched that off. torch is never imported here."""

from __future__ import annotations

import sys
from typing import Any


def is_switched_off() -> bool:
    """Whether torch is imported and records nothing on the calling thread: its grad mode is per thread."""
    is_enabled = getattr(sys.modules.get("torch"), "is_grad_enabled", None)
    return callable(is_enabled) and not is_enabled()


def is_recorded(value: Any) -> bool:
    """Whether `value` is a tensor with a graph behind it."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return isinstance(tensor, type) and isinstance(value, tensor) and getattr(value, "grad_fn", None) is not None
