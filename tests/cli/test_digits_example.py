"""The example of the documentation, from its images to its accuracy."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Ended

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("sklearn") is None, reason="needs scikit-learn: pip install gpu-director[demo]"),
]

EXAMPLE = str(Path(__file__).parents[2] / "docs" / "examples" / "digits.py")


def example(folder: Path, *arguments: str) -> str:
    command = [sys.executable, EXAMPLE, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_from_the_scans_to_the_accuracy(run: Callable[..., Ended], tmp_path: Path) -> None:
    assert example(tmp_path, "--write", "digits") == "1797 scans in digits\n"
    (tmp_path / "digits" / "held-out" / "broken-is-3.pgm").write_text("no image")
    model, output = ("--model", f"{EXAMPLE}:model"), ("--output", "digits.jsonl")
    ended = run("run", f"{EXAMPLE}:classify", "digits/*/*.pgm", *model, "--devices", "cpu:2", *output)
    assert ended.status == 1
    assert "ValueError: not a PGM image of 8 by 8 pixels" in ended.err
    assert "1,798 items" in ended.err
    held_out, train = example(tmp_path, "--score", "digits.jsonl").splitlines()
    right = int(held_out.split()[1])
    assert held_out.startswith(f"held-out  {right} of 898 right")
    assert "1 failed; never seen in training: this is the accuracy" in held_out
    assert right > 845  # measured 868
    assert train.startswith("train     899 of 899 right")


def test_the_network_is_the_same_in_torch() -> None:
    """What a GPU runs, on torch's CPU: a device that says it is a GPU, and that torch knows by another name."""
    pytest.importorskip("torch")
    import numpy as np

    from director import Device
    from director.cli._demo import digits

    class Disguised(Device):
        __slots__ = ()

        def __str__(self) -> str:
            return "cpu"

    gpu, cpu = Disguised(0, "GPU-0", "disguised", "cuda"), Device(0, "CPU-0", "cpu:0", "cpu")
    chance = np.random.default_rng(0)
    weights = [chance.normal(size=size) for size in ((64, 256), 256, (256, 10), 10)]
    for pixels in chance.random((20, 64)):
        in_torch, in_numpy = (digits._network(weights, device)(pixels) for device in (gpu, cpu))
        np.testing.assert_allclose(in_torch, in_numpy, rtol=1e-3, atol=1e-2)
