"""Probes a device: finds out whether it works. No state.

A GPU is tested in a new process: faults of this process's CUDA context must not count, and a GPU that is still broken
must not break it. A user's own probe replaces this one.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from director._devices.inventory import hex_digits
from director._devices.isolated import CallTimedOut, ScriptResult, on_thread, run_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._devices.health.rules import HealthRules

_MARK = "director-trial "  # as in try_cuda
_OUT_OF_MEMORY = 2


def probe(device: Device, rules: HealthRules) -> str | None:
    """What is wrong with `device`, `None` if it works. Blocks up to ``rules.probe_timeout``; raises nothing.

    Calls ``rules.probe`` if there is one. Else a GPU is used in a new process (memory is allocated, filled and read
    back), and CPU and simulated devices always work.
    """
    if rules.probe is not None:
        return _call_probe(rules.probe, device, rules.probe_timeout)
    return _run_trial(device.uuid, rules.probe_timeout) if device.kind == "cuda" else None


def _call_probe(call: Callable[[Device], str | None], device: Device, timeout: float) -> str | None:
    try:
        return on_thread(timeout, lambda: call(device), "director-probe")
    except CallTimedOut:
        return f"its probe did not come back within {timeout:g} s"
    except BaseException as error:  # noqa: BLE001 (any error of the probe means that something is wrong)
        return f"its probe raised {type(error).__name__}: {error}"


def _run_trial(uuid: str, timeout: float) -> str | None:
    digits, parent = hex_digits(uuid), str(os.getpid())
    try:
        ended = run_script("try_cuda.py", digits, parent, timeout=timeout, CUDA_VISIBLE_DEVICES=uuid)
    except OSError as error:
        return f"no process could be started to try it out ({error})"
    last = _last_answer(ended.stdout)
    if ended.exitcode is None:
        return f"{last.get('begun', 'the process that tried it out')} did not come back within {timeout:g} s"
    return _read(last, ended)


def _last_answer(output: str) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith(_MARK):
            with suppress(ValueError):  # a line that was cut off
                answer = json.loads(line.removeprefix(_MARK))
    return answer


def _read(answer: dict[str, Any], ended: ScriptResult) -> str | None:
    match answer:
        case {"fine": fine}:
            return None if fine else "its memory does not hold what is written to it"
        case {"code": code} if code == _OUT_OF_MEMORY:  # other processes use the memory, so the device works
            return None
        case {"function": function, "code": code, "words": words}:
            return f"{function} answers {code} ({words})"
        case {"other": digits}:
            return f"CUDA shows another device under its UUID ({digits})"
        case {"unloadable": why}:
            return f"CUDA's library can't be loaded ({why})"
    begun = f" in {answer['begun']}" if "begun" in answer else ""
    return f"the process that tried it out ended{begun} (exit code {ended.exitcode}){ended.last_error_line}"
