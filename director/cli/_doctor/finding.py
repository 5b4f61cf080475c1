"""One thing that the doctor has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Args:
        part: Which part of the examination: ``"versions"``, ``"devices"``, ``"environment"``, ``"limits"``, ``"apps"``.
        code: A name that stays the same, for scripts and for the documentation.
        level: ``"wrong"``: something won't work. ``"note"``: worth knowing.
        text: What is.
        remedy: What helps.
    """

    part: str
    code: str
    level: Level
    text: str
    remedy: str | None = None
