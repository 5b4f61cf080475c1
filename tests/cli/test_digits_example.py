"""The example of the documentation, from its images to its accuracy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Ended

pytest.importorskip("sklearn")

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
