"""A real browser without a window: Debian's `chromium`."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",  # in a container, as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no network, whatever the page wants
    "--window-size=1300,900",
    "--virtual-time-budget=3000",  # ms that timers of the page may wait, which takes no time
)

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")


def dom_of(page: Path, *options: str) -> str:
    """What the page has become when its script has run."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *OPTIONS, *options, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout
