"""Small seeded networks for the tests with torch. Initialised on the spot: what they compute means nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director import Device

WIDE = 512  # a float32 square of it is 1 MiB, which travels by shared memory


def load(device: Device) -> torch.nn.Module:
    """A perceptron, the same on every device.

    With a generator of its own: `torch.manual_seed` is the whole process's, and two devices load at the same time.
    """
    network = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    chance = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weights in network.parameters():
            weights.uniform_(-0.3, 0.3, generator=chance)
    return network.eval().to(place(device))


def place(device: Device) -> str:
    """What torch calls it; "cpu:1" is one more number to the Director and the same device to torch."""
    return str(device) if device.kind == "cuda" else "cpu"


def home(network: torch.nn.Module) -> torch.device:
    return next(network.parameters()).device


@torch.inference_mode()
def predict(network: torch.nn.Module, row: torch.Tensor) -> torch.Tensor:
    return network(row.to(home(network))).cpu()


@torch.inference_mode()
def predict_many(network: torch.nn.Module, rows: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(network(torch.stack(rows).to(home(network))).cpu())


@torch.inference_mode()
def generate(network: torch.nn.Module, row: torch.Tensor, steps: int) -> Iterator[int]:
    """One number after the other, each from the one before: what a language model's decoding looks like."""
    for _ in range(steps):
        choice = int(network(row.to(home(network))).argmax())
        yield choice
        row = torch.roll(row, choice + 1)


def transposed(device: Device, square: torch.Tensor) -> torch.Tensor:
    return square.to(place(device)).t().contiguous().cpu()


def grad_mode(_device: Device) -> tuple[bool, bool]:
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled()


def multiply(_device: Device, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b


def hungry(_resource: Any, items: list[int]) -> list[int]:
    """Has no memory for more than two; the error is torch's own class, and raised here."""
    if len(items) > 2:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    return [item * 10 for item in items]
