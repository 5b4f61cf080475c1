"""The main module of the program, which a child imports only when it receives a function or class of it.

Importing it runs it: the code that starts the program must be under ``if __name__ == "__main__":``. A child whose
functions are in other modules never imports it, for example under a server or a test runner.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

MAIN, TWIN = "__main__", "__mp_main__"  # the second name is multiprocessing's for a main module in a child
_ADVICE = (
    "A child process imports the main module of the program to find the functions that are sent to it. "
    'Put what starts the program under `if __name__ == "__main__":`, or move the functions to a module of their own'
)


def origin() -> tuple[str, str] | None:
    """How a child imports this process's main module: by name or by path; `None` at a prompt or in a notebook."""
    main = sys.modules[MAIN]
    sys.modules.setdefault(TWIN, main)  # pickles from children refer to it by this name
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return "init_main_from_name", name
    path = getattr(main, "__file__", None)
    if path is None:
        return None
    from pathlib import Path  # imported late: children don't need it

    return ("init_main_from_path", str(Path(path).absolute())) if Path(path).is_file() else None


class Unguarded(RuntimeError):
    """The main module starts the program when it is imported. The text says all; no traceback is sent with it."""


class LazyMainModule(ModuleType):
    """Replaces the main module in a child and imports it when an attribute is first needed.

    Args:
        origin: What `origin` said in the parent.
    """

    is_importing = False  # on the class: there is one main module
    _origin: tuple[str, str] | None

    def __init__(self, origin: tuple[str, str] | None) -> None:
        super().__init__(MAIN)
        self._origin = origin

    def install(self) -> None:
        """Become the main module in `sys.modules`."""
        sys.modules[MAIN] = sys.modules[TWIN] = self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._origin is None:
            raise AttributeError(f"{name} was defined at a prompt or in a notebook, which a child process can't import")
        if sys.modules[TWIN] is self and not LazyMainModule.is_importing:
            _import_main(*self._origin)
        main = sys.modules[TWIN]
        if main is self:  # the `__main__` of a package, which `prepare` does not import
            raise AttributeError(f"{name} is in {self._origin[1]}, which a child process can't import. {_ADVICE}")
        return getattr(main, name)


def refuse_while_importing() -> None:
    """Refuse to start children while the main module of this child is imported.

    Raises:
        RuntimeError: It is being imported.
    """
    if LazyMainModule.is_importing:
        raise Unguarded(f"the main module starts a Director with processes when it is imported. {_ADVICE}.")


def _import_main(how: str, where: str) -> None:
    from multiprocessing import process
    from multiprocessing.spawn import prepare

    LazyMainModule.is_importing = process.current_process()._inheriting = True  # type: ignore[attr-defined]  # as spawn does
    try:
        prepare({how: where})
    except BaseException as error:
        if isinstance(error, Unguarded):
            raise
        raise RuntimeError(f"importing the main module {where} raised {error!r}. {_ADVICE}.") from error
    finally:
        LazyMainModule.is_importing = process.current_process()._inheriting = False  # type: ignore[attr-defined]
