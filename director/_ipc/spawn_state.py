"""What `multiprocessing` gives to the processes that it spawns, given to our children too.

So a library in a child finds what it would find in a process of `multiprocessing.Process`: the proxies of a manager
authenticate, shared memory is tracked by the tracker of the program, `parent_process()` is the parent, and processes
start by the method that the program has chosen.
"""

from __future__ import annotations

import fcntl
import os
import sys
from typing import Any

from director._system import launched

_ABOVE_STDIO = 3


def offer() -> dict[str, Any]:
    """In the parent: plain values for `adopt`."""
    from multiprocessing import get_start_method, process

    us = process.current_process()
    return {
        "authkey": bytes(us.authkey),
        "parent_name": str(us.name),
        "start_method": get_start_method(allow_none=True),
        "folder": launched.FOLDER,
    }


def tracker() -> int:
    """In the parent: a new descriptor of the resource tracker, to pass on and to close; -1 if the program has none.

    A program that uses shared memory by name has imported the tracker. It is started then, as `multiprocessing` does
    before it spawns a process: a child with a tracker of its own would remove, at its end, what others still use.

    Raises:
        OSError: The tracker can't be started.
    """
    module: Any = sys.modules.get("multiprocessing.resource_tracker")
    return -1 if module is None else fcntl.fcntl(module.getfd(), fcntl.F_DUPFD_CLOEXEC, _ABOVE_STDIO)


def adopt(facts: dict[str, Any], name: str) -> None:
    """In the child: become a process of the parent's `multiprocessing`, when that is first imported.

    Args:
        facts: What `offer` has returned, ``"tracker"``, the parent's process id as ``"parent"``, and a pipe that ends
            with the parent as ``"sentinel"``.
        name: The name of this process, which is that of its log records.
    """
    if facts["tracker"] >= 0:
        os.set_inheritable(facts["tracker"], False)  # not for programs that a job starts
    if "multiprocessing" in sys.modules:  # by a debugger, say
        _adopt(facts, name)
    else:
        sys.meta_path.insert(0, _AdoptAtImport(facts, name))


class _AdoptAtImport:
    """Finds `multiprocessing` as it would be found anyway, and adopts when its module was executed."""

    def __init__(self, facts: dict[str, Any], name: str) -> None:
        self._facts = facts
        self._name = name

    def find_spec(self, module: str, path: Any = None, target: Any = None) -> Any:
        """See `importlib.abc.MetaPathFinder`."""
        if module != "multiprocessing":
            return None
        from importlib import util  # most children don't need it

        sys.meta_path.remove(self)
        spec = util.find_spec(module)
        loader: Any = None if spec is None else spec.loader
        if loader is not None:
            execute = loader.exec_module

            def exec_module(package: Any) -> None:
                execute(package)
                _adopt(self._facts, self._name)

            loader.exec_module = exec_module
        return spec


def _adopt(facts: dict[str, Any], name: str) -> None:
    from multiprocessing import process, set_start_method

    hidden: Any = process
    us: Any = process.current_process()
    us.name, us.authkey = name, facts["authkey"]
    us._parent_pid = facts["parent"]
    hidden._parent_process = hidden._ParentProcess(facts["parent_name"], facts["parent"], facts["sentinel"])
    hidden.ORIGINAL_DIR = facts["folder"]
    if facts["start_method"] is not None:
        set_start_method(facts["start_method"], force=True)
    if facts["tracker"] >= 0:
        from multiprocessing import resource_tracker

        shared: Any = resource_tracker
        shared._resource_tracker._fd = facts["tracker"]
