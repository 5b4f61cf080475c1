"""Tenants, batch keys and models of any class: the scheduler asks nothing of them, and none concerns other callers."""

from __future__ import annotations

import asyncio
import enum
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, outcome

from director import Director, Model, QueueFull
from director._scheduler.exclusive import Exclusive
from director._untrusted.keys import Interner

if TYPE_CHECKING:
    from collections.abc import Iterator


class Inside(list[str]):
    """What was asked of users' objects by a thread that held the lock of a scheduler."""

    lock: Any = None

    def note(self, question: str) -> None:
        if self.lock is not None and self.lock._is_owned():
            self.append(question)


INSIDE = Inside()


def _questions(*names: str) -> dict[str, Any]:
    """Methods that note when they are called, and answer by the object's `value`."""

    def method(name: str) -> Any:
        def ask(self: Any, *others: Any) -> Any:
            INSIDE.note(f"{type(self).__name__}.{name}")
            return getattr(type(self.value), name)(self.value, *(getattr(each, "value", each) for each in others))

        return ask

    return {name: method(name) for name in names}


_KEY = _questions("__hash__", "__eq__", "__ne__", "__repr__", "__str__", "__format__")
_ORDER = _questions("__lt__", "__le__", "__gt__", "__ge__")
_NUMBER = _questions("__neg__", "__add__", "__radd__", "__sub__", "__mul__", "__bool__", "__float__", "__int__")


class _Value:
    def __new__(cls, value: Any) -> Any:
        base = next((each for each in (str, int, float) if issubclass(cls, each)), None)
        made = object.__new__(cls) if base is None else base.__new__(cls, value)  # type: ignore[type-var]
        made.value = value
        return made

    def __del__(self) -> None:
        INSIDE.note(f"{type(self).__name__}.__del__")


Thing: Any = type("Thing", (_Value,), {**_KEY, **_ORDER})
Text: Any = type("Text", (_Value, str), {**_KEY, **_ORDER, **_questions("__len__")})
Whole: Any = type("Whole", (_Value, int), {**_KEY, **_ORDER, **_NUMBER, **_questions("__index__")})
Real: Any = type("Real", (_Value, float), {**_KEY, **_ORDER, **_NUMBER})


class OddModel(Model[Any]):
    """Says of itself that it is equal to every other."""

    def __hash__(self) -> int:
        INSIDE.note("OddModel.__hash__")
        return 7

    def __eq__(self, other: object) -> bool:
        INSIDE.note("OddModel.__eq__")
        return True

    def __repr__(self) -> str:
        INSIDE.note("OddModel.__repr__")
        return "odd"

    def __bool__(self) -> bool:
        INSIDE.note("OddModel.__bool__")
        return False


@pytest.fixture
def inside() -> Iterator[Inside]:
    INSIDE.clear()
    yield INSIDE
    INSIDE.lock = None


def give(_resource: Any, item: Any) -> Any:
    return item


def give_all(_resource: Any, items: list[Any]) -> list[Any]:
    return items


async def test_no_method_of_a_users_object_is_called_under_the_lock(gate: Gate, inside: Inside) -> None:
    director = Director(
        "simulated:2",
        name=Text("d"),
        max_queue=Whole(100),
        tenants={Thing("a"): Real(2.0), Text("b"): Whole(3)},
        max_queue_per_tenant={Thing("a"): Whole(4)},
        admission="predict",
        ageing=Real(1e6),
    )
    async with director:
        scheduler = director._runtime.scheduler  # type: ignore[union-attr]
        assert isinstance(scheduler, Exclusive)
        inside.lock = scheduler._lock
        models = [OddModel(lambda device: ("first", device.index)), OddModel(lambda device: ("second", device.index))]
        batched = director.function(
            give_all,
            max_batch_size=Whole(4),
            max_wait=Real(0.001),
            batch_key=lambda item: Thing(item % 2),
            batch_cost=lambda item: Real(item),
            max_batch_cost=Real(1e6),
            name=Text("batched"),
        )
        blocked = [director.submit(gate) for _ in range(2)]
        await gate.begun(2)
        for tenant in (Thing("a"), Thing("c"), Text("b"), Whole(5), Real(0.5), (Thing("a"), Text("x"))):
            for number in range(3):
                options: Any = {"tenant": tenant, "model": models[number % 2], "name": Text("job")}
                options |= {"priority": Whole(number), "deadline": Real(1000.0), "timeout": Real(1000.0)}
                job = director.submit(give, number, **options, retries=Whole(1), backoff=Real(0.0))
                blocked.append(job)
        blocked += [batched.submit(number) for number in range(8)]
        blocked.append(director.submit(give, Thing("x"), tenant=Thing("a")))
        with pytest.raises(QueueFull, match="for 'a'"):
            director.submit(give, 1, tenant=Thing("a"))
        assert blocked[-2].cancel()
        del tenant, options, job
        director.stats()
        gate.open()
        await asyncio.gather(*(outcome(job) for job in blocked))
        assert await director.run(lambda replica: replica[0], model=models[0]) == "first"
        assert await director.run(lambda replica: replica[0], model=models[1]) == "second"
        blocked.clear()
        gc.collect()
    assert not inside


