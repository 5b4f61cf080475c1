"""A probe: what is wrong with a device, if anything is? No state.

A GPU is tried out in a fresh process: the faults of this one's CUDA must not count, and a GPU that is still broken must
not break this one. A user who knows better asks in a way of his own.
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
    """What is wrong with `device`, `None` if it may work again. Blocks up to ``rules.probe_timeout``; raises nothing.

    Asks ``rules.probe`` if there is one. Else a GPU is used in a fresh process (memory allocated, filled, read back),
    and nothing is ever wrong with a stand-in.

    Args:
        device: Which.
        rules: The user's.
    """
    if rules.probe is not None:
        return _call_probe(rules.probe, device, rules.probe_timeout)
    return _run_trial(device.uuid, rules.probe_timeout) if device.kind == "cuda" else None


def _call_probe(call: Callable[[Device], str | None], device: Device, timeout: float) -> str | None:
    try:
        return on_thread(timeout, lambda: call(device), "director-probe")
    except CallTimedOut:
        return f"its probe did not come back within {timeout:g} s"
    except BaseException as error:  # noqa: BLE001 (whatever it is, it says that something is wrong)
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
    told: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith(_MARK):
            with suppress(ValueError):  # a line that was cut off
                told = json.loads(line.removeprefix(_MARK))
    return told


def _read(answer: dict[str, Any], ended: ScriptResult) -> str | None:
    match answer:
        case {"fine": fine}:
            return None if fine else "its memory does not hold what is written to it"
        case {"code": code} if code == _OUT_OF_MEMORY:  # somebody uses the rest: it works for them, and it answers
            return None
        case {"function": function, "code": code, "words": words}:
            return f"{function} answers {code} ({words})"
        case {"other": digits}:
            return f"CUDA shows another device under its UUID ({digits})"
        case {"unloadable": why}:
            return f"CUDA's library can't be loaded ({why})"
    begun = f" in {answer['begun']}" if "begun" in answer else ""
    return f"the process that tried it out ended{begun} (exit code {ended.exitcode}){ended.last_error_line}"
