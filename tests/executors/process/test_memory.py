"""Large buffers travel through shared memory, stay whole as long as anybody looks, and never leak."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from harness.gates import outcome

from director import Director, WorkerDied
from director._ipc import shared_memory as segments
from director._ipc.pickling import LARGE, wrap
from executors.process import calls, fake_torch
from executors.process.leaks import is_alive, open_files, shared_memory, shared_names, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

pytestmark = [pytest.mark.slow, pytest.mark.serial]

BIG = 4 * LARGE
HUGE = 64 * LARGE  # more than noise on the whole machine


async def test_arrays_there_and_back(director: Director) -> None:
    for array in (
        np.arange(BIG, dtype=np.uint8),
        np.arange(BIG // 8, dtype=np.float64).reshape(16, -1),
        np.asfortranarray(np.arange(BIG // 4, dtype=np.int32).reshape(64, -1)),
        np.arange(BIG, dtype=np.uint8)[::2],  # not contiguous: by a copy
        np.arange(100),
    ):
        back = await director.run(calls.echo, array)
        assert (back == array).all()
        assert back.dtype == array.dtype
        assert back.flags.writeable


async def test_many_buffers_in_one_call(director: Director) -> None:
    arrays = {n: np.full(LARGE + n, n, np.uint8) for n in range(7)}
    back = await director.run(calls.echo, [arrays, b"x" * BIG])
    assert all((back[0][n] == array).all() for n, array in arrays.items())
    assert back[1] == b"x" * BIG


async def test_a_large_buffer_stays_out_of_the_pickle() -> None:
    payload = wrap((np.zeros(BIG, np.uint8), bytearray(5), np.zeros(5)))
    assert [len(buffer) for buffer in payload.buffers] == [BIG]
    assert len(payload.stream) < 1000


async def test_what_can_not_be_written_to_stays_so(director: Director) -> None:
    array = np.ones(BIG, np.uint8)
    array.flags.writeable = False
    assert not (await director.run(calls.echo, array)).flags.writeable
    assert isinstance(await outcome(director.submit(calls.write_into, array)), ValueError)


async def test_the_caller_s_own_array_is_not_written_to(director: Director) -> None:
    array = np.ones(BIG, np.uint8)
    back = await director.run(calls.write_into, array)
    assert (int(array.sum()), int(back.sum())) == (BIG, 7 * BIG)


async def test_results_stay_whole_while_others_come(director: Director) -> None:
    """No segment is filled twice."""
    kept = [await director.run(calls.echo, np.full(LARGE, n, np.uint8)) for n in range(48)]
    assert [int(array[0]) for array in kept] == [int(array[-1]) for array in kept] == list(range(len(kept)))


async def test_arguments_that_a_child_keeps_stay_whole(director: Director) -> None:
    for _ in range(31):
        await director.run(calls.keep, np.full(LARGE, 1, np.uint8))
        await director.run(calls.echo, np.full(LARGE, 9, np.uint8))
    assert await director.run(calls.sums_of_kept) == [LARGE] * 31


async def test_a_result_outlives_its_director() -> None:
    async with Director("cpu", executor="process") as director:
        array = await director.run(calls.ones, BIG)
    assert int(array.sum()) == BIG


async def test_what_is_kept_holds_no_descriptors(director: Director) -> None:
    await director.run(calls.echo, np.ones(LARGE, np.uint8))
    before = open_files(), await director.run(calls.open_files)
    kept = [await director.run(calls.echo, np.ones(LARGE, np.uint8)) for _ in range(50)]
    for array in kept:
        await director.run(calls.keep, array)
    assert (open_files(), await director.run(calls.open_files)) == before


async def test_memory_is_freed_with_the_last_view_of_it(director: Director) -> None:
    array = np.ones(HUGE, np.uint8)
    before = shared_memory()
    part = (await director.run(calls.echo, array))[:5]
    assert shared_memory() - before > HUGE / 2, "a view is enough"
    assert part.tolist() == [1] * 5
    del part
    await director.run(calls.echo, 1)  # until then the slot knows its last job
    wait_until(lambda: shared_memory() - before < HUGE / 2)


async def test_a_killed_child_leaves_no_memory(director: Director) -> None:
    before = shared_memory()
    process = await director.run(calls.process_id)
    await director.run(calls.keep, np.ones(HUGE, np.uint8))
    assert shared_memory() - before > HUGE / 2
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: not is_alive(process))
    await director.run(calls.echo)  # notices it
    wait_until(lambda: shared_memory() - before < HUGE / 2)


def test_a_killed_parent_leaves_no_memory(program: Callable[..., CompletedProcess[str]]) -> None:
    before = shared_memory()
    done = program(f"""
        import asyncio, os, signal
        import numpy as np
        from director import Director
        from executors.process import calls

        async def main():
            async with Director("cpu", executor="process") as director:
                array = await director.run(calls.echo, np.ones({HUGE}, np.uint8))
                print(await director.run(calls.process_id), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            asyncio.run(main())
    """)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not is_alive(int(done.stdout)))
    wait_until(lambda: shared_memory() - before < HUGE / 2)


async def test_no_names_are_left_in_shared_memory(director: Director) -> None:
    before = shared_names()
    array = await director.run(calls.echo, np.ones(BIG, np.uint8))
    assert array.nbytes == BIG
    wait_until(lambda: shared_names() <= before)


async def test_out_of_memory_is_an_error_of_the_job(director: Director, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    before = await director.run(calls.process_id)
    monkeypatch.setattr(segments, "_write", refuse)
    for _ in range(4):
        assert isinstance(await outcome(director.submit(calls.echo, np.ones(BIG, np.uint8))), OSError)
    monkeypatch.undo()
    assert int((await director.run(calls.echo, np.ones(BIG, np.uint8))).sum()) == BIG
    assert await director.run(calls.process_id) == before


async def test_a_child_that_dies_with_a_large_call_under_way(director: Director) -> None:
    for _ in range(2):  # the third in a row would close the device
        assert isinstance(await outcome(director.submit(calls.die_holding, np.ones(BIG, np.uint8))), WorkerDied)
    assert await director.run(calls.echo, 1) == 1


# ---- tensors


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As much of torch as `tensors` asks for."""
    monkeypatch.setitem(sys.modules, "torch", fake_torch)
    return fake_torch


def test_a_large_tensor_is_a_buffer(torch: Any) -> None:
    tensor = torch.Tensor(np.arange(LARGE, dtype=np.float32).reshape(4, -1))
    payload = wrap({"tensor": tensor})
    assert [len(buffer) for buffer in payload.buffers] == [4 * LARGE]
    again = pickle.loads(payload.stream, buffers=payload.buffers)["tensor"]
    assert again.shape == (4, LARGE // 4)
    assert (again.array == tensor.array).all()


@pytest.mark.parametrize("odd", ["requires_grad", "is_quantized", "sparse", "not contiguous", "small", "conj"])
def test_other_tensors_are_left_to_torch(torch: Any, odd: str) -> None:
    tensor = torch.Tensor(np.arange(100 if odd == "small" else LARGE, dtype=np.float32), odd=odd)
    payload = wrap(tensor)
    assert not payload.buffers
    assert pickle.loads(payload.stream) == "torch's own way"


def test_a_cuda_tensor_can_not_leave(torch: Any) -> None:
    with pytest.raises(pickle.PicklingError, match=r"send tensor\.cpu\(\)"):
        wrap([torch.Tensor(np.arange(5), odd="cuda")])


def test_real_tensors() -> None:
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.bfloat16, torch.bool):
        tensor = torch.ones(3, LARGE, dtype=dtype)
        payload = wrap(tensor)
        assert len(payload.buffers) == 1
        assert torch.equal(pickle.loads(payload.stream, buffers=payload.buffers), tensor)


# ---- views: what they show is sent, and nothing else


def there_and_back(value: Any) -> tuple[Any, int, int]:
    """A copy, the bytes that were sent, and those of them that are in the stream."""
    payload = wrap(value)
    sent = len(payload.stream) + sum(map(len, payload.buffers))
    return pickle.loads(payload.stream, buffers=payload.buffers), sent, len(payload.stream)


MATRIX = np.arange(1 << 20, dtype=np.float64).reshape(1024, 1024)


@pytest.mark.parametrize(
    "view",
    [MATRIX[:, ::2], MATRIX[::-1], MATRIX[:512, :600], MATRIX.T, MATRIX.reshape(64, 16, 1024).transpose(1, 0, 2)],
    ids=["columns", "reversed", "crop", "transposed", "permuted"],
)
def test_a_view_of_an_array_is_sent_out_of_band(view: Any) -> None:
    again, sent, inband = there_and_back({"view": view})
    assert (again["view"] == view).all()
    assert again["view"].flags.writeable
    assert view.nbytes <= sent < view.nbytes + 500
    assert inband < 500


@pytest.mark.parametrize(
    "view",
    [
        memoryview(b"abc"),
        memoryview(bytearray(b"abc")),
        memoryview(b""),
        memoryview(b"").cast("d"),
        memoryview(b"abcdef")[::2],
        memoryview(bytearray(10 * LARGE))[5:9],
        memoryview(bytearray(2 * LARGE)),
        MATRIX.data,
        np.array(5.0).data,
        np.asfortranarray(np.ones((3, 4))).data,
    ],
    ids=["bytes", "bytearray", "empty", "empty doubles", "strided", "slice", "large", "array", "0-d", "fortran"],
)
@pytest.mark.parametrize("how", [False, True], ids=["by name", "by value"])
def test_a_memoryview_comes_back_as_one(view: memoryview, how: bool) -> None:
    if how:
        pytest.importorskip("cloudpickle")
    payload = wrap([view], by_value=how)
    (again,) = pickle.loads(payload.stream, buffers=payload.buffers)
    assert type(again) is memoryview
    assert again == view
    assert (again.shape, again.format, again.readonly) == (view.shape, view.format, view.readonly)
    assert len(payload.stream) + sum(map(len, payload.buffers)) < view.nbytes + 200


def test_a_memoryview_of_a_foreign_format_says_what_to_send() -> None:
    with pytest.raises(pickle.PicklingError, match=r"a memoryview of format '.*' .* can't be sent .* send its array"):
        wrap([np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]).data])


