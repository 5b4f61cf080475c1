"""The first file of a child, run by its path: the package can be imported once `sys.path` is the parent's."""

import marshal
import os
import sys


def _boot() -> None:
    for descriptor in (0, 1, 2):  # if closed, they would be reused by files, and output written there
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    with open(int(sys.argv[1]), "rb") as facts_file:  # noqa: PTH123 - a descriptor
        facts = marshal.loads(facts_file.read())  # noqa: S302 - from our parent
    sys.path[:] = facts["path"]
    sys.argv[:] = facts["argv"]
    from director._executors.process.child.main import main

    main(facts)


if __name__ == "__main__":
    _boot()
