"""The context of a call that is made in this process: that of its submission, without what it shares by reference."""

from __future__ import annotations

import sys
from contextvars import Context, ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from director._jobs.job import ScheduledJob


def context_of(job: ScheduledJob[Any]) -> Context:
    """The context in which to call the function of `job`.

    A copy of a context has the same decimal context, which is an object that can be changed. A function that changes
    the precision would change it for its caller and for all other jobs, so the call gets a copy of that too.
    """
    context = job.context
    if context is None:
        return Context()
    if "decimal" in sys.modules and (variable := _decimal_variable()) is not None and variable in context:
        context.run(_separate_decimals)
    return context


@cache
def _decimal_variable() -> ContextVar[Any] | None:
    """The context variable of `decimal`, which has no public name."""
    from decimal import getcontext

    empty = Context()
    empty.run(getcontext)
    return next(iter(empty), None)


def _separate_decimals() -> None:
    from decimal import getcontext, setcontext

    setcontext(getcontext().copy())
