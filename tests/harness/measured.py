"""A pytest plugin for tests marked `serial`, which measure time: one that fails is run again.

Other users of the machine can spoil one measurement; a regression spoils each. A test that fails three times in a row
fails, and each try is reported on stderr.
"""

from __future__ import annotations

import faulthandler
import sys
from typing import TYPE_CHECKING

from _pytest.faulthandler import fault_handler_stderr_fd_key
from _pytest.runner import runtestprotocol

if TYPE_CHECKING:
    import pytest

TRIES = 3
LIMIT = 600.0  # seconds of one try; the guards of pytest end with the first failure


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if item.get_closest_marker("serial") is None:
        return None
    hook, place = item.ihook, {"nodeid": item.nodeid, "location": item.location}
    hook.pytest_runtest_logstart(**place)
    for number in range(1, TRIES + 1):
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        failed = [report for report in reports if report.failed]
        if not failed or number == TRIES:
            break
        print(f"\n{item.nodeid} failed at try {number}:\n{failed[0].longreprtext}", file=sys.__stderr__, flush=True)
        faulthandler.cancel_dump_traceback_later()
        faulthandler.dump_traceback_later(LIMIT, file=item.config.stash[fault_handler_stderr_fd_key], exit=True)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(**place)
    return True
