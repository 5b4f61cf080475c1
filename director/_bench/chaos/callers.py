"""Who wants something in the storm: each caller asks for one job after the other, and leaves some of them.

What job `n` is, and when its caller leaves, depends on the seed and on `n` alone.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from director import DeviceLost, Job, JobTimeout, Model, WorkerDied
from director._bench.calls import Array
from director._bench.chaos import calls

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from director import Director, Function
    from director._bench.chaos.books import Books

LARGE = 1 << 20  # bytes of the smallest array that travels through shared memory
SHORT = 0.1  # seconds that a call gets which would never end


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
        needs_process: Only a process can be rid of it.
    """

    weight: int
    fn: Callable[..., Any]
    draw: Callable[[random.Random], tuple[Any, ...]] = lambda _: ()
    options: dict[str, Any] | None = None
    leave: float = 0.1
    ends: tuple[type[BaseException], ...] = ()
    answers: bool = True
    needs_process: bool = False


def _array(chance: random.Random) -> tuple[Array]:
    return (Array(bytearray([chance.randrange(256)]) * chance.randrange(LARGE, 2 * LARGE)),)


MODEL = Model(calls.load, name="chaos")
WISHES = (
    Wish(40, calls.quick),
    Wish(25, calls.nap, lambda chance: (chance.random() * 0.004,)),
    Wish(8, calls.compute, lambda chance: (chance.random() * 0.003,)),
    Wish(4, calls.carry, _array),
    Wish(6, calls.fail, ends=(KeyError,), answers=False),
    Wish(1, calls.obey, leave=1.0, answers=False),
    Wish(1, calls.obey, options={"timeout": SHORT}, ends=(JobTimeout,), answers=False),
    Wish(1, calls.ignore, options={"timeout": SHORT}, ends=(JobTimeout,), answers=False, needs_process=True),
    Wish(6, calls.count, lambda chance: (chance.randrange(1, 20),)),
    Wish(10, calls.together),
    Wish(8, calls.quick, options={"model": MODEL}),
    Wish(6, calls.nap, lambda chance: (chance.random() * 0.004,), {"deadline": 0.05}, ends=(JobTimeout,)),
)


class Callers:
    """Asks for jobs until told to stop.

    Args:
        director: Open.
        seed: Of the chances.
        notes: Where calls note that they have begun.
        books: Where outcomes go.
        in_processes: Whether calls can be killed.
    """

    def __init__(self, director: Director, seed: int, notes: Path, books: Books, in_processes: bool) -> None:
        self.is_over = False
        self.left = 0  # jobs whose callers have left
        self._director = director
        self._seed = seed
        self._path = str(notes)
        self._books = books
        self._numbers = count()
        self._wishes = [wish for wish in WISHES if in_processes or not wish.needs_process]
        self._together: Function[Any, int] = director.function(calls.together, max_batch_size=8)

    async def ask(self) -> None:
        """Be one caller."""
        while not self.is_over:
            number = next(self._numbers)
            chance = chances(self._seed, number)
            (wish,) = chance.choices(self._wishes, [wish.weight for wish in self._wishes])
            await (self._read if wish.fn is calls.count else self._await)(wish, number, chance)

    # ---- a job

    async def _await(self, wish: Wish, number: int, chance: random.Random) -> None:
        job, extra = self._submit(wish, number, chance)
        if has_left := chance.random() < wish.leave:
            await asyncio.wait([job], timeout=chance.random() * 0.03)
            has_left = job.cancel()
            self.left += has_left
        outcome, has_answer = "cancelled", False
        try:
            value = await job
            outcome, has_answer = "returned", True
            if not (wish.answers and _is_right(value, number, extra)):
                self._books.wrong(f"job {number}, {wish.fn.__name__}, has a wrong answer")
        except asyncio.CancelledError:
            if not has_left:
                self._books.wrong(f"job {number}, {wish.fn.__name__}, was cancelled by nobody")
        except BaseException as error:  # noqa: BLE001 - that is the question
            outcome = self._judge(wish, number, error)
        # A call that a child has before its turn can begin in the moment in which its caller leaves.
        self._books.ended(number, outcome, max(job.attempts, outcome == "cancelled"), has_answer)

    def _submit(self, wish: Wish, number: int, chance: random.Random) -> tuple[Job[Any], tuple[Any, ...]]:
        extra = wish.draw(chance)
        retries, priority = chance.choice((0, 0, 1, 2)), chance.choice((0, 0, 0, 1, -1))
        if wish.fn is calls.together:
            return self._together.submit((self._path, number)), extra
        options = {"retries": retries, "priority": priority, **(wish.options or {})}
        return self._director.submit(wish.fn, self._path, number, *extra, **options), extra

    def _judge(self, wish: Wish, number: int, error: BaseException) -> str:
        """What a job ended in, in a word."""
        allowed: tuple[type[BaseException], ...] = (WorkerDied, DeviceLost, *wish.ends)
        if not isinstance(error, allowed) or (type(error) is KeyError and error.args != (calls.answer_to(number),)):
            self._books.wrong(f"job {number}, {wish.fn.__name__}, ended in {error!r}")
        return {KeyError: "raised", JobTimeout: "out of time"}.get(type(error), "lost")

    # ---- a stream

    async def _read(self, wish: Wish, number: int, chance: random.Random) -> None:
        (values,) = wish.draw(chance)
        wanted = values if chance.random() >= wish.leave else chance.randrange(1, values + 1)
        outcome, read = "returned", 0
        try:
            async with aclosing(self._stream(number, values)) as stream:
                while read < wanted:
                    if await anext(stream) != calls.answer_to(number) + read:
                        self._books.wrong(f"job {number}, a stream, has a wrong value at {read}")
                    read += 1
                if wanted < values:
                    outcome, self.left = "cancelled", self.left + 1
                elif await anext(stream, None) is not None:
                    self._books.wrong(f"job {number}, a stream, has a value too many")
        except StopAsyncIteration:
            self._books.wrong(f"job {number}, a stream, ended after {read} of {values} values")
        except BaseException as error:  # noqa: BLE001 - that is the question
            outcome = self._judge(wish, number, error)
        self._books.ended(number, outcome, 1, outcome == "returned")

    def _stream(self, number: int, values: int) -> AsyncGenerator[int, None]:
        return self._director.stream(calls.count, self._path, number, values, buffer=4)


def chances(seed: int, number: int) -> random.Random:
    """What decides about the job `number`, and about nothing else."""
    return random.Random(f"{seed}:{number}")


def _is_right(value: Any, number: int, extra: tuple[Any, ...]) -> bool:
    if isinstance(value, Array):
        (sent,) = extra
        return bytes(value.memory) == bytes(sent.memory)
    return bool(value == calls.answer_to(number))