class Odd:
    """A tenant or batch key with answers of its own."""

    def __init__(self, eq: Any = None, number: Any = 7) -> None:
        self.eq, self.number = eq, number

    def __hash__(self) -> int:
        if isinstance(self.number, Exception):
            raise self.number
        return self.number  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return self is other if self.eq is None else self.eq(self, other)  # type: ignore[no-any-return]


class OtherOdd(Odd):
    __hash__ = Odd.__hash__
    asked = False

    def __eq__(self, other: object) -> bool:
        OtherOdd.asked = True
        raise KeyboardInterrupt


def fail(*_: object) -> bool:
    raise ZeroDivisionError


def recurse(a: Odd, b: Odd) -> bool:
    return a == b


@pytest.mark.parametrize("eq", [fail, recurse, lambda *_: True, lambda *_: False, lambda *_: Odd(number=ValueError())])
async def test_a_comparison_concerns_its_own_class_alone(gate: Gate, eq: Any) -> None:
    async with Director("simulated:1") as director:
        batched = director.function(give_all, max_batch_size=4, batch_key=lambda item: item)
        jobs = [director.submit(gate)]
        await gate.begun()
        tenants = [Odd(eq), OtherOdd(), Odd(eq), "a", 7, Odd(eq)]
        jobs += [director.submit(give, tenant, tenant=tenant) for tenant in tenants]
        keyed = [batched.submit(each) for each in tenants]
        gate.open()
        await asyncio.gather(*jobs)
        results = await asyncio.gather(*keyed)
        assert all(result is tenant for result, tenant in zip(results, tenants, strict=True))
        assert not OtherOdd.asked
        assert all(job.tenant is tenant for job, tenant in zip(jobs[1:], tenants, strict=True))


async def test_what_hashing_raises_is_raised_to_its_caller(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        batched = director.function(give_all, max_batch_size=4, batch_key=lambda item: item)
        with pytest.raises(ZeroDivisionError):
            director.submit(give, 1, tenant=Odd(number=ZeroDivisionError()))
        with pytest.raises(TypeError, match="tenant must be hashable"):
            director.submit(give, 1, tenant=Odd(number=TypeError()))
        with pytest.raises(ZeroDivisionError):
            batched.submit(Odd(number=ZeroDivisionError()))
        with pytest.raises(TypeError, match="batch_key of give_all must return something hashable"):
            batched.submit(("a", []))
        assert await director.run(give, 5) == await batched(5) == 5


async def test_a_tenant_whose_hash_changes_is_served(gate: Gate) -> None:
    async with Director("simulated:1", max_queue_per_tenant=100) as director:
        tenant, jobs = Odd(number=1), [director.submit(gate)]
        await gate.begun()
        for number in range(6):
            tenant.number = number
            jobs.append(director.submit(give, number, tenant=tenant))
        gate.open()
        await asyncio.gather(*jobs)
        assert director.stats().queued == 0


class Plan(enum.StrEnum):
    GOLD = "gold"


async def test_a_text_or_a_number_of_a_subclass_has_the_account_of_the_plain_one(gate: Gate) -> None:
    async with Director("simulated:1", max_queue_per_tenant={"gold": 1, 5: 1}) as director:
        director.submit(gate)
        await gate.begun()
        job = director.submit(give, 1, tenant=Plan.GOLD)
        assert job.tenant is Plan.GOLD
        for same in ("gold", Text("gold"), Plan.GOLD):
            with pytest.raises(QueueFull) as refused:
                director.submit(give, 1, tenant=same)
            assert refused.value.tenant is same
        director.submit(give, 1, tenant=5)
        with pytest.raises(QueueFull):
            director.submit(give, 1, tenant=Whole(5))
        gate.open()


def test_an_interner_lets_go_of_what_has_no_holder_and_keeps_what_has_one() -> None:
    interner = Interner()
    held = [(value := Odd(eq=lambda a, b: a.number == b.number, number=n), interner.key_of(value)) for n in range(40)]
    seen = weakref.WeakSet[Odd]()
    for number in range(10_000):
        passing = Odd(number=number)
        seen.add(passing)
        interner.key_of((passing, "x"))
    del passing
    gc.collect()
    assert len(seen) < 200
    assert sum(map(len, interner._known.values())) < 300
    assert all(interner.key_of(value) is key for value, key in held)


def test_an_interner_is_called_again_by_the_objects_that_it_asks() -> None:
    interner = Interner()

    def again(a: Odd, b: Odd) -> bool:
        interner.key_of(Odd(number=object.__hash__(a)))
        return a is b

    objects = [Odd(again) for _ in range(200)]
    keys = [interner.key_of(each) for each in objects]
    assert len(set(keys)) == 200
    assert [interner.key_of(each) for each in objects] == keys
