"""How much of the zoo is run: a sample by seed, or with ``DIRECTOR_ZOO=all`` everything (the session `full` of nox)."""

from __future__ import annotations

import datetime
import os

import pytest

ALL = os.environ.get("DIRECTOR_ZOO") == "all"
SEED = int(os.environ.get("DIRECTOR_ZOO_SEED") or datetime.datetime.now(datetime.UTC).date().toordinal())


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.when == "setup":
        item.add_report_section("setup", "seed", f"DIRECTOR_ZOO_SEED={SEED}")


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.slow)