async def test_a_memoryview_goes_there_and_back(director: Director) -> None:
    result = await director.run(calls.echo, memoryview(b"abc"))
    assert type(result) is memoryview
    assert result == b"abc"


def views_of_tensors(torch: Any) -> dict[str, Any]:
    whole = torch.arange(1 << 21, dtype=torch.float32).reshape(1024, 2048)
    image = torch.rand(1, 3, 800, 800).to(memory_format=torch.channels_last)
    named = whole[0]
    named.note = "mine"
    return {
        "row": whole[3],
        "columns": whole[:, ::2],
        "column": whole[:, 3],
        "crop": whole[100:900, 100:900],
        "transposed": whole.T,
        "channels last": image,
        "crop of channels last": image[:, :, :600, :600],
        "parameter": torch.nn.Parameter(whole[:3]),
        "attribute": named,
        "gradient": whole.clone().requires_grad_(),
        "gradient of a view": whole.clone().requires_grad_()[:2],
        "conjugate": torch.ones(1000, 1000, dtype=torch.complex64)[0].conj(),
        "bfloat16": whole.bfloat16()[:, :1500],
        "expanded": torch.zeros(1).expand(1000, 1000),
    }


def test_a_tensor_is_sent_as_what_it_shows() -> None:
    torch = pytest.importorskip("torch")
    for name, tensor in views_of_tensors(torch).items():
        again, sent, inband = there_and_back([tensor])
        (again,) = again
        assert torch.equal(again.detach(), tensor.detach()), name
        assert (type(again), again.dtype, again.requires_grad) == (type(tensor), tensor.dtype, tensor.requires_grad)
        assert getattr(again, "note", None) == getattr(tensor, "note", None), name
        assert sent < min(tensor.nbytes, 1 << 23) + 1000, name
        assert inband < 30_000, name
        if name in ("transposed", "channels last"):
            assert again.stride() == tensor.stride(), name
