"""`director.guard`: that it finds what is wrong, names the line, and finds nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import inspect
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, outcome, until

from director import Device, Director
from director.guard import Finding, Guard
from director.guard._cuda import Driver, devices_of
from director.guard._findings import callback_frames, is_library

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__)
GPUS = [Device(n, f"GPU-{n}", f"GPU {n}", "cuda") for n in range(2)]


def line_of(function: Any, text: str) -> int:
    """The number of the only line of a function that holds `text`."""
    lines, first = inspect.getsourcelines(function)
    [offset] = [n for n, line in enumerate(lines) if text in line]
    return first + offset


LIBRARY = f"{sysconfig.get_paths()['purelib']}/torch/functional.py"
SOURCE = """
class Tensor:  # lies on a device, and says so as DLPack wants it
    def __init__(self, device, kind=2):
        self.device, self.kind = device, kind

    def __dlpack_device__(self):
        return self.kind, self.device

    def to(self, device):
        return Tensor(device)


class Buffer(bytearray):  # the same with methods that are in C
    def __dlpack_device__(self):
        return 2, self[0]


def make_buffer(device):
    return Buffer([device])


def matmul():
    time.sleep(0.3)


def move(cuda, device):
    cuda.move_to(device)
    return len(())
"""
torch_like: Any = types.ModuleType("torch.functional")  # as if it was installed
torch_like.time = time
exec(compile(SOURCE, LIBRARY, "exec"), vars(torch_like))
Tensor, Buffer = torch_like.Tensor, torch_like.Buffer


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The driver's library, as far as the guard needs it."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("needs a C compiler: apt install gcc libc6-dev")
    built = tmp_path_factory.mktemp("cuda") / "libcuda.so"
    source = HERE.parent / "stubs" / "cuda_current.c"
    compiler = shutil.which("cc") or "gcc"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(built), str(source)], check=True)
    return ctypes.CDLL(str(built))


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "load", lambda: Driver(None))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, cuda: ctypes.CDLL) -> Iterator[ctypes.CDLL]:
    monkeypatch.setattr(Driver, "load", lambda: Driver(cuda))
    yield cuda
    cuda.move_to(-1)


def only(guard: Guard) -> Finding:
    [finding] = guard.findings
    return finding


def longest(guard: Guard) -> Finding:
    """Where the loop stood longest: on a machine that has other things to do it seems to stand elsewhere too."""
    return max(guard.findings, key=lambda finding: finding.seconds)


def found(guard: Guard) -> bool:
    """The guard has found one of the blocks of 0.3 s that are made here."""
    return any(finding.seconds > 0.2 for finding in guard.findings)


# ---- the event loop


def slow() -> None:
    time.sleep(0.3)  # the culprit


async def test_the_line_that_blocks_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard(longest_block=0.05)
    async with Director("simulated:1", hooks=[guard]):
        await asyncio.sleep(0.06)
        slow()
        await until(lambda: found(guard))
    finding = longest(guard)
    assert (finding.kind, finding.file, finding.line) == ("loop blocked", str(HERE), line_of(slow, "the culprit"))
    assert (finding.function, finding.source) == ("slow", "time.sleep(0.3)  # the culprit")
    assert 0.2 < finding.seconds < 5
    assert finding.message.startswith("Something blocked the event loop; give it to a thread")
    said = f"{HERE}:{finding.line} in slow: time.sleep(0.3)"
    [record] = [record for record in caplog.records if said in record.getMessage()]
    assert (record.name, record.levelname) == ("director.guard", "WARNING")


async def test_it_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard(longest_block=0.02)
    async with Director("simulated:1", hooks=[guard]):
        for times in (1, 2):
            await asyncio.sleep(0.03)
            slow()
            await until(lambda times=times: found(guard) and longest(guard).times == times)
    assert caplog.text.count("in slow: time.sleep(0.3)") == 1


@pytest.mark.serial
async def test_a_loop_that_is_idle_or_turns_is_left_alone() -> None:
    guard = Guard(longest_block=0.8)
    async with Director("simulated:1", hooks=[guard]) as director:
        await asyncio.sleep(1.2)
        job = director.submit(lambda _: time.sleep(1.2))
        while not job.done():  # noqa: ASYNC110 - the loop shall turn
            await asyncio.sleep(0)
    assert guard.findings == ()


async def test_gpu_work_on_the_loop_is_known_by_the_packages_below_the_line() -> None:
    guard = Guard(longest_block=0.05)
    async with Director("simulated:1", hooks=[guard]):
        await asyncio.sleep(0.06)
        torch_like.matmul()  # here
        await until(lambda: found(guard))
    finding = longest(guard)
    assert (finding.file, finding.source) == (str(HERE), "torch_like.matmul()  # here")
    assert (
        finding.message
        == "GPU work blocked the event loop; give it to the Director: `await director.run(function, ...)`."
    )


async def test_gpu_work_on_the_loop_is_known_by_the_thread_s_context(driver: ctypes.CDLL) -> None:
    guard = Guard(longest_block=0.05)
    async with Director("simulated:1", hooks=[guard]):
        driver.move_to(0)
        await asyncio.sleep(0.06)
        slow()
        await until(lambda: found(guard))
    assert longest(guard).message.startswith("GPU work blocked the event loop")


async def test_a_library_s_callback_is_named_by_its_own_line() -> None:
    guard, loop = Guard(longest_block=0.05), asyncio.get_running_loop()
    async with Director("simulated:1", hooks=[guard]):
        await asyncio.sleep(0.06)
        loop.call_soon(torch_like.matmul)
        await until(lambda: found(guard))
    assert longest(guard).file == LIBRARY


async def test_it_stops_with_the_director() -> None:
    guard = Guard(longest_block=0.02)
    async with Director("simulated:1", hooks=[guard]):
        assert "director:guard" in [thread.name for thread in threading.enumerate()]
    await until(lambda: "director:guard" not in [thread.name for thread in threading.enumerate()])
    slow()
    assert guard.findings == ()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # that it was not closed
def test_it_stops_with_the_loop() -> None:
    async def leave() -> Director:
        director = Director("simulated:1", hooks=[Guard(longest_block=0.02)])
        await director.start()
        return director

    director = asyncio.run(leave())
    deadline = time.monotonic() + PATIENCE
    while "director:guard" in [thread.name for thread in threading.enumerate()] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "director:guard" not in [thread.name for thread in threading.enumerate()]
    asyncio.run(director.close())


async def test_the_loop_is_not_watched_if_not_wanted() -> None:
    async with Director("simulated:1", hooks=[Guard(longest_block=None)]):
        assert "director:guard" not in [thread.name for thread in threading.enumerate()]


# ---- devices


@pytest.fixture
def run(no_driver: None) -> Any:
    """Runs a function as a job on ``cuda:0``, under a guard that looks closely each time; returns the guard."""

    async def run(function: Any, *args: Any, devices: Any = GPUS[:1], **options: Any) -> Guard:
        guard = Guard(longest_block=None, **{"first": 5, **options})
        async with Director(devices, hooks=[guard]) as director:
            await director.run(function, *args)
        return guard

    return run


def moves_away(_device: Device, tensor: Any) -> int:
    doubled = tensor.to(0)
    other = doubled.to(1)  # the culprit
    return other.device  # type: ignore[no-any-return]


async def test_a_value_on_another_device_is_named_by_the_line_that_made_it(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    finding = only(await run(moves_away, Tensor(0)))
    assert (finding.kind, finding.file, finding.function) == ("other device", str(HERE), "moves_away")
    assert finding.line == line_of(moves_away, "the culprit")
    assert finding.message == (
        "job 'moves_away' was given cuda:0, and what is returned is on cuda:1. "
        "Use the device that the job is given (str(device) == 'cuda:0') instead of one of its own."
    )
    assert [record.name for record in caplog.records] == ["director.guard"]


def makes(_device: Device) -> int:
    first = Buffer(b"\0")
    tensor = Buffer(b"\1")  # the culprit
    first.clear()
    size = len(tensor)
    tensor = Buffer(b"\0\0")
    return size + len(tensor)


async def test_a_value_made_in_c_is_named_by_its_line(run: Any) -> None:
    finding = only(await run(makes))
    assert finding.line == line_of(makes, "the culprit")
    assert "tensor is on cuda:1" in finding.message


def uses_temporary(_device: Device, buffers: Any) -> int:
    found = next(buffers).find(b"x")  # the culprit
    return found + len(())  # type: ignore[no-any-return]


async def test_a_temporary_is_seen_when_something_is_asked_of_it(run: Any) -> None:
    finding = only(await run(uses_temporary, iter([Buffer(b"\1")])))
    assert finding.line == line_of(uses_temporary, "the culprit")
    assert "a Buffer is on cuda:1" in finding.message


def takes(_device: Device, tensor: Any) -> int:
    return len([tensor])


async def test_an_argument_on_another_device(run: Any) -> None:
    finding = only(await run(takes, Tensor(1)))
    assert finding.line == line_of(takes, "def takes")
    assert "tensor is on cuda:1" in finding.message


def returns_list(_device: Device) -> list[Any]:
    return [Tensor(0), Tensor(1)]


async def test_a_result_on_another_device(run: Any) -> None:
    finding = only(await run(returns_list))
    assert finding.line == line_of(returns_list, "return [")


def stays(device: Device, tensor: Any) -> Any:
    host = Tensor(0, kind=1)
    return {"a": tensor.to(device.index), "b": host, "c": [1, "x", None]}


async def test_what_stays_is_left_alone(run: Any) -> None:
    assert (await run(stays, Tensor(0))).findings == ()


async def test_a_job_of_a_stand_in_that_uses_a_gpu(run: Any) -> None:
    finding = only(await run(takes, Tensor(0), devices="cpu"))
    assert "was given cpu:0, and tensor is on cuda:0" in finding.message


async def test_the_thread_s_own_device(driver: ctypes.CDLL) -> None:
    def leaves(_device: Device) -> None:
        torch_like.move(driver, 0)
        torch_like.move(driver, 1)  # the culprit
        torch_like.move(driver, 0)

    guard = Guard(longest_block=None)
    async with Director(GPUS[:1], hooks=[guard]) as director:
        await director.run(leaves)
    finding = only(guard)
    assert finding.line == line_of(leaves, "the culprit")
    assert "the thread is on cuda:1" in finding.message


async def test_what_a_glance_finds_is_put_right_and_gets_a_close_look_the_next_time(driver: ctypes.CDLL) -> None:
    current = Driver(driver).current

    def sometimes(_device: Device, where: int) -> int | None:
        began = current()
        torch_like.move(driver, where)  # the culprit
        return began

    guard = Guard(longest_block=None, first=1)
    async with Director(GPUS[:1], hooks=[guard]) as director:
        await director.run(sometimes, 0)  # a close look that finds nothing
        assert await director.run(sometimes, 1) == 0  # a glance: it sees that the thread has moved
        assert guard.findings == ()
        assert await director.run(sometimes, 1) == 0
    assert only(guard).line == line_of(sometimes, "the culprit")


async def test_a_model_by_its_first_parameter(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        def parameters(self) -> Iterator[Any]:
            yield Tensor(1)

    torch: Any = types.ModuleType("torch")
    torch.nn = types.SimpleNamespace(Module=Module)
    torch.cuda = types.SimpleNamespace(is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    finding = only(await run(lambda _device, net: None, type("Net", (Module,), {})()))
    assert "net is on cuda:1" in finding.message


async def test_the_first_calls_are_looked_at_closely_and_then_one_of_many(no_driver: None) -> None:
    looked: list[bool] = []
    guard = Guard(longest_block=None, first=2, every=5)
    async with Director(GPUS[:1], hooks=[guard]) as director:
        for _ in range(11):
            await director.run(lambda _device: looked.append(sys.getprofile() is not None), name="it")
    assert [number for number, close in enumerate(looked) if close] == [0, 1, 5, 10]


async def test_no_close_looks_if_not_wanted(no_driver: None) -> None:
    guard = Guard(longest_block=None, first=0)
    async with Director(GPUS[:1], hooks=[guard]) as director:
        assert await director.run(lambda _device: sys.getprofile()) is None


async def test_somebody_else_s_profile_is_left_alone(no_driver: None) -> None:
    def profile(*_args: Any) -> None:
        pass

    def turn_on(_device: Device) -> None:
        sys.setprofile(profile)

    guard = Guard(longest_block=None, first=1)
    async with Director("cpu:1", hooks=[guard]) as director:
        await director.run(turn_on, name="on")  # under a close look, which ends it
        await director.run(turn_on, name="on")
        assert await director.run(lambda _device: sys.getprofile(), name="look") is profile
        await director.run(lambda _device: sys.setprofile(None), name="off")
    assert guard.findings == ()


async def test_a_job_that_raises_raises(run: Any) -> None:
    def fail(_device: Device) -> None:
        raise ZeroDivisionError

    guard = Guard(longest_block=None)
    async with Director("cpu:1", hooks=[guard]) as director:
        assert isinstance(await outcome(director.run(fail)), ZeroDivisionError)
        assert await director.run(lambda _device: sys.getprofile(), name="fail") is not None
        assert await director.run(lambda _device: sys.getprofile(), name="fail") is None


async def test_strange_values_disturb_nobody(run: Any) -> None:
    class Strange:
        def __dlpack_device__(self) -> Any:
            raise RuntimeError("not now")

    assert (await run(lambda _device, it: it, Strange())).findings == ()


@pytest.mark.parametrize(
    "options", [{"longest_block": 0}, {"longest_block": -1.0}, {"first": -1}, {"every": 0}], ids=str
)
def test_numbers_out_of_range_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        Guard(**options)


def test_the_devices_of_values() -> None:
    assert list(devices_of(Tensor(3))) == [3]
    assert list(devices_of([Tensor(0), 1, Tensor(2)])) == [0, 2]
    assert list(devices_of({"a": Tensor(1)})) == [1]
    assert list(devices_of(Tensor(1, kind=1))) == []
    assert list(devices_of("text")) == []


def test_libraries_and_own_files() -> None:
    assert is_library(asyncio.__file__)
    assert is_library(pytest.__file__)
    assert is_library(inspect.getsourcefile(Director) or "")
    assert is_library("<frozen importlib._bootstrap>")
    assert not is_library(__file__)


def test_the_machine_s_own_driver() -> None:
    """There is none on a machine without GPUs; where there is one, this thread has no context."""
    assert Driver.load().current() is None


def test_a_loop_that_waits_calls_nothing() -> None:
    """Waiting in a selector is no callback, and the program's own `run` is not one either."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    deadline, frames = time.monotonic() + PATIENCE, [None]
    while frames and time.monotonic() < deadline:
        time.sleep(0.01)
        frames = callback_frames(sys._current_frames().get(thread.ident or 0))  # type: ignore[assignment]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    assert frames == []


