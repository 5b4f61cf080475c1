"""The first file of a child, run by its path: nothing of the package can be found before `sys.path` is the parent's."""

import marshal
import os
import sys


def _boot() -> None:
    for descriptor in (0, 1, 2):  # closed ones would be taken by files, and what is printed would go there
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    with open(int(sys.argv[1]), "rb") as letter:  # noqa: PTH123 - a descriptor
        facts = marshal.loads(letter.read())  # noqa: S302 - from our parent
    sys.path[:] = facts["path"]
    sys.argv[:] = facts["argv"]
    from director._executors.process.child.main import main

    main(facts)


if __name__ == "__main__":
    _boot()
