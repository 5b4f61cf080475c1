"""Imports the object of a `MODULE:NAME` argument, with error messages for users."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from director._untrusted.callables import suspension_of
from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType, TracebackType


def find(spec: str) -> Any:
    """The object that `spec` names.

    Args:
        spec: ``MODULE:NAME``; MODULE is a dotted name or the path of a ``.py`` file, NAME may be dotted too.

    Raises:
        UsageError: With the cause (no such module, the import failed, no such name) and the remedy.
    """
    module_name, colon, name = spec.rpartition(":")
    if not (colon and module_name and name):
        raise UsageError(f"{spec!r} is not MODULE:NAME, such as package.module:classify or ./file.py:classify")
    return _attribute(_module(module_name), name)


def find_function(spec: str, *, resource: str) -> Callable[..., Any]:
    """The blocking function that `spec` names.

    Args:
        spec: As for `find`.
        resource: What the function gets as its first argument, for the message: ``"device"`` or ``"replica"``.

    Raises:
        UsageError: Also when the object can't be called as ``function(resource, item)``.
    """
    function = find(spec)
    if not callable(function):
        raise UsageError(f"{spec} is {_a(function)}, which can't be called; name a function")
    _check_blocking(spec, function)
    _check_arguments(spec, function, resource)
    return function  # type: ignore[no-any-return]


def find_decoder(spec: str) -> Callable[..., Any]:
    """The blocking function of one item that `spec` names.

    Raises:
        UsageError: As for `find`, or it can't be called with one argument.
    """
    function = find(spec)
    if not callable(function):
        raise UsageError(f"{spec} is {_a(function)}, which can't be called; name a function")
    _check_blocking(spec, function)
    try:
        inspect.signature(function).bind(object())
    except ValueError:  # some built-in functions have no signature
        pass
    except TypeError as error:
        raise UsageError(f"{spec} can't be called as {spec.rpartition(':')[2]}(item): {error}") from None
    return function  # type: ignore[no-any-return]


def _check_blocking(spec: str, function: Any) -> None:
    kind = suspension_of(function)
    if kind == "generator":
        raise UsageError(f"{spec} is a generator; one item has one result here, so return a list instead of yielding")
    if kind is not None:
        raise UsageError(f"{spec} is async; jobs run on threads of their own, so name a plain blocking function (def)")


def _check_arguments(spec: str, function: Any, resource: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return
    try:
        signature.bind(object(), object())
    except TypeError as error:
        raise UsageError(
            f"{spec}{signature} can't be called as {spec.rpartition(':')[2]}({resource}, item): {error}.\n"
            f"The first argument of a job is what it runs on: the Device, or with --model the replica."
        ) from None


def _module(name: str) -> ModuleType:
    is_file = name.endswith(".py") or "/" in name
    try:
        return _module_of_file(Path(name)) if is_file else _module_by_name(name)
    except UsageError:
        raise
    except ModuleNotFoundError as error:
        if not is_file and error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(_not_found(name, error.name)) from None
        raise _import_failed(name, error) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- a user's module may raise anything while it is imported
        raise _import_failed(name, error) from None


def _module_by_name(name: str) -> ModuleType:
    here = str(Path.cwd())  # on the path with `python -m director`, not with the console script
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    return importlib.import_module(name)


def _module_of_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        hint = f"; did you mean {path}.py?" if Path(f"{path}.py").is_file() else ""
        raise UsageError(f"no such file: {path}{hint}")
    for module in list(sys.modules.values()):  # --model may name the same file, which must be the same module
        if getattr(module, "__file__", None) == str(path):
            return module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # so that it can import its neighbours, as with `python file.py`
    return _execute(path.stem if path.stem not in sys.modules else f"_run_{path.stem}", path)


def _execute(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not Python source: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, because dataclasses and pickle look up their module by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _attribute(module: ModuleType, dotted: str) -> Any:
    found: Any = module
    for name in dotted.split("."):
        if not hasattr(found, name):
            raise UsageError(_no_attribute(found, name))
        found = getattr(found, name)
    return found


def _not_found(name: str, missing: str) -> str:
    parent = "" if missing == name else f" (of {name})"
    return f"no module named {missing!r}{parent} here or among the installed packages"


def _no_attribute(owner: object, name: str) -> str:
    where = getattr(owner, "__file__", None) or getattr(owner, "__qualname__", None) or repr(owner)
    names = [key for key in vars(owner) if not key.startswith("_")] if hasattr(owner, "__dict__") else []
    close = difflib.get_close_matches(name, names, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{where} has no {name!r}{hint}"


def _import_failed(name: str, error: BaseException) -> UsageError:
    lines = traceback.format_exception(type(error), error, _users_part(error.__traceback__))
    return UsageError(f"importing {name} failed with the error above", "".join(lines))


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame of user code, without this file and the import system."""
    ours = (__file__, importlib.__file__, "<frozen")
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(ours):
        trace = trace.tb_next
    return trace


def _a(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
