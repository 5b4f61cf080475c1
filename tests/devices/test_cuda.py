"""The process that asks CUDA: let go of when it hangs, done without where it can't be started."""

from __future__ import annotations

import signal
import subprocess
import sys
from subprocess import PIPE

import pytest

from director._devices import isolated as _apart
from director._devices.survey import CudaUnavailable, ask_cuda


def test_a_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    child = subprocess.Popen(sleeper, stdout=PIPE, stderr=PIPE, text=True)
    monkeypatch.setattr(_apart, "_start", lambda *_: child)
    assert ask_cuda(0.01) == CudaUnavailable("CUDA did not answer within 0.01 s", installed=True)
    assert child.wait(10) == -signal.SIGKILL


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    answer = ask_cuda(10)
    assert isinstance(answer, CudaUnavailable)
    assert answer.reason.startswith("no process could be started ([Errno 2]")


@pytest.mark.parametrize(("name", "value"), [("frozen", True), ("executable", ""), ("executable", None)])
def test_a_program_that_is_no_python_is_not_started(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    monkeypatch.setattr(sys, name, value, raising=False)
    reason = "no process could be started (this program is no plain Python that could start another one)"
    assert ask_cuda(10) == CudaUnavailable(reason, installed=True)
