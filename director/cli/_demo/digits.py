"""Real input: scikit-learn's 1,797 scanned digits, through a `Model` on this machine's devices.

The only importer of scikit-learn, numpy and torch. The network is trained on every second digit; its accuracy is
measured on the others.
"""

from __future__ import annotations

import importlib
import os
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from director import Device, DeviceStats, Director, DirectorError, Model, discover_devices

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Array: TypeAlias = np.ndarray[Any, Any]
    Network: TypeAlias = Callable[[Array], Array]  # 64 pixels from 0 to 1 -> 10 scores


@dataclass(frozen=True, slots=True)
class Share:
    """The part of one device."""

    device: str
    name: str
    items: int
    busy: float


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the demo.

    Args:
        items: Digits classified.
        trained_on: How many the network was trained on.
        training_seconds: How long that took.
        seconds: How long classifying took, without loading the model.
        right_held_out: Right answers among those that were not used in training.
        right_trained: Right answers among the others.
        framework: The library that ran the network, ``"numpy"`` or ``"torch"``.
        devices: The part of each device.
    """

    items: int
    trained_on: int
    training_seconds: float
    seconds: float
    right_held_out: int
    right_trained: int
    framework: str
    devices: list[Share]

    @property
    def held_out(self) -> int:
        """How many the network was not trained on."""
        return self.items - self.trained_on


def choose_devices() -> tuple[str, str]:
    """The devices to run on, as `Director` takes them, and why: the GPUs if torch can use them, else the cores."""
    cores = f"cpu:{min(4, os.cpu_count() or 1)}"
    try:
        gpus = [device for device in discover_devices() if device.kind == "cuda"]
    except DirectorError as error:
        return cores, f"the GPUs could not be listed: {error}"
    if not gpus:
        return cores, "no GPU is visible"
    try:
        import torch
    except ImportError:
        return cores, f"{len(gpus)} GPUs are visible, but torch, which would run the network there, is not installed"
    if not torch.cuda.is_available():
        return cores, "torch is installed without CUDA, or can't use the GPUs"
    return "gpu", f"{len(gpus)} GPUs are visible"


async def classify_all(devices: str) -> Result:
    """Train, then classify all digits on `devices`, each as one job."""
    digits = load_digits()
    pixels, labels = digits.data / 16, digits.target
    began = time.perf_counter()
    weights = _train(pixels[0::2], labels[0::2])
    trained = time.perf_counter() - began
    model = Model(lambda device: _network(weights, device), name="digits")
    async with Director(devices) as director:
        await director.load(model)
        before = director.stats().devices  # loading is part of the busy time
        began = time.perf_counter()
        answers = [answer async for answer in director.map(_classify, pixels, model=model)]
        seconds = time.perf_counter() - began
        after = director.stats().devices
    right = np.array(answers) == labels
    return Result(
        items=len(labels),
        trained_on=len(labels[0::2]),
        training_seconds=trained,
        seconds=seconds,
        right_held_out=int(right[1::2].sum()),
        right_trained=int(right[0::2].sum()),
        framework="torch" if after[0].device.kind == "cuda" else "numpy",
        devices=[_share(*pair) for pair in zip(before, after, strict=True)],
    )


def _share(before: DeviceStats, after: DeviceStats) -> Share:
    device = after.device
    busy = after.busy_seconds - before.busy_seconds
    return Share(device.label, device.name, after.jobs - before.jobs, busy)


def _classify(network: Network, pixels: Array) -> int:
    return int(network(pixels).argmax())


def _train(pixels: Array, labels: Array) -> list[Array]:
    """Weights and biases of a network with one hidden layer of 256."""
    limits: Any = importlib.import_module("threadpoolctl").threadpool_limits  # it has no type hints
    network = MLPClassifier((256,), batch_size=64, learning_rate_init=0.01, max_iter=40, random_state=0)
    with warnings.catch_warnings(), limits(1):  # a network this small is slower on several threads
        warnings.simplefilter("ignore", ConvergenceWarning)  # 40 iterations are enough
        network.fit(pixels, labels)
    return [network.coefs_[0], network.intercepts_[0], network.coefs_[1], network.intercepts_[1]]


def _network(weights: list[Array], device: Device) -> Network:
    return _on_gpu(weights, device) if device.kind == "cuda" else _on_cpu(weights)


def _on_cpu(weights: list[Array]) -> Network:
    hidden, hidden_bias, out, out_bias = weights

    def network(pixels: Array) -> Array:
        scores: Array = np.maximum(pixels @ hidden + hidden_bias, 0) @ out + out_bias
        return scores

    return network


def _on_gpu(weights: list[Array], device: Device) -> Network:
    import torch

    hidden, hidden_bias, out, out_bias = (torch.tensor(w, dtype=torch.float32, device=str(device)) for w in weights)

    def network(pixels: Array) -> Array:
        with torch.inference_mode():
            x = torch.tensor(pixels, dtype=torch.float32, device=str(device))
            scores: Array = (torch.relu(x @ hidden + hidden_bias) @ out + out_bias).cpu().numpy()
        return scores

    return network
