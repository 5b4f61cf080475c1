"""Python and packages."""

from __future__ import annotations

import platform
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from director import __version__
from director.cli._doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_finding = partial(Finding, "versions")
_NEEDED = ("anyio", "nvidia-ml-py")
_EXTRAS = {"rich": "cli", "uvicorn": "dashboard"}
_LOOKED_AT = (*_NEEDED, *_EXTRAS, "pynvml", "torch", "numpy", "uvloop", "uvicorn", "fastapi")


def installed() -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for package in _LOOKED_AT:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def examine_versions(packages: Mapping[str, str], gpus: int) -> Iterator[Finding]:
    """Findings about Python and packages.

    Args:
        packages: Versions by name.
        gpus: How many GPUs there are.
    """
    known = ", ".join(f"{name} {number}" for name, number in packages.items())
    yield _finding("versions", "ok", f"director {__version__}, Python {platform.python_version()}; {known}")
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        yield _finding("free-threaded", "note", "this Python runs without the GIL, which director is not tested with")
    for package in _NEEDED:
        if package not in packages:
            yield _finding("package-missing", "wrong", f"{package} is not installed", f"pip install {package}")
    yield from _pynvml(packages.get("pynvml"))
    torch = packages.get("torch", "")
    if torch.endswith("+cpu") and gpus:
        yield _finding(
            "torch-without-cuda",
            "wrong",
            f"torch {torch} is the build without CUDA, and there are GPUs",
            "install the build for your driver, as https://pytorch.org/get-started/locally/ says",
        )
    for package, extra in _EXTRAS.items():
        if package not in packages:
            what = {"cli": "live views on a terminal", "dashboard": "`director top --web`"}[extra]
            yield _finding(
                f"without-{package}",
                "note",
                f"without {package} there are no {what}",
                f"pip install 'gpu-director[{extra}]'",
            )


def _pynvml(number: str | None) -> Iterator[Finding]:
    """The package of that name is not NVIDIA's module of that name."""
    if number is None:
        return
    remedy = "pip uninstall pynvml, then pip install --force-reinstall nvidia-ml-py"
    if int(number.partition(".")[0]) < 12:
        text = f"the old package pynvml {number} hides NVIDIA's own module of that name"
        yield _finding("pynvml-hides", "wrong", text, remedy)
    else:
        text = (
            f"the abandoned package pynvml {number} makes the import of NVIDIA's module warn (an error under -W error)"
        )
        yield _finding("pynvml-warns", "note", text, remedy)
