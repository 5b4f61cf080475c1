"""The main module of the program, which a child imports only when it receives a function or class of it.

Importing it runs it: the code that starts the program must be under ``if __name__ == "__main__":``. A child whose
functions are in other modules never imports it, for example under a server or a test runner.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from director._system.launched import absolute

MAIN, TWIN = "__main__", "__mp_main__"  # the second name is multiprocessing's for a main module in a child
_ADVICE = (
    "A child process imports the main module of the program to find the functions that are sent to it. "
    'Put what starts the program under `if __name__ == "__main__":`, or move the functions to a module of their own'
)


def origin() -> tuple[str, str] | None:
    """How a child imports this process's main module: by name or by path; `None` if it can't.

    It can't at a prompt, in a notebook and with ``python -c``, where there is no file; nor the ``__main__`` of a
    package, a folder or a zip file, which mostly starts the program without asking for its name. What such a module
    defines is sent by value.
    """
    main = sys.modules[MAIN]
    if type(main) is LazyMainModule:  # not imported here yet; our children import it as this process would
        return main.origin
    sys.modules[TWIN] = main  # pickles from children refer to it by this name
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return None if name == MAIN or name.endswith(f".{MAIN}") else ("init_main_from_name", name)
    path = getattr(main, "__file__", None)
    if path is None:
        return None
    from pathlib import Path  # imported late: children don't need it

    path = absolute(str(path))
    return ("init_main_from_path", path) if Path(path).is_file() else None


class Unguarded(RuntimeError):
    """The main module starts the program when it is imported. The text says all; no traceback is sent with it."""


class LazyMainModule(ModuleType):
    """Replaces the main module in a child and imports it when an attribute is first needed."""

    is_importing = False  # on the class: there is one main module
    origin: tuple[str, str] | None

    def __init__(self, origin: tuple[str, str] | None) -> None:
        super().__init__(MAIN)
        self.origin = origin

    def install(self) -> None:
        """Become the main module in `sys.modules`."""
        sys.modules[MAIN] = sys.modules[TWIN] = self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.origin is not None and sys.modules[TWIN] is self and not LazyMainModule.is_importing:
            _import_main(*self.origin)
        main = sys.modules[TWIN]
        if main is self:
            raise AttributeError(f"{name} is in a main module that a child process can't import")
        return getattr(main, name)


def explain(error: BaseException) -> BaseException:
    """In the child: what unpickling raised, with what helps if the main module lacks a name there.

    pickle raises an error of its own in place of that of `LazyMainModule`.
    """
    text = str(error)
    if type(error) is not AttributeError or not text.startswith("Can't get attribute"):
        return error
    if MAIN not in text and TWIN not in text:
        return error
    better = AttributeError(
        f"{text}: the main module is imported here as {TWIN}, so what it defines only when its name is {MAIN} is "
        f"missing. {_ADVICE}."
    )
    better.__cause__ = error
    return better


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
