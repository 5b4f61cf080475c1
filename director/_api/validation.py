"""Checks the arguments of a user, before anything is queued."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, cast

from director._api.option_names import check_names
from director._device import Device
from director._devices.health.rules import HealthRules
from director._executors.process.executor import ProcessExecutor
from director._executors.thread import ThreadExecutor
from director._jobs.model import Model
from director._jobs.options import BatchRule, JobOptions
from director._scheduler.memory.limits import memory_limit
from director._scheduler.policy import SchedulingPolicy
from director._system.clock import MonotonicClock
from director._untrusted.arguments import check_blocking, check_callable, choice, text
from director._untrusted.callables import suspension_of
from director._untrusted.numbers import (
    MOST_COST,
    MOST_SECONDS,
    MOST_SLOTS,
    bytes_of,
    priority,
    real,
    seconds,
    shown,
    whole,
)
from director._untrusted.objects import ancestors, is_a, is_one_of, name_of, plain, provides, repr_of, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from director._executors.base import Executor, FleetExecutor
    from director._system.clock import Clock


def check(options: Mapping[str, Any]) -> JobOptions:
    """The options of a job, with plain numbers and names.

    Raises:
        TypeError: An unknown option, or a value of the wrong type.
        ValueError: A value out of range.
    """
    check_names(options)
    checked: Any = dict(options)
    model = options.get("model")
    if model is not None and not is_a(model, Model):
        raise TypeError(f"model must be a director.Model, not {shown(model)}; Model(load) makes one from a loader")
    if "priority" in options:
        checked["priority"] = priority(options["priority"])
    if (name := options.get("name")) is not None:
        checked["name"] = text("name", name)
    if not is_hashable(options.get("tenant")):
        raise TypeError(f"tenant must be hashable, such as a str, not {shown(options['tenant'])}")
    for each in ("deadline", "start_within", "timeout"):
        if each in options:
            checked[each] = _limit(each, options[each])
    if options.get("backoff") is not None:
        checked["backoff"] = seconds("backoff", options["backoff"], zero=True)
    if "retries" in options:
        checked["retries"] = whole("retries", options["retries"], 0)
    if "when_full" in options:
        checked["when_full"] = check_when_full(options["when_full"])
    if options.get("memory") is not None:
        checked["memory"] = bytes_of("memory", options["memory"])
    errors_of(checked)
    return cast("JobOptions", checked)


def check_call(fn: Any) -> None:
    """Refuse what can't be called, and what a call would only begin.

    Raises:
        TypeError: `fn` is no callable, or makes generators or coroutines.
    """
    if not callable(fn):
        raise TypeError(f"a job needs a function to call, not {repr_of(fn)}")
    if kind := suspension_of(fn):
        raise TypeError(f"{name_of(fn)} is {_INSTEAD[kind].format(name_of(fn))}")


_INSTEAD = {
    "generator": "a generator function, and only stream() runs those: director.stream({}, ...), or return a list",
    "coroutine": "a coroutine function: await it yourself, or give the Director a blocking function",
    "asynchronous generator": "an asynchronous generator function: iterate over it yourself, with `async for`, or give "
    "stream() a blocking generator function",
}


def check_when_full(value: Any) -> Literal["wait", "refuse"] | None:
    """The argument of a Director, or the option of a job.

    Raises:
        ValueError: It is neither ``"wait"`` nor ``"refuse"`` nor `None`.
    """
    return choice("when_full", value, ("wait", "refuse", None))


def bound_options(options: Mapping[str, Any]) -> JobOptions:
    """The same for calls to come: with devices that can be asked for more than once.

    Raises:
        TypeError: As `check`.
        ValueError: The same.
    """
    checked = check(options)
    if (devices := checked.get("devices")) is not None:
        checked["devices"] = named_devices(devices)
    return checked


def merged_options(own: JobOptions, given: Mapping[str, Any]) -> JobOptions:
    """Those of a function with others for some calls, which win.

    Raises:
        TypeError: As `check`.
        ValueError: The same.
    """
    merged: dict[str, Any] = {**own, **given}
    if not merged.get("retries") and "retry_on" not in given:  # of no effect without retries, and not given now
        merged.pop("retry_on", None)
    return bound_options(merged)


def named_devices(wanted: Any) -> tuple[Device | int | str, ...]:
    """The option `devices` as a tuple of our own.

    Raises:
        TypeError: It is made of something else.
        ValueError: It has no end.
    """
    if is_a(wanted, (Device, int, str)):
        wanted = (wanted,)
    try:
        keys = tuple(islice(iter(wanted), MOST_SLOTS + 1))
    except TypeError:
        keys = (None,)
    if len(keys) > MOST_SLOTS:
        raise ValueError(f"devices names more than {MOST_SLOTS:,}: {shown(wanted)}")
    if not all(is_a(key, (Device, int, str)) and type(key) is not bool for key in keys):
        raise TypeError(f"devices must be Device, index, UUID or name, or several of them, not {shown(wanted)}")
    return tuple(map(_plain_device, keys))


def _plain_device(key: Any) -> Device | int | str:
    if is_a(key, Device):
        return key
    word = plain(key)
    return int.__index__(key) if word is None else word


def is_hashable(value: Any) -> bool:
    """Whether it can be a key; tried, because `isinstance(value, Hashable)` is true for every tuple."""
    try:
        hash(value)
    except (TypeError, ValueError):  # ValueError: of a writable memoryview
        return False
    return True


def errors_of(options: Mapping[str, Any]) -> tuple[type[BaseException], ...]:
    """The option `retry_on` as a tuple.

    Raises:
        TypeError: It isn't made of exception classes.
        ValueError: It is given and `retries` is not.
    """
    if (wanted := options.get("retry_on")) is None:
        return ()
    errors = tuple(tuple.__iter__(wanted)) if is_a(wanted, tuple) else (wanted,)
    if not all(is_a(error, type) and BaseException in ancestors(error) for error in errors):
        raise TypeError(f"retry_on must be an exception class or a tuple of them, not {shown(wanted)}")
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
    size = whole("max_batch_size", given["max_batch_size"], 1)
    window = whole("batch_window", given.get("batch_window", 1), 1)
    if (max_wait := given.get("max_wait")) is not None:  # without end: until a batch is full
        max_wait = seconds("max_wait", max_wait, zero=True, endless=True, kind="seconds as a number or None")
    if (limit := given.get("max_batch_cost")) is not None:
        hint = "; leave it out for no limit"
        limit = real("max_batch_cost", limit, 1 / MOST_COST, MOST_COST, "a number or None", hint)
    cost, padded = _of_item("batch_cost", given.get("batch_cost")), _truth("batch_padding", given.get("batch_padding"))
    if limit is not None and cost is None:
        raise ValueError("max_batch_cost needs batch_cost, which tells the cost of an item")
    if cost is None and (padded or window > 1):
        raise ValueError("batch_padding and batch_window need batch_cost, which tells the cost of an item")
    if padded and limit is None:
        raise ValueError("batch_padding needs max_batch_cost, which it bounds")
    return BatchRule(
        name=name,
        max_size=size,
        max_wait=max_wait or 0.0,
        key=_of_item("batch_key", given.get("batch_key")),
        cost=cost,
        max_cost=limit,
        padded=padded,
        window=window,
        isolate_failures=_truth("isolate_failures", given.get("isolate_failures")),
    )


def check_stream(
    fn: Any, buffer: Any = 16, on_slow_reader: Any = "wait", slow_reader_timeout: Any = 10.0
) -> tuple[int, Literal["wait", "cancel"], float]:
    """The options of a stream, with plain numbers.

    Raises:
        TypeError: `fn` is no generator function, or one of the others is of the wrong type.
        ValueError: One is out of range.
    """
    if suspension_of(fn) != "generator":
        raise TypeError(
            f"stream() needs a generator function, one that has `yield` in it and blocks, not {shown(fn)}. A function "
            "that returns an iterator becomes one by `yield from`; for one result there is run()"
        )
    when_slow: Literal["wait", "cancel"] = choice("on_slow_reader", on_slow_reader, ("wait", "cancel"))
    return whole("buffer", buffer, 1), when_slow, seconds("slow_reader_timeout", slow_reader_timeout)


def check_slots(slots: Any) -> Any:
    """The number of slots as a plain int, or the mapping that was given: devices are looked up in it at each start.

    Raises:
        TypeError: It is not an int, or a mapping to ints.
        ValueError: It is out of range.
    """
    if not is_one_of(slots, (Mapping,)):
        return _slots(slots, slots)
    for count in slots.values():
        _slots(count, slots)
    return slots


def _slots(count: Any, slots: Any) -> int:
    kind = "an int or a mapping from device to int" if count is slots else "an int"
    hint = "; a device needs at least one slot: to spare it, leave it out of `devices`"
    return whole("slots", count, 1, MOST_SLOTS, kind, hint)


def policy(
    max_queue: Any,
    per_tenant: Any,
    tenants: Any,
    admission: Any,
    ageing: Any,
    limit: Any,
    key_of: Callable[[Any], Hashable],
) -> SchedulingPolicy:
    """How a Director admits and orders jobs, from what was said to it.

    Raises:
        TypeError: A value of the wrong type.
        ValueError: A value out of range.
    """
    if is_one_of(per_tenant, (Mapping,)):
        per_tenant = {key_of(tenant): _bound("max_queue_per_tenant", bound) for tenant, bound in per_tenant.items()}
    else:
        per_tenant = _bound("max_queue_per_tenant", per_tenant)
    if tenants is None:
        tenants = {}
    if not is_one_of(tenants, (Mapping,)):
        raise TypeError(f'tenants must map tenants to their weights, such as {{"a": 2}}, not {shown(tenants)}')
    weights = {key_of(tenant): _weight(weight) for tenant, weight in tenants.items()}
    predicts = choice("admission", admission, ("predict", None)) is not None
    bound = _bound("max_queue", max_queue)
    return SchedulingPolicy(bound, per_tenant, weights, predicts, _limit("ageing", ageing), memory_limit(limit))


def _weight(weight: Any) -> float:
    return real("the weight of a tenant (tenants)", weight, 1e-9, 1e9)


def check_clock(clock: Any) -> Clock:
    """Return `clock` if it is one, and a `MonotonicClock` for `None`.

    Raises:
        TypeError: It isn't.
        ValueError: Its time is not finite.
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
    real("what the clock's time() returns", now)
    return clock  # type: ignore[no-any-return]


