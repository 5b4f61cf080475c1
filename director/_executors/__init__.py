"""How a slot runs a call: in its own thread, or elsewhere driven by that thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._executors._base import Executor

if TYPE_CHECKING:
    from typing import Literal


def make_executor(wanted: Literal["thread"] | Executor | Any) -> Executor:
    """The executor that is meant by a name or by itself.

    Raises:
        ValueError: There is none of that name.
    """
    if wanted == "thread":
        from director._executors._thread import ThreadExecutor

        return ThreadExecutor()
    if isinstance(wanted, Executor):
        return wanted
    raise ValueError(f'executor must be "thread" or an Executor, not {wanted!r}')
