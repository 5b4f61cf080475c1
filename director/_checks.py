"""What is wrong with what a user typed, said before anything is queued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from director._core.batch_rule import BatchRule
from director._core.clock import MonotonicClock
from director._core.policy import Policy
from director._health_rules import HealthRules
from director._models import Model
from director._options import BatchOptions, JobOptions
from director._user_objects import type_name

if TYPE_CHECKING:
    from director._core.clock import Clock

_FARTHEST = 2**63
_LONGEST = 10**9  # seconds, thirty years; an int beyond what a float can say would break every sum with a clock
_JOB = tuple(JobOptions.__annotations__)
BATCH = ("max_batch_size", *(name for name in BatchOptions.__annotations__ if name not in _JOB))


def check(options: Mapping[str, Any]) -> None:
    """Raise what is wrong with the options of a job.

    Raises:
        TypeError: An unknown option, or a value of the wrong type.
        ValueError: A value out of range.
    """
    for option in options:
        if option in BATCH:
            raise TypeError(f"{option!r} is an option of functions: bind it with director.function({option}=...)")
        if option not in _JOB:
            raise TypeError(
                f"unknown option {option!r}; known: {', '.join(_JOB)}. "
                "Keyword arguments of the function itself go through functools.partial."
            )
    model, priority, name = options.get("model"), options.get("priority", 0), options.get("name")
    if model is not None and not isinstance(model, Model):
        raise TypeError(f"model must be a director.Model, not {model!r}; Model(load) makes one from a loader")
    if not isinstance(priority, int):
        raise TypeError(f"priority must be an int, not {priority!r}")
    if not -_FARTHEST <= int.__index__(priority) < _FARTHEST:
        raise ValueError("priority must be an int of 64 bits, from -2**63 to 2**63 - 1")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")
    if not is_hashable(options.get("tenant")):
        raise TypeError(f"tenant must be hashable, such as a str, not {options['tenant']!r}")
    _check_seconds("deadline", options.get("deadline"))
    _check_seconds("timeout", options.get("timeout"))
    _check_seconds("backoff", options.get("backoff"), zero=True)
    _check_count("retries", options.get("retries", 0), 0)
    errors_of(options)


def is_hashable(value: Any) -> bool:
    """Whether it can be a key. A tuple says that it can, whatever it holds; so it is tried."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def errors_of(options: Mapping[str, Any]) -> tuple[type[BaseException], ...]:
    """The option `retry_on` as a tuple.

    Raises:
        TypeError: It isn't made of exception classes.
        ValueError: It is given and `retries` is not.
    """
    wanted = options.get("retry_on", ())
    errors = wanted if isinstance(wanted, tuple) else (wanted,)
    if not all(isinstance(error, type) and issubclass(error, BaseException) for error in errors):
        raise TypeError(f"retry_on must be an exception class or a tuple of them, not {wanted!r}")
    if errors and not options.get("retries"):
        raise ValueError("retry_on does nothing without retries: say how often, retries=2 for example")
    return errors


def batch_rule(name: str, given: dict[str, Any]) -> BatchRule | None:
    """How the calls of a function share batches; `None` without batch options: the function takes single items.

    Raises:
        TypeError: One of the wrong type.
        ValueError: One out of range, or of no effect.
    """
    if not given:
        return None
    if "max_batch_size" not in given:
        raise ValueError(f"{', '.join(given)}: of no effect without max_batch_size, the most items in one call")
    _check_count("max_batch_size", given["max_batch_size"], 1)
    _check_count("batch_window", given.get("batch_window", 1), 1)
    _check_seconds("max_wait", given.get("max_wait"), zero=True)
    _check_costs(given)
    return BatchRule(
        name=name,
        max_size=given["max_batch_size"],
        max_wait=given.get("max_wait") or 0.0,
        key=_callable("batch_key", given.get("batch_key")),
        cost=_callable("batch_cost", given.get("batch_cost")),
        max_cost=given.get("max_batch_cost"),
        padded=bool(given.get("batch_padding")),
        window=given.get("batch_window", 1),
        isolate_failures=bool(given.get("isolate_failures")),
    )


