"""docs/reference/dashboard.md says what the code tells."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

from director import Director
from director.dashboard import Dashboard
from director.dashboard._tracks import Stretch

if TYPE_CHECKING:
    from director.testing import TestClock

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "dashboard.md").read_text()


def section(heading: str) -> str:
    (text,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", PAGE, re.M | re.S)
    return str(text)


def fields(text: str) -> list[str]:
    """What is in code in the first column of a table."""
    return [name for row in re.findall(r"^\| (.*?) \|", text, re.M) for name in re.findall(r"`(\w+)`", row)]


async def test_every_field_of_a_snapshot(clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    dashboard = Dashboard(director)
    async with director:
        await director.run(str)
        seen = await dashboard.snapshot()
    assert sorted(fields(section("A snapshot"))) == sorted(seen)
    paragraph = section("A snapshot").rpartition("\nA device has")[2]
    (device,) = seen["devices"]
    assert [key for key in device if f"`{key}`" not in paragraph] == []
    (job,) = seen["ended"]
    assert fields(section("A job")) == list(job)


def test_the_signature_and_the_members() -> None:
    (told,) = re.findall(r"^`director\.dashboard\.Dashboard\((.*?)\)`$", PAGE, re.M)
    parameters = inspect.signature(Dashboard).parameters.values()
    bare = inspect.Signature([each.replace(annotation=inspect.Parameter.empty) for each in parameters])
    assert f"({told})" == str(bare)
    public = [name for name in vars(Dashboard) if not name.startswith("_")]
    assert [name for name in public if f"dashboard.{name}(" not in PAGE] == []


def test_the_columns_of_a_stretch() -> None:
    row = Stretch(1.0, 2.0, 7, "detect", False, False).row()
    assert "`[begin, end, jobs, busy, failed, left, job, name]`" in PAGE
    assert row == [1.0, 2.0, 1, 1.0, 0, False, 7, "detect"]
