from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness.gates import Gate

from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def clock() -> TestClock:
    return TestClock()
