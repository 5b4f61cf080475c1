"""Machines that are made up: NVIDIA's own pynvml over libraries that answer from the environment.

The dynamic loader reads `LD_LIBRARY_PATH` when a process starts, so other processes look at the machines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import pytest
from harness.stubs import STUBS, built

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["built"]  # a fixture

VIEWER = [sys.executable, str(STUBS / "viewer.py")]
GIB = 2**30


@dataclass
class Seen:
    """What `take_survey` made of a machine."""

    error: str = ""
    devices: list[dict[str, Any]] = field(default_factory=list)
    inventory: dict[str, Any] = field(default_factory=dict)
    cuda: Any = None
    absence: str = ""
    told: list[str] = field(default_factory=list)
    mapped: str = ""
    mask: str | None = None
    order: str | None = None

    @property
    def uuids(self) -> list[str]:
        assert not self.error, self.error
        assert [device["index"] for device in self.devices] == list(range(len(self.devices)))
        return [device["uuid"] for device in self.devices]


class Viewers:
    """Processes that look at machines with the same libraries, one machine after the other."""

    def __init__(self, errors: Path) -> None:
        self._errors = errors
        self._running: dict[str, subprocess.Popen[str]] = {}

    def look(self, path: str, request: str) -> str:
        if path not in self._running:
            self._running[path] = self._start(path)
        viewer = self._running[path]
        assert viewer.stdin
        assert viewer.stdout
        print(request, file=viewer.stdin, flush=True)
        return viewer.stdout.readline()

    def _start(self, path: str) -> subprocess.Popen[str]:
        env = os.environ | {"LD_LIBRARY_PATH": path}
        with self._errors.open("a") as errors:
            return subprocess.Popen(VIEWER, env=env, stdin=PIPE, stdout=PIPE, stderr=errors, text=True)

    def close(self) -> None:
        for viewer in self._running.values():
            viewer.communicate(timeout=20)
        assert not self._errors.exists() or not self._errors.read_text()


class Machine:
    """GPUs and drivers, put together by a test."""

    def __init__(self, built: dict[str, Path], viewers: Viewers) -> None:
        self._built = built
        self._viewers = viewers
        self._gpus = 0
        self._libraries: list[Path] = []
        self.env: dict[str, str] = {}

    def nvml(self, **settings: object) -> Machine:
        """Install NVML; `init`, `hang`, `driver` as in nvml.c."""
        self._libraries.append(self._built["nvml"].parent)
        self.env |= {f"STUB_NVML_{key.upper()}": str(value) for key, value in settings.items()}
        return self

    def gpu(self, uuid: str, name: str = "NVIDIA H100", memory: int = 80 * GIB, **settings: object) -> Machine:
        """Put in a GPU; `fail`, `mig`, `pci` as in nvml.c."""
        settings = {"uuid": uuid, "name": name, "memory": memory, "pci": f"00000000:{self._gpus:02X}:00.0"} | settings
        self.env |= {f"STUB_GPU{self._gpus}_{key.upper()}": str(value) for key, value in settings.items()}
        self._gpus += 1
        self.env["STUB_GPUS"] = str(self._gpus)
        return self

    def cuda(self, *uuids: str, **settings: object) -> Machine:
        """Install CUDA, which shows these devices in this order; `init`, `mood`, `say` as in cuda.c."""
        self._libraries.append(self._built["cuda"].parent)
        shown = [f"{uuid.split('-', 1)[1].replace('-', '')} {80 * GIB} CUDA's name" for uuid in uuids]
        self.env["STUB_CUDA_DEVICES"] = ";".join(shown)
        self.env |= {f"STUB_CUDA_{key.upper()}": str(value) for key, value in settings.items()}
        return self

    def look(self, mask: str | None = None, order: str | None = None) -> Seen:
        """Survey this machine under a mask and an order."""
        answer = self._viewers.look(self._library_path, self._request(mask, order))
        assert answer, "the viewer died"
        return Seen(**json.loads(answer))

    def look_afresh(self, mask: str | None = None, *, timeouts: float = 20.0, **env: str) -> Seen:
        """The same in a process of its own, which has to end by itself."""
        done = self.run(VIEWER, self._request(mask, None, timeouts), **env)
        assert done.returncode == 0, done.stderr
        return Seen(**json.loads(done.stdout))

    def run(self, command: list[str], text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command on this machine."""
        everything = os.environ | self.env | {"LD_LIBRARY_PATH": self._library_path} | env
        return subprocess.run(
            command, env=everything, input=text, capture_output=True, text=True, timeout=30, check=False
        )

    @property
    def _library_path(self) -> str:
        return os.pathsep.join(str(directory) for directory in self._libraries)

    def _request(self, mask: str | None, order: str | None, timeouts: float = 20.0) -> str:
        variables = {"CUDA_VISIBLE_DEVICES": mask, "CUDA_DEVICE_ORDER": order}
        env = self.env | {key: value for key, value in variables.items() if value is not None}
        return json.dumps({"env": env, "timeouts": {"nvml_timeout": timeouts, "cuda_timeout": timeouts}})


@pytest.fixture(scope="session")
def viewers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewers]:
    viewers = Viewers(tmp_path_factory.mktemp("viewers") / "errors")
    yield viewers
    viewers.close()


@pytest.fixture
def machine(built: dict[str, Path], viewers: Viewers) -> Machine:
    """A machine with nothing in it."""
    return Machine(built, viewers)
