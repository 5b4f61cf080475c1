"""Who wants something in the storm: each caller asks for one job after the other, and leaves some of them.

What job `n` is, and when its caller leaves, depends on the seed and on `n` alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from benchmarks.chaos import calls
from benchmarks.chaos.values import Value, WrongArgument, make
from director import DeviceLost, JobTimeout, Model, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.chaos.books import Books
    from director import Device, Director, Function, Job, Stream

SHORT = 0.1  # seconds that a call gets which would never end
LEAVING_READERS = 0.3  # share of the streams whose readers leave before the end
SLOW_READERS = 0.2  # and of those whose readers are slow
IDLE = 0.02  # share of the jobs after which their caller wants nothing for a moment
BY_REFERENCE = 0.7  # share of the arguments that are sent as references, over Ray
LATEST = 0.3  # seconds until such an argument is there
CALM = 60  # jobs between two times at which all callers but one pause, over Ray


@dataclass(frozen=True, slots=True)
class Wish:
    """One job.

    Args:
        weight: How often it comes, beside the others.
        fn: What is called.
        draw: Makes its arguments after the number.
        options: Its options.
        leave: The chance that its caller leaves.
        ends: What it may end in, beside an answer, a cancellation by its caller and the loss of its worker.
        answers: Whether it may have an answer.
        where: Where calls are made that can be such, beside ``"process"`` and ``"ray"``.
    """

    weight: float
    fn: Callable[..., Any]
    draw: Callable[[random.Random], tuple[Any, ...]] = lambda _: ()
    options: dict[str, Any] | None = None
    leave: float = 0.1
    ends: tuple[type[BaseException], ...] = ()
    answers: bool = True
    where: tuple[str, ...] = ("thread", "process", "ray")


def _values(chance: random.Random) -> tuple[int]:
    """How many values a stream has: few for some, hundreds for others."""
    return (chance.randrange(1, chance.choice((20, 60, 600, 2000))),)


MODEL = Model(calls.load, name="chaos")
WISHES = (
    Wish(40, calls.quick),
    Wish(25, calls.nap, lambda chance: (chance.random() * 0.004,)),
    Wish(8, calls.compute, lambda chance: (chance.random() * 0.003,)),
    Wish(8, calls.carry),
    Wish(4, calls.tell, lambda chance: (chance.randrange(1, 8),)),
    Wish(0.5, calls.tell_badly, ends=(Exception,), where=("process", "ray")),
    Wish(6, calls.fail, ends=(KeyError,), answers=False),
    Wish(0.3, calls.die, answers=False, where=("process",)),
    Wish(1.5, calls.die, answers=False, where=("ray",)),
    Wish(1, calls.stop, where=("ray",)),
    Wish(1, calls.obey, leave=1.0, answers=False),
    Wish(1, calls.obey, options={"timeout": SHORT}, ends=(JobTimeout,), answers=False),
    Wish(1, calls.ignore, options={"timeout": SHORT}, ends=(JobTimeout,), answers=False, where=("process",)),
    Wish(8, calls.count, _values, leave=LEAVING_READERS),
    Wish(10, calls.together),
    Wish(8, calls.quick, options={"model": MODEL}),
    Wish(6, calls.nap, lambda chance: (chance.random() * 0.004,), {"deadline": 0.05}, ends=(JobTimeout,)),
)

_NAP, _CARRY = Wish(1, calls.nap), Wish(1, calls.carry)
_LOOK = 0.02  # seconds
_LONGEST_WAIT = 10.0  # for what is under way


class Callers:
    """Asks for jobs until told to stop.

    Args:
        director: Open.
        seed: Of the chances.
        notes: Where calls note that they have begun; `None` if they can't.
        books: Where outcomes go.
        where: ``"thread"``, ``"process"`` or ``"ray"``: where calls are made.
        later: Over Ray: gives a reference to a value that will be there after so many seconds.
    """

    def __init__(
        self,
        director: Director,
        seed: int,
        notes: Path | None,
        books: Books,
        where: str,
        later: Callable[[Value, float], Any] | None = None,
    ) -> None:
        self.is_over = False
        self.left = 0  # jobs whose callers have left
        self._director = director
        self._seed = seed
        self._path = str(notes or "")
        self._books = books
        self._numbers = count()
        self._later = later
        self._may_ask = asyncio.Event()
        self._may_ask.set()
        self._wishes = [wish for wish in WISHES if where in wish.where]
        self._weights = [wish.weight for wish in self._wishes]
        self._together: Function[Any, Value] = director.function(calls.together, max_batch_size=8)

    async def ask(self) -> None:
        """Be one caller."""
        while not self.is_over:
            await self._may_ask.wait()
            number = next(self._numbers)
            chance = chances(self._seed, number)
            (wish,) = chance.choices(self._wishes, self._weights)
            await (self._read if wish.fn is calls.count else self._await)(wish, number, chance)
            if chance.random() < IDLE:
                await asyncio.sleep(chance.random() * 0.5)
            if self._later is not None and number % CALM == 0 and self._may_ask.is_set():
                await self._withdraw_between()

    # ---- a job

    async def _await(self, wish: Wish, number: int, chance: random.Random) -> None:
        job = self._submit(wish, number, chance)
        if has_left := chance.random() < wish.leave:
            await asyncio.wait([job], timeout=chance.random() * 0.03)
            has_left = job.cancel()
        await self._end(job, wish, number, has_left)

    async def _end(self, job: Job[Any], wish: Wish, number: int, has_left: bool) -> None:
        """Compare what becomes of a job with what may."""
        self.left += has_left
        outcome, has_answer = "cancelled", False
        try:
            value = await job
            outcome, has_answer = "returned", True
            self._books.received.take(value, number, 0)
            if not wish.answers:
                self._books.wrong(f"job {number}, {wish.fn.__name__}, has an answer")
        except asyncio.CancelledError:
            if not has_left:
                self._books.wrong(f"job {number}, {wish.fn.__name__}, was cancelled by nobody")
        except BaseException as error:
            outcome = self._judge(wish, number, error)
        # A call that a child has before its turn can begin in the moment in which its caller leaves.
        self._books.ended(number, outcome, max(job.attempts, outcome == "cancelled"), has_answer)

    def _submit(self, wish: Wish, number: int, chance: random.Random) -> Job[Any]:
        extra = wish.draw(chance)
        retries, priority = chance.choice((0, 0, 1, 2)), chance.choice((0, 0, 0, 1, -1))
        if wish.fn is calls.together:
            return self._together.submit((self._path, number, make(number, 0)))
        if wish.fn is calls.carry:
            extra = (make(number, 0),)
            if self._later is not None and chance.random() < BY_REFERENCE:
                extra = (self._later(make(number, 0), chance.random() * LATEST),)
        options = {"retries": retries, "priority": priority, "name": str(number), **(wish.options or {})}
        return self._director.submit(wish.fn, self._path, number, *extra, **options)

    def _judge(self, wish: Wish, number: int, error: BaseException) -> str:
        """What a job ended in, in a word."""
        allowed: tuple[type[BaseException], ...] = (WorkerDied, DeviceLost, *wish.ends)
        if isinstance(error, WrongArgument):
            self._books.received.argument(error)
        elif not isinstance(error, allowed):
            self._books.wrong(f"job {number}, {wish.fn.__name__}, ended in {error!r:.200}")
        elif type(error) is KeyError:
            self._books.received.take(error.args[0], number, 0)
        return {KeyError: "raised", JobTimeout: "out of time"}.get(type(error), "lost")

    # ---- three jobs on one device, over Ray

    async def _withdraw_between(self) -> None:
        """While all others pause, on each device: a job that waits for its argument is cancelled between two others."""
        self._may_ask.clear()
        try:
            until = time.monotonic() + _LONGEST_WAIT
            while (stats := self._director.stats()).queued + stats.running and time.monotonic() < until:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(_LOOK)
            await asyncio.gather(*map(self._withdraw_between_on, self._director.devices))
        finally:
            self._may_ask.set()

    async def _withdraw_between_on(self, device: Device) -> None:
        first, late, last = (next(self._numbers) for _ in range(3))
        assert self._later is not None
        argument = self._later(make(late, 0), 0.4)
        job = self._nap_on(device, first, 0.06)
        waiting = self._director.submit(calls.carry, self._path, late, argument, devices=device, name=str(late))
        await asyncio.sleep(0.03)
        has_left = waiting.cancel()
        await self._end(job, _NAP, first, False)
        await self._end(waiting, _CARRY, late, has_left)
        await self._end(self._nap_on(device, last, 0.6), _NAP, last, False)

    def _nap_on(self, device: Device, number: int, seconds: float) -> Job[Any]:
        return self._director.submit(calls.nap, self._path, number, seconds, devices=device, name=str(number))

    # ---- a stream

    async def _read(self, wish: Wish, number: int, chance: random.Random) -> None:
        (values,) = wish.draw(chance)
        wanted = values if chance.random() >= wish.leave else chance.randrange(1, values + 1)
        pause = chance.random() * 0.01 if chance.random() < SLOW_READERS else None
        received, outcome, due = self._books.received, "returned", 0
        try:
            async with aclosing(self._stream(number, values, chance)) as stream:
                while due < wanted:
                    due = received.take(await anext(stream), number, due)
                    if pause is not None and chance.random() < 0.1:
                        await asyncio.sleep(pause)
                if wanted < values:
                    outcome, self.left = "cancelled", self.left + 1
                else:
                    await self._read_no_more(stream, number, values)
        except StopAsyncIteration:
            received.missing(number, values - due, f"of a stream of {values}")
        except BaseException as error:
            outcome = self._judge(wish, number, error)
        self._books.ended(number, outcome, 1, outcome == "returned")

    async def _read_no_more(self, stream: Stream[Value], number: int, due: int) -> None:
        async for value in stream:
            self._books.received.take(value, number, due)

    def _stream(self, number: int, values: int, chance: random.Random) -> Stream[Value]:
        buffer = chance.choice((1, 4, 16))
        return self._director.stream(calls.count, self._path, number, values, buffer=buffer, name=str(number))


def chances(seed: int, number: int) -> random.Random:
    """What decides about the job `number`, and about nothing else."""
    return random.Random(f"{seed}:{number}")
