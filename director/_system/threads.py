"""The long-lived thread of one slot.

It is not taken from a pool: the current CUDA device, cuBLAS workspaces, CUDA graphs and compiled models belong to a
thread, so a slot keeps its own. It is a daemon thread, never joined at exit: a call that hangs does not keep the
interpreter from exiting.
"""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from director._system.forks import leave_copy, workers

if TYPE_CHECKING:
    from collections.abc import Callable

# The lock of a `SimpleQueue` is only held inside its own C code. So a fork can't copy it locked, and a `__del__` that
# runs on the same thread can't deadlock on it.
Calls: TypeAlias = "SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]"
P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreadExecutor(Executor):
    """An executor of exactly one thread, started at the first call; what `loop.run_in_executor` offloads a shift to."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._calls: Calls

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` on the thread, after the calls submitted before.

        Raises:
            RuntimeError: The system can't start another thread. Nothing was submitted; a later call tries again.
        """
        if self._thread is None:
            self._start()
        future: Future[T] = Future()
        self._calls.put((future, lambda: fn(*args, **kwargs)))
        return future

    def _start(self) -> None:
        calls: Calls = SimpleQueue()
        try:
            thread = start_daemon(_run, (calls,), self._name)
        except BaseException:
            # A signal handler may raise after the thread was started: let the thread end.
            calls.put(None)
            raise
        self._calls, self._thread = calls, thread

    @property
    def started(self) -> bool:
        """Whether the thread has been started."""
        return self._thread is not None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the thread end after the calls submitted so far; `wait` joins it."""
        if not self.started:
            return
        self._calls.put(None)
        if wait:
            self.join()

    def join(self) -> None:
        """Wait until the thread has ended, after `shutdown`."""
        if self._thread is not None:
            self._thread.join()

    def __del__(self) -> None:
        self.shutdown(wait=False)


class NoThreadsHere(RuntimeError):
    """This interpreter can't have threads: it is a subinterpreter."""

    def __init__(self) -> None:
        super().__init__(
            "director can't run in a subinterpreter, which has no threads that outlive a call: use it in the main "
            "interpreter of the process (mod_wsgi: `WSGIApplicationGroup %{GLOBAL}`)"
        )


def start_daemon(target: Callable[..., object], args: tuple[Any, ...], name: str) -> threading.Thread:
    """Start a daemon thread.

    Raises:
        NoThreadsHere: There can be none in this interpreter.
        RuntimeError: The system can't start another thread.
    """
    try:
        thread = threading.Thread(target=target, args=args, name=name, daemon=True)
        thread.start()
    except RuntimeError as error:
        if "interpreter" in str(error) and "shutdown" not in str(error):
            raise NoThreadsHere from error
        raise
    return thread


def call_once(name: str, fn: Callable[[], T]) -> Future[T]:
    """Call `fn` on a daemon thread of its own, which ends after the call and is not joined at exit.

    Raises:
        RuntimeError: The system can't start another thread.
    """
    thread = DaemonThreadExecutor(name)
    future = thread.submit(fn)
    thread.shutdown(wait=False)
    return future


def _run(calls: Calls) -> None:
    """The thread's function.

    It has no reference to its executor, so that an executor that is garbage collected ends it.
    """
    workers.add(threading.get_ident())
    while (call := calls.get()) is not None:
        future, fn = call
        if future.set_running_or_notify_cancel():
            try:
                value = fn()
            except BaseException as error:  # noqa: BLE001 - it is set on the future and raised there
                leave_copy(error)
                future.set_exception(error)
            else:
                leave_copy()
                future.set_result(value)
                del value
        del call, future, fn
    workers.discard(threading.get_ident())


class Flag:
    """A `threading.Event` whose `set` takes no lock. Any thread may `wait`; only one thread may `clear`."""

    __slots__ = ("_gate", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        # Acquired by each thread that waits, and released at once; unlocked while the flag is set.
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        """Whether it has been set and not cleared since."""
        return self._is_set

    def set(self) -> None:
        """Wake all threads that wait; `wait` returns at once until `clear`."""
        self._is_set = True
        self._open()

    def clear(self) -> None:
        """Make `wait` block again."""
        self._is_set = False
        self._gate.acquire(blocking=False)

    def wait(self, timeout: float = -1) -> bool:
        """Wait until it is set, at most `timeout` seconds if that is given; returns whether it is set."""
        while not self._is_set:
            if not self._gate.acquire(timeout=timeout):
                return self._is_set
        # Wake the next thread that waits.
        self._open()
        return True

    def _open(self) -> None:
        try:
            self._gate.release()
        except RuntimeError:
            # It was unlocked already.
            return
