"""`director run` beside other programs that run a command for each line: the cost of an item that does nothing.

All with two slots, and each with the time of its start. Programs that are not installed are left out.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from director.cli._bench.sheet import Sheet, turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director.cli._bench.sheet import Effort

JOURNALLED = "director run -o FILE"
XARGS, PARALLEL = "xargs -P2 -n1 true", "parallel -j2 true"
_TRUE = shutil.which("true") or "/bin/true"
_FUNCTION = "def nothing(device, line):\n    return 1\n"


@dataclass(frozen=True)
class Program:
    """A command that reads lines from its standard input, and how many it gets in a full run."""

    name: str
    command: Sequence[str]
    lines: int

    def seconds(self, folder: Path, lines: int) -> float:
        """How long it takes for so many lines, with its start."""
        text = folder / "lines"
        text.write_text("".join(f"photos/{number:07}.jpg\n" for number in range(lines)))
        with text.open("rb") as source:
            began = time.perf_counter()
            subprocess.run(self.command, stdin=source, stdout=subprocess.DEVNULL, cwd=folder, check=True)  # noqa: S603
            return time.perf_counter() - began


def measure(effort: Effort) -> Sheet:
    """The cost of an item, in a full run of 100,000 items for ours and of 2,000 or 500 for the others."""
    sheet = Sheet()
    with tempfile.TemporaryDirectory(prefix="director-bench-") as name:
        folder = prepared(Path(name))
        for program in turns(programs(), effort.pick(5, 1)):
            lines = effort.pick(program.lines, program.lines // 10)
            sheet.add(program.name, "an item", "µs", program.seconds(folder, lines) / lines * 1e6)
    return sheet


def prepared(folder: Path) -> Path:
    """The folder, with the function in it."""
    (folder / "nothing.py").write_text(_FUNCTION)
    return folder


def programs() -> list[Program]:
    """Those that are installed."""
    run = [sys.executable, "-m", "director", "run", "nothing.py:nothing", "-", "--lines", "--devices", "cpu:2", "-q"]
    found = [Program(JOURNALLED, [*run, "-o", "out.jsonl", "--fresh"], 100_000), Program("director run", run, 100_000)]
    if shutil.which("xargs"):
        found.append(Program(XARGS, ["xargs", "-P2", "-n1", _TRUE], 2000))
    if shutil.which("parallel"):
        found.append(Program(PARALLEL, ["parallel", "-j2", "--will-cite", _TRUE], 500))
    return found
