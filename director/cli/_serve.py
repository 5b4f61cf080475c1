"""The first file of the server process, run by its path: it sets `sys.path` before the package is imported.

It joins what is below `director` in the order of the packages, the server, with what is above, its dashboard.
"""

from __future__ import annotations

import marshal
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from director._server.shown import Dashboards, ShownDirector


def _boot() -> None:
    if os.fork():  # its parent is not the starter, which would have to reap it
        os._exit(0)
    for descriptor in (0, 1, 2):  # if closed, they would be reused by files, and output written there
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    with open(int(sys.argv[1]), "rb") as facts_file:  # noqa: PTH123 - a descriptor
        facts = marshal.loads(facts_file.read())  # noqa: S302 - of this user's processes
    sys.path[:] = facts["path"]
    sys.argv[:] = facts["argv"]
    from director._server.main import main

    main(facts, open_dashboards)


def open_dashboards(director: ShownDirector) -> Dashboards:
    """The dashboards of the server's Director, none of which is open."""
    from director.dashboard._on_demand import Sockets  # by the first application that has a dashboard

    return Sockets(director)


if __name__ == "__main__":
    _boot()
