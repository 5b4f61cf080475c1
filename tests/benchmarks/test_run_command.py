"""The benchmark of `director run`, with little work."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from benchmarks.run_command import NOTHING, Row, memory, rates, resume

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.serial]


def test_goals() -> None:
    assert Row("a", 3.0, "times", 2.0).is_missed
    assert not Row("a", 3.0, "times", 2.0, at_least=True).is_missed
    assert not Row("a", 3.0, "times").is_missed
    assert str(Row("a", 1.0, "times", 2.0, at_least=True)).endswith("1.0 times   goal >= 2, missed")


@pytest.mark.skipif(shutil.which("xargs") is None, reason="needs xargs")
def test_it_is_many_times_as_fast_as_a_process_for_each_item(tmp_path: Path) -> None:
    (tmp_path / "nothing.py").write_text(NOTHING)
    missed = [str(row) for row in rates(tmp_path, 20_000, 400) if row.is_missed]
    assert missed == []


def test_memory_journal_and_reading(tmp_path: Path) -> None:
    (tmp_path / "nothing.py").write_text(NOTHING)
    rows = [*memory(tmp_path, 100_000), *resume(tmp_path, 100_000)]
    assert [str(row) for row in rows if row.is_missed] == []
