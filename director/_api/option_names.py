"""The names of options, and what is said of a name that is no option, or one in a wrong place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._format import did_you_mean
from director._jobs.options import BatchOptions, JobOptions, StreamOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

JOB = tuple(JobOptions.__annotations__)
BATCH = ("max_batch_size", *(name for name in BatchOptions.__annotations__ if name not in JOB))
STREAM = tuple(name for name in StreamOptions.__annotations__ if name not in JOB)
_ALL = frozenset((*JOB, *BATCH, *STREAM))


def take(options: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of `names` that are given, removed from `options`."""
    return {name: options.pop(name) for name in names if name in options}


def check_names(options: Iterable[str]) -> None:
    """Refuse names that are no options of a job.

    Raises:
        TypeError: Says where such an option belongs, or which name is meant.
    """
    for option in options:
        if option in BATCH:
            raise TypeError(f"{option!r} is an option of functions: bind it with director.function({option}=...)")
        if option in STREAM:
            raise TypeError(
                f"{option!r} is an option of streams: give it to stream(), or bind it to a generator function with "
                f"director.function({option}=...)"
            )
        if option not in JOB:
            raise TypeError(
                f"unknown option {option!r}{did_you_mean(option, _ALL)}; known: {', '.join(JOB)}. Keyword arguments of "
                "the function itself go through functools.partial, or to a Function: director.function(fn)"
            )


def refuse_options(name: str, keywords: Iterable[str]) -> None:
    """Refuse options among the keywords of a call that its function does not take.

    Raises:
        TypeError: Says where they go.
    """
    options = [keyword for keyword in keywords if keyword in _ALL]
    if not options:
        return
    given = ", ".join(options)
    if any(option in BATCH for option in options):
        raise TypeError(f"{name}() takes no {given}: bind options of batches with director.function({given}=...)")
    example = ", ".join(f"{option}=..." for option in options)
    raise TypeError(f"{name}() takes no {given}: options of a call go through {name}.with_options({example})(...)")