# ---- autograd


class GradModes(threading.local):
    """torch's grad mode, as far as the guard asks for it: for each thread, and on at first."""

    is_on = True


class Recorded:
    """A tensor with a graph behind it, if it was made while autograd records."""

    def __init__(self, modes: GradModes) -> None:
        self.grad_fn = object() if modes.is_on else None


@pytest.fixture
def grad_modes(monkeypatch: pytest.MonkeyPatch) -> GradModes:
    torch: Any = types.ModuleType("torch")
    modes = GradModes()
    torch.is_grad_enabled = lambda: modes.is_on
    torch.Tensor = Recorded
    monkeypatch.setitem(sys.modules, "torch", torch)
    return modes


def compute(_device: Device, modes: GradModes) -> bool:
    result = Recorded(modes)  # recorded
    return result.grad_fn is not None


async def test_autograd_that_is_off_on_the_loops_thread_only(no_driver: None, grad_modes: GradModes) -> None:
    grad_modes.is_on = False
    guard = Guard(longest_block=None)
    async with Director("simulated:1", hooks=[guard]) as director:
        for _ in range(2):
            assert await director.run(compute, grad_modes)
    finding = only(guard)
    assert (finding.kind, finding.function, finding.times) == ("autograd", "compute", 2)
    assert finding.line == line_of(compute, "# recorded")
    assert "around=torch.inference_mode" in finding.message


async def test_autograd_that_is_off_in_the_job_too_or_on_everywhere(no_driver: None, grad_modes: GradModes) -> None:
    @contextlib.contextmanager
    def off() -> Iterator[None]:
        grad_modes.is_on = False
        yield
        grad_modes.is_on = True

    guard = Guard(longest_block=None)
    async with Director("simulated:1", hooks=[guard]) as director:
        assert await director.run(compute, grad_modes)  # it is on here too: the user wants that
    grad_modes.is_on = False
    async with Director("simulated:1", hooks=[guard], around=off) as director:
        assert not await director.run(compute, grad_modes)
    assert guard.findings == ()
