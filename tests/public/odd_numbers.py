"""Numbers at every limit, of every kind, and objects that only look like numbers, by name."""

from __future__ import annotations

import enum
import math
import numbers
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np


def _fail(*_: object) -> NoReturn:
    raise ZeroDivisionError


_METHODS = (
    *(
        "__neg__",
        "__add__",
        "__radd__",
        "__mul__",
        "__rmul__",
        "__sub__",
        "__rsub__",
        "__truediv__",
        "__abs__",
        "__pow__",
    ),
    *("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__", "__hash__", "__bool__", "__repr__", "__str__"),
    *(
        "__int__",
        "__index__",
        "__float__",
        "__round__",
        "__trunc__",
        "__floor__",
        "__ceil__",
        "__format__",
        "__reduce_ex__",
    ),
)
_HOSTILE = dict.fromkeys(_METHODS, _fail)

EvilInt: Any = type("EvilInt", (int,), _HOSTILE)
EvilFloat: Any = type("EvilFloat", (float,), _HOSTILE)
EvilReal: Any = type("EvilReal", (), _HOSTILE)
numbers.Real.register(EvilReal)
EvilIntegral: Any = type("EvilIntegral", (), _HOSTILE)
numbers.Integral.register(EvilIntegral)


class EvilClass(type):
    """A class that can't be asked whether it is one of numbers, and has no hash."""

    __hash__ = __eq__ = __getattribute__ = _fail  # type: ignore[assignment]


class OfEvilClass(metaclass=EvilClass):
    """An object of such a class."""


class Leaving(numbers.Real):
    """A number that ends the program when it is asked for its value."""

    __float__ = __int__ = __index__ = lambda _: (_ for _ in ()).throw(SystemExit(3))  # type: ignore[assignment]


Leaving.__abstractmethods__ = frozenset()


class Wrong:
    """A number by what it says, of no use by what it gives."""

    def __float__(self) -> Any:
        return "one"

    __index__ = __int__ = __float__


numbers.Integral.register(Wrong)
Level = enum.IntEnum("Level", {"THREE": 3})
Kind = enum.Enum("Kind", {"THREE": 3})

WORTH: dict[str, tuple[Any, int | float]] = {
    "0": (0, 0),
    "-1": (-1, -1),
    "3": (3, 3),
    "2**31": (2**31, 2**31),
    "2**63 - 1": (2**63 - 1, 2**63 - 1),
    "2**63": (2**63, 2**63),
    "-2**63": (-(2**63), -(2**63)),
    "-2**63 - 1": (-(2**63) - 1, -(2**63) - 1),
    "10**400": (10**400, 10**400),
    "-10**400": (-(10**400), -(10**400)),
    "10**5000": (10**5000, 10**5000),
    "0.0": (0.0, 0.0),
    "-0.0": (-0.0, -0.0),
    "2.5": (2.5, 2.5),
    "5e-324": (5e-324, 5e-324),
    "1e9": (1e9, 1e9),
    "1e12": (1e12, 1e12),
    "1.7e308": (1.7e308, 1.7e308),
    "infinite": (math.inf, math.inf),
    "-infinite": (-math.inf, -math.inf),
    "nan": (math.nan, math.nan),
    "EvilInt": (EvilInt(3), 3),
    "giant EvilInt": (EvilInt(10**400), 10**400),
    "EvilFloat": (EvilFloat(3), 3.0),
    "nan EvilFloat": (EvilFloat("nan"), math.nan),
    "enum": (Level.THREE, 3),
    "Decimal": (Decimal("2.5"), 2.5),
    "Decimal nan": (Decimal("nan"), math.nan),
    "giant Decimal": (Decimal("1e400"), 10**400),
    "Fraction": (Fraction(5, 2), 2.5),
    "giant Fraction": (Fraction(10**400, 3), 10**400),
    "negative giant Fraction": (Fraction(-(10**400), 3), -(10**400)),
    "numpy int": (np.int64(3), 3),
    "numpy unsigned": (np.uint64(2**64 - 1), 2**64 - 1),
    "numpy float": (np.float64(2.5), 2.5),
    "numpy half": (np.float16(2.5), 2.5),
    "numpy nan": (np.float32("nan"), math.nan),
    "numpy long": (np.longdouble(2.5), 2.5),
}
"""Numbers, and what each is worth as a plain one."""

NONE: dict[str, Any] = {
    "True": True,
    "a bool of numpy": np.bool_(True),
    "a complex": 1 + 0j,
    "a complex of numpy": np.complex64(1),
    "a sNaN": Decimal("sNaN"),
    "a duration of numpy": np.timedelta64(3, "s"),
    "an array": np.array(3),
    "digits": "3",
    "bytes": b"3",
    "a list": [3],
    "an enum of no numbers": Kind.THREE,
    "EvilReal": EvilReal(),
    "EvilIntegral": EvilIntegral(),
    "OfEvilClass": OfEvilClass(),
    "Leaving": Leaving(),
    "Wrong": Wrong(),
    "NotImplemented": NotImplemented,
    "a class": int,
}
"""What no option takes for a number."""

ODD = {name: number for name, (number, _) in WORTH.items()} | NONE
