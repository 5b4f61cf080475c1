"""The commands in docs/how-to/command-line.md and overnight.md do what the pages show.

A python block whose first line names a file is that file; a console block is typed into a shell, and what it prints
must be what the page says, except for what was measured and which device an item found free.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from director.cli._run.progress.meter import LaneReading, Reading
from director.cli._run.progress.views import one_line

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("sklearn") is None, reason="needs scikit-learn: pip install gpu-director[demo]"),
]

ROOT = Path(__file__).parents[3]
PAGES = {name: (ROOT / "docs" / "how-to" / f"{name}.md").read_text() for name in ("command-line", "overnight")}


def files(page: str) -> list[tuple[str, str]]:
    """The files of a page, by their names."""
    return re.findall(r"^```python\n# (\S+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def sessions(page: str) -> list[str]:
    """What is typed and printed on a page."""
    return re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def steps(session: str) -> list[tuple[str, str]]:
    """Each command with what the page shows below it."""
    return [(step.partition("\n")[0], step.partition("\n")[2]) for step in re.split(r"^\$ ", session, flags=re.M)[1:]]


MEASURED = (
    r"""(?<=seconds": )[\d.e-]+|(?<=per_second": )[\d.]+|(?<="busy": )[\d.]+""",
    r"(?<= items in )[\d.]+ (µs|ms|s)|(?<=\()[\d.,]+(?=/s\))",
    r"\d+(?= of 898 right)|[\d.]+(?=%)",  # what depends on the BLAS moves a few digits
    r"(?<=cpu:)\d",
    r"(?m)(?<=^cpu:).*$",
    r" +(?=share|busy|mean)",
)


PROGRESS = r"(?m)^\d+ s  [\d,]+ (of|done).* busy\n"  # now and then, where a run takes longer than 2 s


def blurred(text: str) -> list[str]:
    """The lines in an order of their own, without what was measured, and which device an item found free."""
    text = re.sub(PROGRESS, "", text)
    for pattern in MEASURED:
        text = re.sub(pattern, "#", text)
    return sorted(text.splitlines())


@pytest.fixture
def shell(tmp_path: Path) -> subprocess.Popen[str]:
    for name, source in (file for page in PAGES.values() for file in files(page)):
        (tmp_path / name).write_text(source)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin" / "director").write_text(f'#!/bin/sh\nexec {sys.executable} -m director "$@"\n')
    for program in (tmp_path / "bin").iterdir():
        program.chmod(0o755)
    return subprocess.Popen(
        ["bash"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("total", [1797, None])
def test_that_a_machine_is_slow_is_no_difference(total: int | None) -> None:
    progress = one_line(Reading(2.04, 1565, 1, total, 780.2, 1.0, (LaneReading("cpu:0", 0.97, 1565, 0.001),)))
    assert blurred(f"{progress}\nfailed: 3\n") == ["failed: 3"]


@pytest.mark.parametrize("page", PAGES)
def test_the_page_shows_what_happens(page: str, shell: subprocess.Popen[str]) -> None:
    script = [step for session in sessions(PAGES[page]) for step in steps(session)]
    assert len(script) >= 8
    typed = "".join(f"{command}\nstatus=$?; echo '-- end of step'; (exit $status)\n" for command, _ in script)
    printed, _ = shell.communicate(typed)
    answers = printed.split("-- end of step\n")[:-1]
    for (command, shown), answer in zip(script, answers, strict=True):
        assert blurred(answer) == blurred(shown), f"{command}\n{answer}"
