"""The driver's two libraries without hardware, from the sources in tests/devices/stubs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

STUBS = Path(__file__).parent.parent / "devices" / "stubs"
LIBRARIES = {"nvml": "libnvidia-ml.so.1", "cuda": "libcuda.so.1"}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two libraries, each in a directory of its own."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc to build the stub libraries: apt install gcc libc6-dev")
    return {kind: build(kind, tmp_path_factory.mktemp(kind)) for kind in LIBRARIES}


def build(kind: str, directory: Path) -> Path:
    library = directory / LIBRARIES[kind]
    source = STUBS / f"{kind}.c"
    strict = ["-Wall", "-Wextra", "-Werror", "-pthread"]
    command = ["gcc", *strict, "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", str(library), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library