def check_health(rules: Any) -> HealthRules:
    """Return `rules` if they are `HealthRules`.

    Raises:
        TypeError: They are not.
    """
    if not is_a(rules, HealthRules):
        raise TypeError(f"health must be HealthRules or None, not {shown(rules)}")
    return rules


def check_words(name: Any, hooks: tuple[Any, ...]) -> str | None:
    """The name of a Director as a plain string; checks its hooks.

    Raises:
        TypeError: The name is no string, or a hook can't be called.
    """
    for hook in hooks:
        check_callable("a hook", hook, "a callable that takes one event")
    return None if name is None else text("name", name)


def _truth(name: str, value: Any) -> bool:
    if value is None or type(value) is bool:
        return bool(value)
    number = whole(name, value, kind="True or False")
    return number != 0


def _limit(name: str, value: Any) -> float | None:
    """Seconds; `None` for never."""
    if value is None:
        return None
    hint = "; leave it out for no limit"
    limit = seconds(name, value, endless=True, kind="seconds as a number or None", hint=hint)
    return None if limit == math.inf else limit


def patience(name: str, value: float, kind: str) -> float:
    """Seconds, of which a negative number is 0 and an infinite one a very long time."""
    return max(0, min(MOST_SECONDS, real(name, value, -math.inf, math.inf, kind)))


def _bound(name: str, value: Any) -> int | None:
    return None if value is None else whole(name, value, 0, kind="an int or None", hint="; None means no bound")


def _of_item(name: str, value: Any) -> Any:
    """A function of one item, or `None`."""
    if value is not None:
        check_blocking(name, value, "a callable of one item")
    return value


def executor_of(wanted: Any) -> Executor | FleetExecutor:
    """What `Director(executor=...)` means.

    Raises:
        ValueError: Nothing.
    """
    word = plain(wanted)
    if word == "thread":
        return ThreadExecutor()
    if word == "process":
        return ProcessExecutor()
    if provides(wanted, "runner") or provides(wanted, "fleet"):
        return wanted  # type: ignore[no-any-return]
    raise ValueError(f'executor must be "thread", "process" or an Executor, not {repr_of(wanted, 200)}')