def check_slots(slots: Any) -> None:
    """Raise what is wrong with the number of slots.

    Raises:
        TypeError: It is not an int, or a mapping to ints.
        ValueError: It is out of range.
    """
    for count in slots.values() if hasattr(slots, "values") else [slots]:
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"slots must be an int or a mapping from device to int, not {slots!r}")
        if count < 1:
            raise ValueError(f"a device needs at least one slot, not {count}; to spare it, leave it out of `devices`")


def policy(max_queue: Any, per_tenant: Any, tenants: Any, admission: Any, ageing: Any) -> Policy:
    """How a Director admits and orders jobs, from what was said to it.

    Raises:
        TypeError: A value of the wrong type.
        ValueError: A value out of range.
    """
    _check_bound("max_queue", max_queue)
    for bound in per_tenant.values() if isinstance(per_tenant, Mapping) else [per_tenant]:
        _check_bound("max_queue_per_tenant", bound)
    if tenants is None:
        tenants = {}
    if not isinstance(tenants, Mapping):
        raise TypeError(f'tenants must map tenants to their weights, such as {{"a": 2}}, not {tenants!r}')
    for weight in tenants.values():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise TypeError(f"the weight of a tenant must be a number, not {weight!r}")
        if not 0 < weight < float("inf"):
            raise ValueError(f"the weight of a tenant must be positive, not {weight!r}")
    if admission not in (None, "predict"):
        raise ValueError(f'admission must be None or "predict", not {admission!r}')
    _check_seconds("ageing", ageing)
    per_tenant = dict(per_tenant) if isinstance(per_tenant, Mapping) else per_tenant
    return Policy(max_queue, per_tenant, dict(tenants), admission == "predict", ageing)


def check_clock(clock: Any) -> Clock:
    """Return `clock` if it tells the time, and the machine's for `None`.

    Raises:
        TypeError: It doesn't.
    """
    if clock is None:
        return MonotonicClock()
    if not (callable(getattr(clock, "time", None)) and callable(getattr(clock, "call_later", None))):
        raise TypeError(
            f"clock must have the methods `time` and `call_later`, as TestClock has, not {type_name(clock)}"
        )
    now = clock.time()
    if type(now) not in (int, float):
        raise TypeError(f"the clock's time() must return seconds as a number, not {type_name(now)}")
    return clock  # type: ignore[no-any-return]


def check_health(rules: Any) -> HealthRules:
    """Return `rules` if they are such.

    Raises:
        TypeError: They are not.
    """
    if not isinstance(rules, HealthRules):
        raise TypeError(f"health must be HealthRules or None, not {rules!r}")
    return rules


def check_words(name: Any, hooks: tuple[Any, ...]) -> None:
    """Raise what is wrong with the name and the hooks given to a Director.

    Raises:
        TypeError: The name is no string, or a hook can't be called.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")
    for hook in hooks:
        if not callable(hook):
            raise TypeError(f"a hook must be a callable that takes one event, not {hook!r}")


def _check_seconds(name: str, value: Any, zero: bool = False) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be seconds as a number or None, not {value!r}")
    if isinstance(value, int) and int.__index__(value) > _LONGEST:
        raise ValueError(f"{name} must be at most {_LONGEST:,} seconds; leave it out for no limit")
    if not (value >= 0 if zero else value > 0):  # also refuses NaN
        raise ValueError(f"{name} must {'not be negative' if zero else 'be positive seconds'}, not {value!r}")


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def _check_bound(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, not {value}; None means no bound")


def _check_costs(given: dict[str, Any]) -> None:
    limit, cost = given.get("max_batch_cost"), given.get("batch_cost")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float))):
        raise TypeError(f"max_batch_cost must be a number or None, not {limit!r}")
    if limit is not None and not limit > 0:
        raise ValueError(f"max_batch_cost must be positive, not {limit!r}")
    if limit is not None and cost is None:
        raise ValueError("max_batch_cost needs batch_cost, which tells the cost of an item")
    if cost is None and (given.get("batch_padding") or given.get("batch_window", 1) > 1):
        raise ValueError("batch_padding and batch_window need batch_cost, which tells the cost of an item")
    if given.get("batch_padding") and limit is None:
        raise ValueError("batch_padding needs max_batch_cost, which it bounds")


def _callable(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a callable of one item, not {value!r}")
    return value
