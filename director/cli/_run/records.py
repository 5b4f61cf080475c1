"""Makes the JSONL record of an item: a result or an error."""

from __future__ import annotations

import json
import math
from typing import Any

from director._untrusted.objects import module_name, qualified_name, story_of

_REMEDIES = {
    "bytes": "return base64.b64encode(x).decode()",
    "bytearray": "return base64.b64encode(x).decode()",
    "set": "return sorted(x) or list(x)",
    "frozenset": "return sorted(x) or list(x)",
    "PosixPath": "return str(x)",
    "datetime": "return x.isoformat()",
    "date": "return x.isoformat()",
    "Decimal": "return float(x) or str(x)",
    "complex": "return [x.real, x.imag]",
}


class NotJSON(TypeError):
    """A function returned a value that JSON can't represent.

    The message says where it is and what to return instead.
    """


def to_json(value: object) -> bytes:
    """`value` as JSON in UTF-8 on one line; strict: no NaN, no invented conversions.

    Raises:
        TypeError, ValueError: As `json.dumps`.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:  # lone surrogates of a file name that is not UTF-8 are escaped
        return json.dumps(value, allow_nan=False).encode()


def success(index: int, text: bytes, result: bytes, device: str | None, seconds: float | None) -> bytes:
    """The line of an item that has a result (already JSON, by `result_to_json`)."""
    return _line(index, text, b"result", result, device, seconds)


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
    """``ValueError``; with its module where it is not built in: ``json.decoder.JSONDecodeError``."""
    kind = type(error)
    module = module_name(kind)
    return qualified_name(kind) if module in ("", "builtins") else f"{module}.{qualified_name(kind)}"


def result_to_json(result: object) -> bytes:
    """What the function returned, as JSON.

    Raises:
        NotJSON: It contains a value that JSON can't represent.
    """
    try:
        return to_json(result)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJSON(_complaint(result) or f"the result is not JSON: {error}") from None


def _line(index: int, text: bytes, key: bytes, value: bytes, device: str | None, seconds: float | None) -> bytes:
    rest = to_json({"device": device, "seconds": None if seconds is None else round(seconds, 6)})
    return b'{"index": %d, "input": %s, "%s": %s, %s\n' % (index, text, key, value, rest[1:])


def _complaint(result: object) -> str | None:
    found = _offender(result, "result", 0)
    if found is None:
        return None
    where, value = found
    if isinstance(value, float):
        return f"{where} is {value}, which JSON has no word for: return None or a string in its place"
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{where} is a {kind}, which JSON can't hold: {_remedy(value)}"


def _offender(value: object, where: str, depth: int) -> tuple[str, object] | None:
    """The first value that JSON can't represent, and its path: ``result["boxes"][0]``."""
    if depth > 100 or value is None or isinstance(value, (str, int)):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else (where, value)
    if isinstance(value, dict):
        return _first_offender([(f"{where}[{key!r}]", part) for key, part in value.items()], depth) or _bad_key(
            value, where
        )
    if isinstance(value, (list, tuple)):
        return _first_offender([(f"{where}[{i}]", part) for i, part in enumerate(value)], depth)
    return where, value


def _first_offender(parts: list[tuple[str, object]], depth: int) -> tuple[str, object] | None:
    found = (_offender(part, where, depth + 1) for where, part in parts)
    return next((offender for offender in found if offender is not None), None)


def _bad_key(value: dict[Any, Any], where: str) -> tuple[str, object] | None:
    bad = (key for key in value if not (key is None or isinstance(key, (str, int, float))))
    return next(((f"the key {key!r} of {where}", key) for key in bad), None)


def _remedy(value: object) -> str:
    """What to return instead; arrays and their scalars of any library are recognised by their methods."""
    if hasattr(value, "tolist"):
        shape = getattr(value, "shape", ())
        return "return x.item()" if shape == () and hasattr(value, "item") else "return x.tolist()"
    if hasattr(value, "__dataclass_fields__"):
        return "return dataclasses.asdict(x)"
    known = _REMEDIES.get(type(value).__name__)
    return known or "return numbers, strings, lists and dicts, or have the function save it and return the file's name"
