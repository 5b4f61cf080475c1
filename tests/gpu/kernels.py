"""Jobs for a real GPU, by torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from director import Device

CYCLES = 1_000_000_000  # well over a tenth of a second of any GPU's clock


def home(_device: Device) -> str:
    """Where a tensor lands whose maker names no GPU."""
    return str(torch.empty(1, device="cuda").device)


def spin(device: Device) -> torch.cuda.Event:
    """Give the GPU something to do, and return before it is done."""
    torch.cuda._sleep(CYCLES)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(str(device)))
    return done


def stream(device: Device) -> int:
    """The stream that this thread's work goes to."""
    spin(device)
    found: int = torch.cuda.current_stream(str(device)).cuda_stream
    return found


def add_up(device: Device, count: int) -> int:
    return int(torch.ones(count, device=str(device)).sum())


def thirds(device: Device, items: list[int]) -> list[int]:
    """Takes a third of the GPU's memory for each item, for a moment."""
    _, total = torch.cuda.mem_get_info(str(device))
    kept = [torch.empty(total // 3, dtype=torch.uint8, device=str(device)) for _ in items]
    return items[: len(kept)]


def break_context(device: Device) -> None:
    """A device-side assertion: every later call of CUDA in this process fails."""
    table = torch.arange(10, device=str(device))
    table[torch.tensor([1_000], device=str(device))].sum().item()
