"""What refers to an object, in words."""

from __future__ import annotations

import gc
import sys
from types import FrameType
from typing import Any

_MOST = 3  # that are named


def holders_of(value: Any) -> list[str]:
    """What refers to an object, beside the caller's own frame; at most three. Runs no code of the user's."""
    ours = (sys._getframe(0), sys._getframe(1))
    found = [each for each in gc.get_referrers(value) if each is not ours[0] and each is not ours[1]]
    words = list(dict.fromkeys(map(_words, found)))
    if not words:
        return ["something that Python's garbage collector does not see"]
    return [*words[:_MOST], "others"] if len(words) > _MOST else words


def _words(holder: Any) -> str:
    if isinstance(holder, FrameType):
        return f"a call of {holder.f_code.co_name}"
    if type(holder) is dict:
        name = holder.get("__name__")
        return f"the module {name}" if type(name) is str else "a dict"
    kind = type(holder)
    return f"a {kind.__qualname__}" if kind.__module__ == "builtins" else f"a {kind.__module__}.{kind.__qualname__}"
