"""The inside of an actor: makes the calls of one slot, one at a time, on one thread; what is said meanwhile on others.

`call` and `stream` are the call thread's, and everything else here that has no lock. The others are Ray's threads for
the concurrency group "aside".
"""

from __future__ import annotations

import os
import time
from types import CoroutineType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from director._core.stream_call import close
from director._current import here
from director._executors._cuda_thread import CudaThread
from director._executors._process.logs import redirect
from director._executors._process.shelf import NotLoaded, Shelf
from director._executors._process.standin import StandIn
from director._executors._ray.mark import Mark
from director._executors._ray.notes import Notes, Notices
from director._executors._ray.pickling import loads
from director._executors._ray.reply import alone, is_plain, sealed, together
from director._executors._ray.told import told
from director._executors._ray.tray import Tray
from director._executors._ray.wire import UNNUMBERED, WITHDRAWN, About, Answer, Head, How, Introduction, Word
from director._executors._remote import Notice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director._device import Device

_ENDING = 30.0  # seconds
_HELD = 0.001  # seconds for which the answers of a letter wait for one another


class Worker:
    """What is in one actor. Also what a job in it may ask about itself (`director._current.Running`).

    Args:
        mark: Name of the file that outlives it.
        levels: Of the driver's loggers.
    """

    def __init__(self, mark: str, levels: dict[str, int]) -> None:
        self._life = uuid4().hex
        self._mark = Mark(mark)
        self._begun = self._mark.read()
        self._is_broken = False  # CUDA's context here: nothing works on the device any more
        self.notices = Notices()
        self.notes = Notes()
        self._tray = Tray()
        self._met: dict[int, Any] = {}  # functions by number
        self._recipes: dict[int, Any] = {}  # of models, by number
        self._device: Device | None = None
        self._shelf: Shelf | None = None
        self._loaded: list[tuple[int, float]] = []  # for the call that is made
        self._progress: tuple[int, Any] | None = None  # the same
        self._reports = 0
        self._cuda: CudaThread | None = None
        self._head: Head | None = None  # of the call that is made
        self._job: StandIn | None = None  # made when it is asked for
        redirect(levels, lambda record: self.notes.add(0, record))

    # ---- on the call thread

    def serve(self, letter: bytes, args: tuple[Any, ...]) -> bytes | tuple[Any, ...]:
        """Make the calls of a letter, and those that are handed in meanwhile; gives the answers that were not told."""
        since = time.monotonic()
        parts = _parts(letter, args)
        only = parts[0][0].number if len(parts) == 1 else 0
        self._tray.serve(parts)
        del parts
        number, answer = 0, None
        while (part := self._tray.next()) is not None:
            if answer is not None:
                self.notes.tell(number, answer if is_plain(answer) else sealed(answer), since + _HELD)
            head, args = part
            del part
            number, answer = head.number, self.call(head, args)
        assert answer is not None, "a letter has a call"
        told_last = self.notes.untold()
        if number == only and not told_last:
            return alone(number, answer)
        return together([*told_last, (number, sealed(answer))])

    def call(self, head: Head, args: tuple[Any, ...]) -> Answer:
        """Make one call; whatever it raises is in the answer."""
        began = time.monotonic()
        if (refusal := self._begin(head)) is not None:
            return refusal
        try:
            value = self._make(head, args)
            return self._answer(Word.RETURNED, began, value)
        except NotLoaded as failure:
            return self._answer(Word.NOT_LOADED, began, told(failure.error))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            return self._raised(began, error)
        finally:
            self._head = self._job = None

    def stream(self, letter: bytes, args: tuple[Any, ...]) -> Iterator[Answer]:
        """Make a generator and give its values as they come; the last answer says how it ended."""
        ((head, args),) = _parts(letter, args)
        began = time.monotonic()
        if (refusal := self._begin(head)) is not None:
            yield refusal
            return
        generator = None
        try:
            generator = self._make(head, args)
            for value in generator:
                if self._cuda is not None:
                    self._cuda.wait()  # each value is finished when it is handed over, as each result is
                yield Answer(Word.YIELDED, self._life, value=value)
                del value
                if self.notices.look(head.number) != Notice.NONE:
                    close(generator)
                    break
            end = self._answer(Word.RETURNED, began, None)
        except NotLoaded as failure:
            end = self._answer(Word.NOT_LOADED, began, told(failure.error))
        except GeneratorExit:
            close(generator) if generator is not None else None
            raise
        except BaseException as error:  # noqa: BLE001 - the same
            end = self._raised(began, error)
        finally:
            self._head = self._job = None
        yield end

    def farewell(self) -> list[tuple[int, bytes]]:
        """Unload everything: no call comes after. Returns what there is left to tell."""
        if self._shelf is not None:
            self._shelf.clear()
        self._mark.remove()
        return self.notes.drain()

    def _begin(self, head: Head) -> Answer | None:
        """Why the call is not made, if it is not."""
        if self._is_broken:
            time.sleep(_ENDING)  # the driver is ending this process, and sends the call to the next one
        if self._is_broken or not self._is_met(head):
            return Answer(Word.STRANGER, self._life)
        if not self.notices.begin(head.number):
            return WITHDRAWN
        self._mark.write(head.number)
        self._begun = head.number
        self._head = head
        here.running = self  # type: ignore[assignment]  # of this thread; jobs see a stand-in
        return None

    def _is_met(self, head: Head) -> bool:
        """Whether function and model are known, now that they may have been introduced."""
        if head.life not in ("", self._life):
            return False  # it was on its way to one that is gone, where it may have begun
        if head.introduction is not None:
            self._meet(head, Introduction(*head.introduction))
        is_known = head.function == UNNUMBERED or head.function in self._met
        return self._device is not None and is_known and (head.model == UNNUMBERED or head.model in self._recipes)

    def _meet(self, head: Head, introduction: Introduction) -> None:
        device, function, recipe = introduction
        if self._shelf is None:
            self._device = device
            self._shelf = Shelf(device, self._note_loaded)
            self._cuda = CudaThread(0, own_stream=False) if device.kind == "cuda" else None
        if function:
            self._met[head.function] = function  # unpickled when it is called: that may raise
        if recipe:
            self._recipes[head.model] = recipe

    def _make(self, head: Head, args: tuple[Any, ...]) -> Any:
        if self.notices.look(head.number) != Notice.NONE:
            from asyncio import CancelledError

            raise CancelledError  # nobody waits for it any more
        fn = self._function(head.function)
        assert self._shelf is not None
        resource = self._device if head.model == UNNUMBERED else self._shelf.get(head.model, self._recipe(head.model))
        if head.how == How.AS_BATCH:
            args = (list(args),)
        if head.how != How.BARELY:
            args = (resource, *args)
        value = fn(*args) if self._cuda is None else self._cuda.run(lambda _: fn(*args), None)
        if type(value) is CoroutineType:
            value.close()
            raise TypeError(
                f"{head.name} is a coroutine function: await it yourself, or give the Director a blocking one"
            )
        return value

    def _function(self, number: int) -> Any:
        fn = self._met[number]
        if isinstance(fn, bytes):
            fn = loads(fn)
            if number == UNNUMBERED:
                return fn  # there may be another one next time
            self._met[number] = fn
        return fn

    def _recipe(self, number: int) -> Any:
        recipe = self._recipes[number]
        if isinstance(recipe, bytes):
            recipe = self._recipes[number] = loads(recipe)
        return recipe

    def _note_loaded(self, number: int, seconds: float) -> None:
        self._loaded.append((number, seconds))

    def _raised(self, began: float, error: BaseException) -> Answer:
        story = told(error)
        self._is_broken = story.fault is not None and story.fault[0] == "sticky"
        return self._answer(Word.RAISED, began, story)

    def _answer(self, word: Word, began: float, value: Any) -> Answer:
        loaded, self._loaded = tuple(self._loaded), []
        progress, self._progress = self._progress, None
        return Answer(int(word), self._life, began, time.monotonic(), loaded, progress, value)

    # ---- what a running job may ask

    def job(self) -> StandIn | None:
        """Stands for the job that runs."""
        head = self._head
        if self._job is None and head is not None and self._device is not None:
            board: Any = self.notices
            self._job = StandIn(board, head.number, self._device, head.name, head.facts)
        return self._job

    def jobs(self) -> list[StandIn]:
        """The same; one stands for all that share the call, for notices speak of all of them."""
        job = self.job()
        return [] if job is None else [job]

    def device(self) -> Device:
        """Where it runs."""
        assert self._device is not None, "a call runs"
        return self._device

    def time(self) -> float:
        """Seconds of the machine's clock."""
        return time.monotonic()

    def report(self, progress: Any) -> None:
        """Send it to the driver, which keeps and tells it."""
        if self._head is not None:
            self._reports += 1
            self.notes.add(self._head.number, (self._reports, progress))
            self._progress = self._reports, progress

    # ---- aside, on other threads

    def hand_in(self, letter: bytes, args: tuple[Any, ...]) -> bool:
        """Calls for the call thread to go on with; False if it has left."""
        return self._tray.add(_parts(letter, args))

    def about(self, accelerator: str) -> About:
        """Who and where it is.

        Args:
            accelerator: Ray's word for what its numbers are wanted of.
        """
        import ray

        from director._devices.discovery import discover_devices

        ids = ray.get_runtime_context().get_accelerator_ids().get(accelerator, [])
        devices = tuple(discover_devices()) if accelerator == "GPU" and ids else ()
        return About(self._life, self._begun, os.getpid(), tuple(ids), devices)


def _parts(letter: bytes, args: tuple[Any, ...]) -> list[tuple[Head, tuple[Any, ...]]]:
    """The calls of a letter, each with those of the arguments that are its own."""
    parts, begin = [], 0
    for fields in loads(letter):
        head = Head(*fields)
        end = begin + head.arguments
        parts.append((head, args[begin:end]))
        begin = end
    return parts
