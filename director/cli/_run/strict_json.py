"""Values as JSON that every reader of JSON takes, or an error that says where the value is that can't be written."""

from __future__ import annotations

import json
import math
from typing import Any

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


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode  # `json.dumps` would make one for each call
_encode_ascii = json.JSONEncoder(allow_nan=False).encode


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
        return _encode(value).encode()
    except UnicodeEncodeError:  # lone surrogates of a file name that is not UTF-8 are escaped
        return _encode_ascii(value).encode()


def result_to_json(result: object) -> bytes:
    """What the function returned, as JSON.

    Raises:
        NotJSON: It contains a value that JSON can't represent.
    """
    try:
        return to_json(result)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJSON(_complaint(result) or f"the result is not JSON: {error}") from None


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
