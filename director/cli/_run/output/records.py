"""Makes the JSONL record of an item: a result or an error."""

from __future__ import annotations

from functools import cache

from director._untrusted.objects import module_name, qualified_name, story_of
from director.cli._run.strict_json import to_json


def success(index: int, text: bytes, result: bytes, device: str | None, seconds: float | None) -> bytes:
    """The line of an item that has a result (already JSON, by `result_to_json`)."""
    return _line(index, text, b"result", result, device, seconds)


def saved(index: int, text: bytes, path: bytes, device: str | None, seconds: float | None) -> bytes:
    """The line of an item whose result is in a file of its own (its path, already JSON)."""
    return _line(index, text, b"output", path, device, seconds)


def failure(
    index: int, text: bytes, error: BaseException, device: str | None, seconds: float | None, *, trace: bool = False
) -> bytes:
    """The line of an item that has none; with `trace` the error holds its traceback too."""
    shown = {"type": type_name(error), "message": message(error)}
    if trace:
        shown["traceback"] = story_of(error)
    return _line(index, text, b"error", to_json(shown), device, seconds)


def message(error: BaseException) -> str:
    """The message of an error, or a note if its `str` raises."""
    try:
        return str(error)
    except BaseException as wrong:  # noqa: BLE001 -- whatever the user's `__str__` raises
        return f"(its str() raised {type_name(wrong)})"


def type_name(error: BaseException) -> str:
    """``ValueError``; with its module where that is public and not built in: ``json.decoder.JSONDecodeError``."""
    kind = type(error)
    module = module_name(kind)
    is_bare = module in ("", "builtins") or module.startswith("_") or "._" in module
    return qualified_name(kind) if is_bare else f"{module}.{qualified_name(kind)}"


def _line(index: int, text: bytes, key: bytes, value: bytes, device: str | None, seconds: float | None) -> bytes:
    took = b"null" if seconds is None else b"%.6f" % seconds
    return b'{"index": %d, "input": %s, "%s": %s, "device": %s, "seconds": %s}\n' % (
        index,
        text,
        key,
        value,
        _label(device),
        took,
    )


@cache
def _label(device: str | None) -> bytes:
    return to_json(device)
