"""The real torch on this machine's devices: its GPUs, or two stand-ins on its processor. `nox -s torch` runs it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from director import Director, Model

torch = pytest.importorskip("torch", reason="nox -s torch has it")

from frameworks import networks  # noqa: E402
from frameworks.networks import WIDE  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HAS_GPU = torch.cuda.is_available()
ROWS = [torch.rand(16, generator=torch.Generator().manual_seed(n)) for n in range(40)]


@pytest.fixture(params=["thread", "process"])
async def director(request: pytest.FixtureRequest) -> AsyncIterator[Director]:
    async with Director("gpu" if HAS_GPU else "cpu:2", executor=request.param) as director:
        yield director


@pytest.fixture
def model() -> Model[torch.nn.Module]:
    return Model(networks.load)


@pytest.fixture
def expected() -> list[torch.Tensor]:
    """What the network says without a Director, on the processor."""
    from director import Device

    network = networks.load(Device(0, "CPU-0", "cpu:0", "cpu"))
    return [networks.predict(network, row) for row in ROWS]


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True))


async def test_every_device_says_the_same(
    director: Director, model: Model[torch.nn.Module], expected: list[torch.Tensor]
) -> None:
    found = await asyncio.gather(*(director.run(networks.predict, row, model=model) for row in ROWS))
    assert same(found, expected)
    assert sum(device.jobs for device in director.stats().devices) == len(ROWS)


async def test_batches_say_what_single_rows_do(
    director: Director, model: Model[torch.nn.Module], expected: list[torch.Tensor]
) -> None:
    together = director.function(networks.predict_many, model=model, max_batch_size=8)
    assert same([found async for found in together.map(ROWS)], expected)


async def test_a_stream_of_choices(director: Director, model: Model[torch.nn.Module]) -> None:
    streams = [director.stream(networks.generate, ROWS[0], 30, model=model) for _ in range(3)]

    async def read(stream: AsyncIterator[int]) -> list[int]:
        return [choice async for choice in stream]

    first, *others = await asyncio.gather(*(read(stream) for stream in streams))
    assert len(first) == 30
    assert all(other == first for other in others)


async def test_large_tensors_there_and_back(director: Director) -> None:
    squares = [torch.rand(WIDE, WIDE) for _ in range(4)]
    found = await asyncio.gather(*(director.run(networks.transposed, square) for square in squares))
    assert all(torch.equal(back, square.t()) for back, square in zip(found, squares, strict=True))


async def test_modes_of_the_caller_are_not_those_of_the_job(director: Director) -> None:
    """torch keeps them for each thread: a caller's `inference_mode` says nothing about the slot's thread."""
    with torch.inference_mode():
        assert await director.run(networks.grad_mode) == (True, False)


async def test_an_error_of_torch_arrives_as_it_is(director: Director) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        await director.run(networks.multiply, torch.ones(2, 3), torch.ones(2, 3))
    assert director.healthy


async def test_a_batch_too_large_for_the_memory_is_halved(director: Director) -> None:
    """The class is torch's, so it is recognised; that the memory is full is made up."""
    hungry = director.function(networks.hungry, max_batch_size=8)
    assert await asyncio.gather(*map(hungry, range(16))) == [n * 10 for n in range(16)]
    assert director.healthy
