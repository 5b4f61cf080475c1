"""A process that sees made-up machines: a line of JSON in says what to look at, a line out what was seen."""

import contextlib
import dataclasses
import json
import logging
import os
import sys
from pathlib import Path

from director._devices import nvml as _nvml
from director._devices import survey as _survey
from director.errors import DirectorError

told: list[str] = []


class Keep(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        told.append(f"{record.levelname}: {record.getMessage()}")


def look(env: dict[str, str], timeouts: dict[str, float]) -> dict[str, object]:
    for key in [key for key in os.environ if key.startswith(("STUB_", "CUDA_"))]:
        del os.environ[key]
    os.environ.update(env)
    told.clear()
    try:
        found = _survey.take_survey(**timeouts)
        seen = dataclasses.asdict(found) | {"absence": found.absence}
    except DirectorError as error:
        seen = {"error": f"{type(error).__name__}: {error}"}
    return seen | {"told": told, "mapped": Path("/proc/self/maps").read_text()}


def forget() -> None:
    """Start NVML anew for the next machine."""
    pynvml = sys.modules.get("pynvml")
    if _nvml._started and pynvml is not None:
        with contextlib.suppress(pynvml.NVMLError):
            while True:
                pynvml.nvmlShutdown()
    _nvml._started = False


logging.getLogger("director").addHandler(Keep())
for line in sys.stdin:
    print(json.dumps(look(**json.loads(line))), flush=True)
    forget()
