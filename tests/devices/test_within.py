"""`within`: a call that may hang for ever, on a thread that nobody has to wait for."""

from __future__ import annotations

import threading

import pytest

from director._devices.nvml import within
from director.errors import DiscoveryError


def test_the_result_comes_from_a_daemon_thread() -> None:
    thread = within(10, threading.current_thread)
    assert thread is not threading.current_thread()
    assert thread.daemon


def test_what_the_call_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 // 0)


def test_a_timeout_of_the_calls_own_is_no_hang() -> None:
    def late() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        within(10, late)


def test_a_hang_is_named() -> None:
    go, gone = threading.Event(), threading.Event()

    def hang() -> None:
        go.wait(30)
        gone.set()

    with pytest.raises(DiscoveryError, match=r"has not answered for 0.01 s: the NVIDIA driver hangs"):
        within(0.01, hang)
    go.set()
    assert gone.wait(10)
